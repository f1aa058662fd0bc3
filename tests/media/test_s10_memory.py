"""Files that are read one after the other leave no memory behind.

AVLLM_DECODES=1000 reads that many; the suite reads few.
"""

import gc
import os
import subprocess
import sys

import pytest
from av.container import InputContainer

from avllm.media import open_audio, open_video, probe
from avllm.media.frame_readers import FrameReader
from tests.media.make import clip, coded
from tests.media.measured import linux_only

DECODES = int(os.environ.get("AVLLM_DECODES", "40"))
MOST_KB = 20  # of one round; a frame of the clip has 36

_READS = """
import gc
import sys
from contextlib import suppress
from avllm.errors import MediaError
from avllm.media import Sampling, open_audio, open_video, probe
good, cut, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

def read(path):
    for call in (lambda: probe(path), lambda: open_video(path, Sampling(num_frames=4)), lambda: open_audio(path)):
        with suppress(MediaError):
            call()

def many(count):
    for number in range(count):
        read(good), read(cut)
    gc.collect()
    return resident()

before = many(max(20, count // 4))  # the allocator keeps what it was given once
print(max(0, many(count) - before) / count)
"""


@linux_only
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.ts"])
def test_s10_many_decodes_leave_no_memory_behind(tmp_path, name):
    path = tmp_path / name
    coded(path, "mpeg2video", 12, sound="mp2") if name == "a.ts" else clip(path, 12)
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    done = subprocess.run(
        [sys.executable, "-c", _READS, str(path), str(cut), str(DECODES)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # or each thread of a decoder keeps some MB for the next
    )
    assert float(done.stdout) < MOST_KB


def test_s10_a_decoder_is_freed_at_once(tmp_path):
    """It is part of no cycle that waits for the garbage collector."""
    path = clip(tmp_path / "a.mp4", 12)
    gc.collect()
    gc.disable()
    try:
        for call in (probe, open_video, open_audio):
            call(path)
        alive = [item for item in gc.get_objects() if isinstance(item, InputContainer | FrameReader)]
    finally:
        gc.enable()
    assert alive == []
