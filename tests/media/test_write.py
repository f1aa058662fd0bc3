import numpy as np
import pytest

from avllm.errors import MediaError
from avllm.media import Sampling, open_audio, open_video, write_audio, write_video
from tests.media.make import numbered, numbers, tone


@pytest.mark.parametrize("fps", [12, 23.976, 29.97, 30])
def test_rates(tmp_path, fps):
    video = open_video(write_video(tmp_path / "a.mp4", iter(numbered(10)), fps), Sampling(kind="all"))

    assert video.fps == pytest.approx(fps, rel=1e-4)
    assert numbers(video) == list(range(10))


def test_sound_longer_or_shorter_than_the_picture(tmp_path):
    for seconds in (0.25, 3.0):
        path = write_video(tmp_path / "a.mp4", numbered(12), 12, waveform=tone(seconds))
        assert open_audio(path).duration_s == pytest.approx(seconds, abs=1e-3)
        assert open_video(path).duration_s == pytest.approx(1.0)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    paths = [write_video(tmp_path / f"{i}.mp4", numbered(12), 12, waveform=tone(1.0)) for i in range(2)]

    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_lower_quality_takes_less_room(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(6)]
    sizes = [write_video(tmp_path / "a.mp4", frames, 12, crf=crf).stat().st_size for crf in (18, 40)]

    assert sizes[1] < sizes[0] / 2


def test_faults_leave_no_file(tmp_path):
    cases = [
        (tmp_path / "odd.mp4", [np.zeros((95, 128, 3), np.uint8)], "even sides"),
        (tmp_path / "none.mp4", [], "no frames"),
        (tmp_path / "mixed.mp4", [np.zeros((96, s, 3), np.uint8) for s in (128, 64)], "frame 1"),
        (tmp_path / "a.xyz", numbered(1), "cannot write"),
        (tmp_path / "a.wav", numbered(1), "no video"),
    ]
    for path, frames, message in cases:
        with pytest.raises(MediaError, match=message):
            write_video(path, frames, 12)
        assert not path.exists()
    with pytest.raises(MediaError, match="3 channels"):
        write_audio(tmp_path / "a.wav", np.zeros((3, 100), np.float32), 16000)
