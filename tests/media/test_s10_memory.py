"""Files that are read one after the other leave no memory behind.

AVLLM_DECODES=1000 reads that many; the suite reads few.
"""

import os
import subprocess
import sys

import pytest

from tests.media.make import clip
from tests.media.measured import linux_only

DECODES = int(os.environ.get("AVLLM_DECODES", "60"))
# Of one decode; a leak of one frame of the clip would be 36 kB.
MOST_KB = 12

_READS = """
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

for number in range(count // 2):
    read(good), read(cut)
middle = resident()
for number in range(count // 2):
    read(good), read(cut)
print((resident() - middle) / (count // 2))
"""


@linux_only
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.ts"])
def test_s10_many_decodes_leave_no_memory_behind(tmp_path, name):
    path = clip(tmp_path / "a.mp4", 12) if name == "a.ts" else clip(tmp_path / name, 12)
    if name == "a.ts":
        from tests.media.make import coded

        path = coded(tmp_path / name, "mpeg2video", 12, sound="mp2")
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    done = subprocess.run(
        [sys.executable, "-c", _READS, str(path), str(cut), str(DECODES)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert float(done.stdout) < MOST_KB * (1 + 200 / DECODES)
