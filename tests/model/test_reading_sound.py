"""Sound to the one picture that BEATs looks at."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from avllm import media
from avllm.errors import MediaError, NoAudioStream
from avllm.media import Audio, FbankConfig, Limits, fbank_of, write_audio
from avllm.media.isolated import IsolatedMedia
from avllm.model.reading import read_audio
from tests.media.make import clip, numbered

SMALL = FbankConfig(seconds=2.0, num_clips=2, clip_seconds=0.5, num_mel_bins=16)


def fbank(waveform: np.ndarray, rate: int = 16000, *, is_video: bool = False) -> torch.Tensor:
    return torch.from_numpy(fbank_of(Audio(waveform=waveform[None], sample_rate=rate), SMALL, is_video=is_video))


def noise(seconds: float, rate: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def as_stored(waveform: np.ndarray) -> np.ndarray:
    """Through 16 bits."""
    return (np.round(waveform * 32768) / 32768).astype(np.float32)


def test_a_short_file_is_resampled_in_the_published_way(tmp_path: Path):
    sound = noise(1.0, 8000)

    loaded = read_audio(media, SMALL, write_audio(tmp_path / "a.wav", sound[None], 8000), {})

    assert (loaded.kind, loaded.branch, loaded.values.shape) == ("audio", "audio", (1, 1, 16, 198))
    assert torch.allclose(loaded.values, fbank(as_stored(sound), 8000), atol=1e-3)


def test_of_a_long_file_clips_are_heard(tmp_path: Path):
    sound = noise(5.0, 16000)
    path = write_audio(tmp_path / "a.wav", sound[None], 16000)

    assert torch.allclose(read_audio(media, SMALL, path, {}).values, fbank(as_stored(sound)), atol=1e-3)
    part = read_audio(media, SMALL, path, {"start_s": 1.0, "end_s": 2.5}).values
    assert torch.allclose(part, fbank(as_stored(sound)[16000:40000]), atol=1e-3)


def test_a_part_of_a_long_file_keeps_its_own_rate(tmp_path: Path):
    sound = noise(5.0, 8000)
    path = write_audio(tmp_path / "a.wav", sound[None], 8000)

    part = read_audio(media, SMALL, path, {"start_s": 1.0, "end_s": 2.5}).values

    assert torch.allclose(part, fbank(as_stored(sound)[8000:20000], 8000), atol=1e-3)


def test_of_the_sound_of_a_video_clips_are_heard(tmp_path: Path):
    path = clip(tmp_path / "a.mp4", 36)

    values = read_audio(media, SMALL, path, {}).values

    opened = media.open_audio(path, sample_rate=16000)
    assert torch.equal(values, torch.from_numpy(fbank_of(opened, SMALL, is_video=True)))
    assert not torch.allclose(values, torch.from_numpy(fbank_of(opened, SMALL)), atol=0.1)


@pytest.mark.parametrize("kind", ["bytes", "array", "audio"])
def test_other_sources_of_sound(tmp_path: Path, kind: str):
    sound = as_stored(noise(1.0, 16000))
    sources = {
        "bytes": write_audio(tmp_path / "a.wav", sound[None], 16000).read_bytes(),
        "array": sound,
        "audio": Audio(waveform=sound[None], sample_rate=16000),
    }

    assert torch.allclose(read_audio(media, SMALL, sources[kind], {}).values, fbank(sound), atol=1e-3)


def test_what_has_no_sound_says_so(tmp_path: Path):
    for source in (clip(tmp_path / "mute.mp4", 12, sound=False), np.stack(numbered(2)), numbered(2)):
        with pytest.raises(NoAudioStream):
            read_audio(media, SMALL, source, {})


def test_the_published_random_part_can_be_had_back(tmp_path: Path):
    path = write_audio(tmp_path / "a.wav", noise(5.0, 16000)[None], 16000)
    random.seed(0)
    one, other = (read_audio(media, SMALL, path, {}, quirks=("crop_sounds_at_random",)).values for _ in range(2))

    assert not torch.allclose(one, other, atol=0.1)
    assert torch.equal(read_audio(media, SMALL, path, {}).values, read_audio(media, SMALL, path, {}).values)


def test_limits_hold_and_a_child_process_reads_the_same(tmp_path: Path):
    path = clip(tmp_path / "a.mp4", 24)
    with pytest.raises(MediaError, match=r"limit is 0\.5 seconds"):
        read_audio(media, SMALL, path, {"limits": Limits(seconds=0.5)})
    with IsolatedMedia(num_workers=1) as door:
        assert torch.equal(read_audio(door, SMALL, path, {}).values, read_audio(media, SMALL, path, {}).values)
