"""The same file gives the same tensors: again, in another process, with any number of threads."""

import hashlib
import subprocess
import sys

from avllm.media import Sampling, log_mel, open_audio, open_video
from tests.media.make import clip, coded, sounding, tone

_DIGEST = """
import sys
from tests.media.test_s21_repeatable import digest
print(digest(*sys.argv[1:]))
"""
SAMPLINGS = (
    Sampling(num_frames=5),
    Sampling(kind="head_tail", num_frames=6, seed=3),
    Sampling(kind="interval_random", num_frames=6, seed=3),
    Sampling(kind="fps", fps=7.0),
)


def digest(*paths: str) -> str:
    """Of everything that is read of the files."""
    total = hashlib.sha256()
    for path in paths:
        if not path.endswith((".wav", ".m4a")):
            for sampling in SAMPLINGS:
                video = open_video(path, sampling, size=(40, 56))
                total.update(video.frames.tobytes() + video.times_s.tobytes())
        for options in ({}, {"sample_rate": 22050, "start_s": 0.3, "end_s": 0.8}, {"sample_rate": 15999}):
            audio = open_audio(path, **options)
            total.update(audio.waveform.tobytes() + str(audio.start_s).encode())
            total.update(log_mel(audio.waveform[0], audio.sample_rate).tobytes())
    return total.hexdigest()


def test_s21_two_processes_read_equal_tensors(tmp_path):
    paths = [clip(tmp_path / name, 36) for name in ("a.mp4", "a.webm", "a.mkv")]
    paths += [coded(tmp_path / "a.ts", "mpeg2video", 36, sound="mp2")]
    paths += [sounding(tmp_path / "a.m4a", "aac", tone(1.0, 44100), 44100)]
    names = [str(path) for path in paths]
    here = digest(*names)
    assert digest(*names) == here
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST, *names], capture_output=True, text=True, timeout=120, check=True
    )
    assert there.stdout.strip() == here
