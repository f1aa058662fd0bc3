"""Sound that unfolds to far more than its file, or whose header lies: refused, or read at the memory of its result."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Audio, Limits, open_audio, write_audio
from avllm.media.growing import GrowingWaveform
from tests.media.make import sounding, tone
from tests.media.measured import linux_only, measured

MIB = 2**20


def repeated(path, codec: str, parts: float, rate: int = 48000):
    """Hours of the same packet."""
    first = sounding(path.with_name(f"first{path.suffix}"), codec, np.zeros(rate, np.float32), rate)
    with av.open(str(first)) as inside, av.open(str(path), "w") as out:
        track = out.add_stream_from_template(inside.streams.audio[0])
        packet = [packet for packet in inside.demux(audio=0) if packet.size][4]
        packet.stream, step, base = track, packet.duration, packet.time_base
        for number in range(int(parts * 3600 / (step * base))):
            packet.pts = packet.dts = number * step
            out.mux(packet)
    return path


def wav(seconds: float, *, rate: int = 16000, channels: int = 1, stated: int | None = None) -> bytes:
    data = bytes(2 * channels * int(seconds * rate)) if seconds < 1 else bytes(2 * int(seconds * 16000))
    head = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels * 2) & 0xFFFFFFFF, channels * 2, 16)
    size = len(data) if stated is None else stated
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", size)
        + data
    )


@linux_only
def test_s08_sound_is_read_at_the_memory_of_its_result_or_refused(tmp_path):
    long = repeated(tmp_path / "long.ogg", "libopus", 9)
    part = repeated(tmp_path / "part.mka", "libopus", 0.2)
    odd = write_audio(tmp_path / "odd.wav", np.zeros((2, 44099 * 30), np.float32), 44099)
    assert long.stat().st_size < 12 * MIB
    result_mb = 720 * 16000 * 4 / MIB
    done = measured(
        [
            ("open_audio", long, {}),  # over six parts
            ("open_audio", long, {"limits": {"seconds": 1e9, "audio_bytes": 500 * MIB}}),
            ("open_audio", part, {}),
            ("open_audio", part, {"limits": {"audio_bytes": 40 * MIB}}),
            ("open_audio", odd, {}),
        ]
    )
    expected = (("Limits.seconds", 60), ("Limits.audio_bytes", 60), ("read", result_mb + 25))
    expected += (("Limits.audio_bytes", 40), ("read: (2, 480000)", 40))
    for (grown_mb, outcome), (text, most_mb) in zip(done, expected, strict=True):
        assert text in outcome
        assert grown_mb < most_mb, outcome


def test_s08_forged_rates_are_refused(tmp_path):
    for rate, channels in ((4_000_000_000, 1), (0, 1), (2_000_000, 2), (16000, 65)):
        with pytest.raises(MediaError):
            open_audio(wav(0.1 if rate < 10**6 else 1.5, rate=rate, channels=channels))


def test_s08_flac_of_the_highest_rate_and_eight_channels(tmp_path):
    """A second of silence in a file of some kilobytes is 21 MB at its own rate, and half a MB at 16 kHz."""
    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as out:
        track = out.add_stream("flac", rate=655350, layout="7.1", options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 65535), np.int16), format="s16", layout="7.1")
        frame.sample_rate = 655350
        resampler = av.AudioResampler(format=track.format, layout="7.1", rate=655350, frame_size=track.frame_size)
        for number in range(10):
            frame.pts, frame.time_base = number * 65535, Fraction(1, 655350)
            for piece in resampler.resample(frame):
                out.mux(track.encode(piece))
        out.mux(track.encode(None))
    audio = open_audio(path)
    assert audio.waveform.shape[0] == 8
    assert audio.duration_s == pytest.approx(1.0, abs=0.05)
    samples = audio.waveform.shape[1]
    open_audio(path, limits=Limits(audio_bytes=8 * 4 * samples))
    with pytest.raises(MediaError, match=r"a\.flac: .*Limits\.audio_bytes"):
        open_audio(path, limits=Limits(audio_bytes=8 * 4 * (samples - 1)))


def test_s08_lying_lengths(tmp_path):
    """A header that states parts is refused by what it states; one that states too little, by what comes."""
    data = bytearray(write_audio(tmp_path / "a.flac", tone(1.0), 16000).read_bytes())
    total = int.from_bytes(data[21:26])
    for stated in (2**35, 16000 * 7 * 3600):
        data[21:26] = (total - 16000 + stated).to_bytes(5)
        with pytest.raises(MediaError, match=r"Limits\.(seconds|audio_bytes)"):
            open_audio(bytes(data))
    data[21:26] = (total - 16000 + 10).to_bytes(5)
    assert open_audio(bytes(data)).duration_s == pytest.approx(1.0, abs=0.01)
    with pytest.raises(MediaError, match=r"Limits\.audio_bytes"):
        open_audio(bytes(data), limits=Limits(audio_bytes=4 * 15_000))


def gapped(path, gap_s: float):
    """Half a second of sound, a gap in the times, half a second of sound."""
    first = sounding(path.with_name("whole.mka"), "pcm_s16le", tone(1.0, 16000), 16000)
    with av.open(str(first)) as inside, av.open(str(path), "w") as out:
        track = out.add_stream_from_template(inside.streams.audio[0])
        for packet in inside.demux(audio=0):
            if packet.dts is not None:
                late = packet.pts * packet.time_base >= 0.5
                packet.pts = packet.dts = packet.pts + (round(gap_s / packet.time_base) if late else 0)
                packet.stream = track
                out.mux(packet)
    return path


def test_s08_a_gap_is_silence_noted_or_refused(tmp_path, caplog):
    assert open_audio(gapped(tmp_path / "a.mka", 2.0)).num_damaged == 0
    noted = open_audio(gapped(tmp_path / "b.mka", 100.0))
    assert noted.num_damaged == 1
    assert noted.duration_s == pytest.approx(101, abs=0.1)
    assert "no sound for 100.0 s" in caplog.text
    for gap_s in (125.0, 3 * 3600.0):
        path = gapped(tmp_path / "c.mka", gap_s)
        with pytest.raises(MediaError, match=r"c\.mka: has no sound for \d+ s after 0\.\d+ s.*start_s and end_s"):
            open_audio(path)
        assert open_audio(path, end_s=0.4).duration_s == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("expected", [0, 7, 1000, 5000])
def test_s08_a_growing_waveform_is_what_was_put_in(channels, expected):
    rng = np.random.default_rng(0)
    pieces = [rng.standard_normal((channels, count)).astype(np.float32) for count in (3, 0, 1, 700, 2000, 5)]
    growing = GrowingWaveform(channels, expected)
    for piece in pieces:
        growing.append(piece)
    taken = growing.take()
    assert np.array_equal(taken, np.concatenate(pieces, axis=1))
    assert taken.flags.c_contiguous


@pytest.mark.parametrize("rates", [(44099, 16000), (16001, 16000), (999_983, 16000), (7, 16000), (47_999, 44_100)])
def test_s08_rates_without_a_common_divisor_need_no_table(rates):
    from_rate, to_rate = rates
    count = max(from_rate // 4, 8)
    waveform = tone(count / from_rate, from_rate, min(440.0, from_rate / 8))[None]
    audio = open_audio(Audio(waveform=waveform, sample_rate=from_rate), sample_rate=to_rate)
    expected = tone(audio.duration_s, to_rate, min(440.0, from_rate / 8))
    assert audio.waveform.shape[1] == -(-waveform.shape[1] * to_rate // from_rate)
    edge = -(-8 * to_rate // min(from_rate, to_rate))
    middle = slice(edge, audio.waveform.shape[1] - edge)
    if audio.waveform.shape[1] > 2 * edge:
        assert np.abs(audio.waveform[0, middle] - expected[: audio.waveform.shape[1]][middle]).max() < 5e-3


def test_s08_a_rate_that_jumps_midway_is_refused(tmp_path):
    """FFmpeg's resampler would set up a filter of gigabytes from 1 Hz to 1 MHz."""
    from avllm.media import sound_decoder

    class Frame:
        sample_rate, layout = 655350, type("Layout", (), {"channels": (0,)})

    decoder = object.__new__(sound_decoder.SoundDecoder)
    decoder.rate, decoder.num_channels, decoder.source = 1000, 1, type("Source", (), {"name": "a.flac"})
    with pytest.raises(MediaError, match=r"a\.flac: changes from 1000 to 655350 Hz"):
        list(decoder._converted(iter([Frame])))
