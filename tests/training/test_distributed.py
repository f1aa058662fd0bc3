"""Two real processes (torchrun, gloo, CPU): as one with twice the batch, killed and resumed, and with shared weights.

Each start of torchrun takes seconds, so one start runs several stages.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avllm.training import checkpoint, train
from avllm.training.progress import HELD_OUT, read_log
from tests.training.tiny_system import DATASETS, save_tiny_system, write_stage

PROGRAM = Path(__file__).with_name("tiny_system.py")
PROJECTION = "branches.video.connector.projection"
SHORT = {"schedule": {"steps_per_epoch": 6, "lr": 1e-2}, "checkpoints": {"every": 2}}
UNEVEN = [{"kind": "tiny_features", "longer": True, "uneven": True}]
HELD = {"data": [{"kind": "tiny_features", "size": 7}], "every": 3}

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="no gloo here")


def _command(*stages, resume=False):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(PROGRAM)]
    return [*start, *map(str, stages), *(["--resume"] if resume else [])]


def _environment(pause=0.0):
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TINY_PAUSE": str(pause)}
    return {**os.environ, **settings}


def _run(*stages, resume=False):
    done = subprocess.run(
        _command(*stages, resume=resume), env=_environment(), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def _kill_at_step(stage, out, step):
    process = subprocess.Popen(
        _command(stage), env=_environment(pause=0.05), start_new_session=True, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        rows = read_log(out / "log.csv")
        if rows and rows[-1]["step"] >= step:
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # torchrun and both of its processes
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:  # the others end on their own, and hold the folder until then
            os.killpg(process.pid, 0)
            time.sleep(0.005)
    assert read_log(out / "log.csv")[-1]["step"] >= step


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    base, plain = save_tiny_system(root / "base"), save_tiny_system(root / "plain", dropout=0.0)
    data = [{"kind": "tiny_features", "longer": True}]
    stages = {
        "two": (plain, {"trainable": [PROJECTION], "batch": 2, "data": data, "held_out": HELD}),
        "parts": (plain, {"trainable": [PROJECTION], "batch": 1, "accumulation": 2, "data": UNEVEN, "held_out": HELD}),
        "dropout": (base, {"batch": 2, "data": data, "group_by": "modality_length"}),
        "sharded": (
            plain,
            {
                "trainable": [PROJECTION, "decoder"],
                "batch": 1,
                "accumulation": 2,
                "distributed": "fsdp",
                "held_out": HELD,
                "data": UNEVEN,
            },
        ),
    }
    stages["killed"] = stages["dropout"]
    paths = {
        name: write_stage(root / f"{name}.yaml", init, root / name, **SHORT, **changes)
        for name, (init, changes) in stages.items()
    }
    told = _run(*(paths[name] for name in ("two", "parts", "dropout", "sharded")))
    _kill_at_step(paths["killed"], root / "killed", 3)
    assert not (root / "killed" / "training.json").exists()
    paths["cut"] = write_stage(root / "cut.yaml", plain, root / "cut", **SHORT, **stages["sharded"][1])
    shutil.copytree(root / "sharded", root / "cut")
    (root / "cut" / "training.json").unlink()
    shutil.rmtree(checkpoint.stored(root / "cut" / "checkpoints")[-1])
    _run(paths["killed"], paths["cut"], resume=True)
    return root, told


def _trained(folder):
    return load_file(folder / "trainable.safetensors")


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@cache
def _in_one_process(root, name):
    return train(
        root / f"{name}.yaml",
        [f"output={root}/one_{name}", "batch=4", "accumulation=1", "distributed=ddp"],
        datasets=DATASETS,
    )


def _is_like_one_process(root, name):
    """Weights and losses of one process with the batch of both."""
    one = _in_one_process(root, name)
    a, b = _trained(one), _trained(root / name)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key], b[key], atol=2e-5) for key in a)
    for key in ("loss", HELD_OUT):
        rows = [[row[key] for row in read_log(folder / "log.csv") if key in row] for folder in (one, root / name)]
        assert rows[0] == pytest.approx(rows[1], abs=1e-4)
    return one


@pytest.mark.parametrize("name", ["two", "parts", "dropout", "sharded", "killed", "cut"])
def test_there_were_two_processes(runs, name):
    record = json.loads((runs[0] / name / "training.json").read_text())
    assert (record["processes"], record["steps"]) == (2, 6)
    # Two random states: one process would have made a file without a number.
    newest = checkpoint.stored(runs[0] / name / "checkpoints")[-1]
    assert {path.name for path in newest.glob("rng*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_two_processes_train_as_one_with_twice_the_batch(runs):
    _is_like_one_process(runs[0], "two")


def test_parts_of_a_step_on_two_processes_make_the_step_of_one_with_the_whole_batch(runs):
    _is_like_one_process(runs[0], "parts")


def test_after_kill_9_two_processes_go_on_to_the_same_bits(runs):
    root, _ = runs

    assert _equal(_trained(root / "killed"), _trained(root / "dropout"))
    assert [row["step"] for row in read_log(root / "killed" / "log.csv")] == [1, 2, 3, 4, 5, 6]


def test_shared_weights_train_as_those_of_one_process_and_are_saved_whole(runs):
    root, told = runs

    assert told.splitlines().count("holds 0.50") == 2
    one = _is_like_one_process(root, "sharded")
    a, b = load_file(one / "model.safetensors"), load_file(root / "sharded" / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key], b[key], atol=2e-5) for key in a)


def test_shared_weights_go_on_from_a_checkpoint_to_the_same_bits(runs):
    root, _ = runs

    assert _equal(_trained(root / "cut"), _trained(root / "sharded"))


def test_a_checkpoint_of_shared_weights_is_that_of_one_process(runs):
    root, _ = runs
    one = _in_one_process(root, "sharded")

    states = [
        torch.load(checkpoint.stored(folder / "checkpoints")[-1] / "optimizer.pt", weights_only=True)["state"]
        for folder in (one, root / "sharded")
    ]
    assert states[0].keys() == states[1].keys()
    for number, values in states[0].items():
        assert torch.allclose(values["exp_avg"], states[1][number]["exp_avg"], atol=1e-4)
