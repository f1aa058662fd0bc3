"""A model folder that is saved over is the old one or the new one, whole, at any moment: also after kill -9."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avllm.checkpoints import swap
from avllm.checkpoints.load import merge_adapter
from avllm.checkpoints.swap import written_whole
from avllm.errors import CheckpointError

PROGRAM = Path(__file__).with_name("kill_while_saving.py")


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(folder, text):
    with written_whole(folder) as unfinished:
        for name in ("a", "b"):
            (unfinished / name).write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped in one step on Linux; kills need fork")
@pytest.mark.parametrize("what", ["model", "adapter"])
def test_killed_at_any_step_it_is_the_old_or_the_new_one(tmp_path, what):
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


@pytest.mark.parametrize("can_swap", [True, False])
def test_what_was_there_is_replaced_and_nothing_stays_beside(tmp_path, monkeypatch, can_swap):
    if not can_swap:
        monkeypatch.setattr(swap, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        _write(tmp_path / "model", text)
        (tmp_path / "model" / text).write_text("more")

    assert _content(tmp_path / "model") == {"a": b"new", "b": b"new", "new": b"more"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_one_and_nothing_beside(tmp_path):
    _write(tmp_path / "model", "old")

    def stopped():
        with written_whole(tmp_path / "model") as unfinished:
            (unfinished / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()

    assert _content(tmp_path / "model") == {"a": b"old", "b": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_is_followed_and_a_file_is_left_alone(tmp_path):
    _write(tmp_path / "disk" / "model", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    (tmp_path / "file").write_text("mine")

    _write(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert _content(tmp_path / "disk" / "model")["a"] == b"new"
    with pytest.raises(CheckpointError, match="is a file"):
        _write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "mine"


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
