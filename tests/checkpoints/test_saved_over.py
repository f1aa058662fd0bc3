"""A model folder that is saved over is the old one or the new one, whole, at any moment: also after kill -9."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_while_saving.py")


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped in one step on Linux; kills need fork")
@pytest.mark.parametrize("what", ["model", "adapter"])
def test_s24_a_save_killed_at_any_step_leaves_the_old_or_the_new_one(tmp_path, what):
    if what == "adapter":
        pytest.importorskip("peft", reason="adapters need avllm[train]")
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), what, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    states = json.loads(done.stdout.splitlines()[-1])
    if states == "cannot swap":
        pytest.skip("this file system cannot swap two folders in one step")
    # Killed at every step that touches the disk, early ones before the swap and late ones behind it.
    assert states[0] == "old"
    assert states[-1] == "new"
    assert set(states) == {"old", "new"}
    assert len(states) > 10
