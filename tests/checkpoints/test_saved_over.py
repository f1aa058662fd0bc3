"""A model folder that is saved over is the old one or the new one, whole, at any moment: also after kill -9."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avllm.checkpoints.load import merge_adapter
from avllm.errors import CheckpointError

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


def test_merge_replaces_models_alone(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need avllm[train]")
    from avllm.checkpoints import adapters
    from avllm.checkpoints.load import load_model

    model = peft.get_peft_model(load_model("nano")[0], peft.LoraConfig(r=2, target_modules=r"decoder\..*q_proj"))
    folder = adapters.save_adapter(model, tmp_path / "adapter", base="nano", trained={})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")

    with pytest.raises(CheckpointError, match="holds something else than a model"):
        merge_adapter(folder, tmp_path / "notes")
    with pytest.raises(CheckpointError, match="is what is merged"):
        merge_adapter(folder, tmp_path / "notes" / ".." / "adapter")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    assert (folder / "adapter_model.safetensors").is_file()
