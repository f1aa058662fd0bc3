import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avllm.training import checkpoint, train
from avllm.training.progress import read_log
from tests.training.tiny_system import DATASETS, make_stage, write_stage

PROGRAM = Path(__file__).with_name("tiny_system.py")


def _start(stage, *options, pause=0.0):
    environment = {**os.environ, "TINY_PAUSE": str(pause)}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(stage), *options], env=environment, stderr=subprocess.PIPE, text=True
    )


def _wait_for_step(out, step, process):
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        rows = read_log(out / "log.csv")
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached: {process.stderr.read()}")


def _weights(out):
    return load_file(out / "trainable.safetensors")


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


SETTINGS = {
    "accumulation": 2,
    "group_by": "modality_length",
    "data": [{"kind": "tiny_features", "longer": True}],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The system that all runs start from, and what a run that is never broken off makes of it."""
    root = tmp_path_factory.mktemp("whole")
    stage = make_stage(root, **SETTINGS)
    return root / "base", _weights(train(stage, datasets=DATASETS))


@pytest.fixture
def uninterrupted(tmp_path, whole):
    base, weights = whole
    return write_stage(tmp_path / "stage.yaml", base, tmp_path / "out", **SETTINGS), weights


def test_after_kill_9_the_weights_are_those_of_an_uninterrupted_run(tmp_path, uninterrupted):
    stage, expected = uninterrupted
    out = tmp_path / "out"
    process = _start(stage, pause=0.01)
    _wait_for_step(out, 6, process)  # steps 5 and 6 come after the checkpoint of step 4
    process.kill()
    process.wait()
    process.stderr.close()

    assert not (out / "training.json").exists()
    train(stage, resume=True, datasets=DATASETS)

    assert _equal(_weights(out), expected)
    assert [row["step"] for row in read_log(out / "log.csv")] == list(range(1, 13))


def test_ctrl_c_finishes_the_step_stores_it_and_says_so(tmp_path, uninterrupted):
    stage, expected = uninterrupted
    out = tmp_path / "out"
    process = _start(stage, pause=0.01)
    _wait_for_step(out, 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)

    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("stopped after step ")
    assert "of 12, which is stored; go on with --resume" in errors
    assert checkpoint.step_of(checkpoint.stored(out / "checkpoints")[-1]) == read_log(out / "log.csv")[-1]["step"]
    train(stage, resume=True, datasets=DATASETS)
    assert _equal(_weights(out), expected)


def test_resume_with_reader_processes_gives_the_same_weights(tmp_path, uninterrupted):
    stage, expected = uninterrupted
    out = train(stage, [f"output={tmp_path}/workers", "workers=2"], datasets=DATASETS)
    for path in (out / "training.json", out / "trainable.safetensors"):
        path.unlink()
    newest = checkpoint.stored(out / "checkpoints")[-1]
    newest.rename(newest.with_name(".gone"))

    train(stage, [f"output={tmp_path}/workers"], resume=True, datasets=DATASETS)

    assert _equal(_weights(out), expected)


def test_a_checkpoint_that_breaks_off_leaves_the_last_good_one(tmp_path):
    def fill(folder):
        (folder / "a").write_text("a")

    def break_off(folder):
        (folder / "a").write_text("half")
        raise OSError("disk full")

    checkpoint.write(tmp_path, 1, fill, keep=1)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(tmp_path, 2, break_off, keep=1)

    assert [checkpoint.step_of(path) for path in checkpoint.stored(tmp_path)] == [1]
    checkpoint.write(tmp_path, 2, fill, keep=1)
    assert [checkpoint.step_of(path) for path in checkpoint.stored(tmp_path)] == [2]


def test_resume_without_a_checkpoint_starts_from_the_beginning(tmp_path, uninterrupted):
    stage, expected = uninterrupted

    out = train(stage, resume=True, datasets=DATASETS)

    assert _equal(_weights(out), expected)
