import itertools

import numpy as np
import pytest

from avllm.errors import MediaError, NoAudioStream
from avllm.media import Audio, open_audio, resample, write_audio, write_video
from avllm.media.resample import SincResampler
from tests.media.make import clip, numbered, remux, tone


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    """Smooth noise: every moment is unlike every other."""
    samples = np.random.default_rng(0).standard_normal((channels, round(seconds * 16000)))
    smooth = np.stack([np.convolve(row, np.ones(24) / 24, "same") for row in samples])
    return smooth.astype(np.float32)


def lag(sound: np.ndarray, reference: np.ndarray, most: int = 300) -> int:
    """By how many samples `sound` is late."""
    middle = reference[most:-most]
    scores = [np.dot(sound[most + k : most + k + len(middle)], middle) for k in range(-most, most + 1)]
    return int(np.argmax(scores)) - most


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.m4a", "a.ogg", "a.flac", "a.wav"])
def test_every_container_keeps_the_moment(tmp_path, name):
    waveform, path = noise(3.0), tmp_path / name
    if name[2:] in ("mp4", "mov", "mkv", "webm"):
        write_video(path, numbered(36), 12, waveform=waveform)
    else:
        write_audio(path, waveform, 16000)
    audio = open_audio(path)

    assert audio.waveform.shape[0] == 1
    assert abs(audio.waveform.shape[1] - 48000) <= 1024  # Matroska keeps AAC's padding
    assert abs(lag(audio.waveform[0, :47000], waveform[0, :47000])) <= 1
    part = open_audio(path, start_s=1.5, end_s=2.5)
    assert part.waveform.shape == (1, 16000)
    assert part.start_s == pytest.approx(1.5, abs=1e-4)
    assert abs(lag(part.waveform[0], waveform[0, 24000:40000])) <= 16  # Matroska counts milliseconds


def test_wav_is_exact_and_all_channels_are_kept(tmp_path):
    waveform = noise(0.5, channels=2)
    audio = open_audio(write_audio(tmp_path / "a.wav", waveform, 16000))

    assert audio.waveform.shape == (2, 8000)
    assert np.abs(audio.waveform - waveform).max() <= 1 / 32768


@pytest.mark.parametrize("rates", [(44100, 16000), (48000, 16000), (8000, 16000), (11025, 16000), (16000, 44100)])
def test_resampling_keeps_a_tone(rates):
    from_rate, to_rate = rates
    result = resample(tone(0.5, from_rate)[None], from_rate, to_rate)
    expected = tone(0.5, to_rate)

    assert result.shape[1] == -(-to_rate * (from_rate // 2) // from_rate)
    assert np.abs(result[0, 200:-200] - expected[200 : result.shape[1] - 200]).max() < 2e-3


def test_chunks_leave_no_trace():
    waveform = noise(1.0, channels=2)
    resampler = SincResampler(44100, 16000, 2)
    cuts = [0, 1, 7, 1000, 1001, 9000, 16000]
    parts = [resampler.push(waveform[:, a:b]) for a, b in itertools.pairwise(cuts)]
    whole = np.concatenate([*parts, resampler.finish()], axis=1)

    assert np.abs(whole - resample(waveform, 44100, 16000)).max() < 1e-6


@pytest.mark.parametrize("rate", [44100, 22050, 48000, 44099])
def test_files_of_other_rates(tmp_path, rate):
    audio = open_audio(write_audio(tmp_path / "a.wav", tone(0.5, rate), rate))

    assert audio.waveform.shape[1] == pytest.approx(8000, abs=2)
    assert np.abs(audio.waveform[0, 200:7800] - tone(0.5)[200:7800]).max() < 5e-3


def test_arrays_and_audio():
    waveform = tone(1.0, 32000)
    for source in (waveform, waveform[None], Audio(waveform=waveform[None], sample_rate=32000)):
        audio = open_audio(source, source_rate=32000, start_s=0.25)
        assert audio.waveform.shape == (1, 12000)
        assert audio.start_s == 0.25
    assert open_audio((tone(0.1) * 32767).astype(np.int16)).waveform.max() == pytest.approx(0.5, abs=1e-3)


def test_a_film_without_a_track_is_told_apart_from_faults(tmp_path):
    with pytest.raises(NoAudioStream, match=r"silent\.mp4: no audio track"):
        open_audio(clip(tmp_path / "silent.mp4", 12, sound=False))
    with pytest.raises(NoAudioStream):
        open_audio(np.stack(numbered(2)))
    (tmp_path / "text.mp3").write_text("no sound in here\n" * 50)
    with pytest.raises(MediaError, match=r"text\.mp3: not a media file") as caught:
        open_audio(tmp_path / "text.mp3")
    assert not isinstance(caught.value, NoAudioStream)


def test_truncated_sound_says_so(tmp_path):
    fast = remux(clip(tmp_path / "a.mp4", 96), tmp_path / "fast.mp4", movflags="faststart")
    flac = write_audio(tmp_path / "a.flac", noise(2.0), 16000)
    for path in (fast, flac):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 6 // 10])
        with pytest.raises(MediaError, match="truncated"):
            open_audio(path)


def test_no_sound_between_is_an_error(tmp_path):
    path = write_audio(tmp_path / "a.wav", tone(1.0), 16000)
    with pytest.raises(MediaError, match="between 3 and inf s"):
        open_audio(path, start_s=3.0)
    with pytest.raises(MediaError, match="start_s < end_s"):
        open_audio(path, start_s=3.0, end_s=2.0)


def test_a_late_track_says_when_it_begins(tmp_path):
    import av

    path = tmp_path / "late.mkv"
    with av.open(str(write_audio(tmp_path / "a.wav", tone(1.0), 16000))) as sound, av.open(str(path), "w") as out:
        video = out.add_stream("h264", rate=24)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        track = out.add_stream_from_template(sound.streams.audio[0])
        for pixels in numbered(48):
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(video.encode(None))
        for packet in sound.demux(sound.streams.audio[0]):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts + 12000, packet.dts + 12000, track
                out.mux(packet)

    assert open_audio(path).start_s == pytest.approx(0.75, abs=2e-3)


def test_gaps_are_filled_with_silence(tmp_path):
    import av

    path = tmp_path / "gap.mkv"
    with av.open(str(write_audio(tmp_path / "a.wav", tone(1.0), 16000))) as sound, av.open(str(path), "w") as out:
        track = out.add_stream_from_template(sound.streams.audio[0])
        for packet in sound.demux(sound.streams.audio[0]):
            if packet.dts is not None:
                moved = packet.pts + (8000 if packet.pts >= 8000 else 0)
                packet.pts, packet.dts, packet.stream = moved, moved, track
                out.mux(packet)
    audio = open_audio(path)

    assert audio.waveform.shape[1] == pytest.approx(24000, abs=32)
    assert np.count_nonzero(audio.waveform == 0) >= 7900
