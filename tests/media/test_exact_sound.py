"""A part of a sound is a slice of the whole, to the sample, in every container; no more is decoded than it needs."""

import av
import numpy as np
import pytest

import avllm.media.sound_decoder as audio_module
from avllm.errors import MediaError
from avllm.media import open_audio, probe
from tests.media.make import coded, joined, sounding, tone

RATE, SECONDS = 48000, 7
SPANS = [(0, 1), (0.0, 1.2), (0.2, 1.2), (0.7, 1.3), (1.0, 2.0), (3.3, 4.3), (5.123, 5.6789), (6.4, None)]
# What a decoder makes of the same packets depends on where it began: the largest difference to the whole, of 1.
EXACT, NEAR = 2e-6, 2e-3
LOOSE = 0.5  # AAC and AC-3 put in noise of their own, by chance; Vorbis in Matroska is placed by milliseconds
CASES = {
    "a.wav pcm_s16le": EXACT,
    "a.wav pcm_f32le": EXACT,
    "a.wav adpcm_ms": EXACT,
    "a.wav adpcm_ima_wav": EXACT,
    "a.flac flac": EXACT,
    "a.m4a alac": EXACT,
    "a.ogg flac": EXACT,
    "a.mka flac": EXACT,
    "a.mka pcm_s16le": EXACT,
    "a.mov pcm_s16le": EXACT,
    "a.avi pcm_s16le": EXACT,
    "a.flv adpcm_swf": EXACT,
    "a.mp3 libmp3lame": NEAR,
    "a.mp4 libmp3lame": NEAR,
    "a.mka libmp3lame": NEAR,
    "a.avi libmp3lame": NEAR,
    "a.ts libmp3lame": NEAR,
    "a.flv libmp3lame": NEAR,
    "a.mpg mp2": NEAR,
    "a.mp2 mp2": NEAR,
    "a.ogg libopus": NEAR,
    "a.webm libopus": NEAR,
    "a.mp4 libopus": NEAR,
    "a.ts libopus": NEAR,
    "a.ogg vorbis": NEAR,
    "a.mka vorbis": LOOSE,
    "a.m4a aac": LOOSE,
    "a.mka aac": LOOSE,
    "a.ts aac": LOOSE,
    "a.flv aac": LOOSE,
    "a.aac aac": LOOSE,
    "a.ac3 ac3": LOOSE,
    "a.mpg ac3": LOOSE,
    "a.avi ac3": LOOSE,
    "a.ts ac3": LOOSE,
}
SPARSE = {"adpcm_swf": 44100}


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    """Smooth noise: every moment is unlike every other."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate))
    smooth = np.convolve(samples, np.ones(48) / 48, "same")
    return (0.7 * smooth / np.abs(smooth).max()).astype(np.float32)


@pytest.fixture
def blocks(monkeypatch):
    """Counts decoded blocks of sound."""
    met, real = [], audio_module.to_float
    monkeypatch.setattr(
        audio_module, "to_float", lambda frame: met.append(frame.samples / frame.sample_rate) or real(frame)
    )
    return met


def made(path, codec: str, *, with_pictures: bool = False):
    rate = SPARSE.get(codec, RATE)
    if with_pictures:
        return coded(path, "libx264", 25 * SECONDS, sound=codec, gop=50)
    return sounding(path, codec, noise(SECONDS, rate), rate)


@pytest.mark.parametrize("case", CASES)
def test_a_part_is_a_slice_of_the_whole(tmp_path, blocks, case):
    name, codec = case.split()
    path, tolerance = made(tmp_path / name, codec), CASES[case]
    rate = SPARSE.get(codec, RATE)
    whole = open_audio(path, sample_rate=rate)
    assert whole.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert whole.num_damaged == 0

    for start_s, end_s in SPANS:
        blocks.clear()
        part = open_audio(path, sample_rate=rate, start_s=start_s, end_s=end_s)
        first = round((part.start_s - whole.start_s) * rate)
        same = whole.waveform[0, first : first + part.waveform.shape[1]]

        assert part.start_s == pytest.approx(max(start_s, whole.start_s), abs=1.5 / rate)
        if end_s is not None:
            wanted = end_s - max(start_s, whole.start_s)
            assert part.waveform.shape[1] == pytest.approx(wanted * rate, abs=1)
        assert np.abs(part.waveform[0] - same).max() <= tolerance
        assert np.corrcoef(part.waveform[0], same)[0, 1] > 0.95
        # The part, half a second before it, and no more than a block or two around.
        assert sum(blocks) < (end_s or SECONDS + 0.1) - start_s + 0.5 + 4 * max(blocks)


@pytest.mark.parametrize("case", ["a.flac flac", "a.m4a aac", "a.ts mp2"])
def test_a_resampled_part_is_a_slice_of_the_whole(tmp_path, case):
    name, codec = case.split()
    path = sounding(tmp_path / name, codec, noise(4, 44100), 44100)
    whole = open_audio(path)

    for start_s, end_s in ((0.3333, 1.7), (2.0, 2.5), (2.71828, None)):
        part = open_audio(path, start_s=start_s, end_s=end_s)
        first = round((part.start_s - whole.start_s) * 16000)
        same = whole.waveform[0, first : first + part.waveform.shape[1]]
        assert np.abs(part.waveform[0] - same).max() <= (LOOSE if codec == "aac" else NEAR)
        assert np.corrcoef(part.waveform[0], same)[0, 1] > 0.99


@pytest.mark.parametrize("case", ["a.mp4 aac", "a.mkv aac", "a.ts mp2", "a.vob ac3", "a.flv libmp3lame", "a.avi mp2"])
def test_sound_beside_pictures(tmp_path, blocks, case):
    name, codec = case.split()
    path = made(tmp_path / name, codec, with_pictures=True)
    whole = open_audio(path, sample_rate=RATE)

    for start_s, end_s in ((2.5, 3.0), (5.9, 6.3)):
        blocks.clear()
        part = open_audio(path, sample_rate=RATE, start_s=start_s, end_s=end_s)
        first = round((part.start_s - whole.start_s) * RATE)
        same = whole.waveform[0, first : first + part.waveform.shape[1]]
        assert np.corrcoef(part.waveform[0], same)[0, 1] > 0.999
        assert sum(blocks) < 1.2


@pytest.mark.parametrize(("start_s", "end_s"), [(0, 1), (0, 1.2), (0.2, 1.2), (0.3, 1.3), (1, 2), (3.3, 4.3), (0, 6)])
def test_a_span_of_flac_is_not_truncated(tmp_path, start_s, end_s):
    audio = open_audio(made(tmp_path / "a.flac", "flac"), sample_rate=RATE, start_s=start_s, end_s=end_s)
    assert audio.waveform.shape[1] == round((end_s - start_s) * RATE)


@pytest.mark.parametrize("case", ["a.mp3 libmp3lame", "a.aac aac", "a.mp2 mp2", "a.ogg libopus", "a.ts mp2"])
def test_joined_sound_is_heard_to_its_end(tmp_path, case):
    name, codec = case.split()
    path = made(tmp_path / name, codec)
    once, twice = open_audio(path), open_audio(joined(tmp_path / f"b{path.suffix}", path, path))

    assert twice.duration_s == pytest.approx(2 * once.duration_s, abs=0.08)
    assert np.corrcoef(twice.waveform[0, 16000:48000], once.waveform[0, 16000:48000])[0, 1] > 0.95
    late = open_audio(tmp_path / f"b{path.suffix}", start_s=9.0, end_s=9.5)
    assert np.corrcoef(late.waveform[0], twice.waveform[0, 9 * 16000 : 9 * 16000 + 8000])[0, 1] > 0.95


def test_sound_that_changes_its_channels_and_rate(tmp_path):
    with av.open(str(tmp_path / "b.ts"), "w", format="mpegts") as file:
        track = file.add_stream("mp2", rate=32000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([tone(2.0, 32000, 880.0)] * 2), format="fltp", layout="stereo")
        frame.sample_rate = 32000
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=32000, frame_size=1152)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    first = sounding(tmp_path / "a.ts", "mp2", tone(2.0, RATE), RATE)
    audio = open_audio(joined(tmp_path / "c.ts", first, tmp_path / "b.ts"), sample_rate=16000)

    assert audio.waveform.shape[0] == 1
    assert audio.duration_s == pytest.approx(4.0, abs=0.1)
    for start, hertz in ((8000, 440), (46000, 880)):
        piece = audio.waveform[0, start : start + 8000] * np.hanning(8000)
        assert np.argmax(np.abs(np.fft.rfft(piece))) * 2 == pytest.approx(hertz, abs=4)
        assert 0.2 < np.abs(piece).max() < 0.8


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mka", "aac"), ("a.avi", "ac3"), ("a.flv", "aac")])
def test_a_damaged_packet_of_sound_is_skipped_and_counted(tmp_path, name, codec):
    path = made(tmp_path / name, codec)
    whole, data = open_audio(path), bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        content = [bytes(packet) for packet in file.demux(audio=0) if packet.size][40]
    place = data.find(content)
    assert place > 0
    data[place : place + len(content)] = b"\xff" * len(content)
    path.write_bytes(data)
    audio = open_audio(path)

    assert audio.num_damaged >= 1
    assert audio.duration_s == pytest.approx(whole.duration_s, abs=0.1)
    late = slice(5 * 16000, 6 * 16000)
    assert np.corrcoef(audio.waveform[0, late], whole.waveform[0, late])[0, 1] > 0.9  # what follows keeps its time


def test_a_track_that_is_damage_alone_is_refused(tmp_path):
    path = made(tmp_path / "a.mka", "aac")
    with av.open(str(path)) as file:
        contents = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
    data = path.read_bytes()
    for content in contents:
        data = data.replace(content, b"\xff" * len(content))
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"a\.mka: no sound could be decoded"):
        open_audio(path)


def test_probe_tells_the_lengths_of_joined_recordings(tmp_path):
    path = made(tmp_path / "a.ts", "mp2")
    info = probe(joined(tmp_path / "b.ts", path, path))
    assert info.duration_s == pytest.approx(2 * SECONDS, abs=0.1)
