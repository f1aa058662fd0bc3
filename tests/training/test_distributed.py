import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avllm.training import checkpoint, train
from tests.training.tiny_system import DATASETS, make_stage

PROGRAM = Path(__file__).with_name("tiny_system.py")


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("no gloo here")
    short = {"steps_per_epoch": 3, "lr": 1e-2}
    stage = make_stage(tmp_path, trainable=["branches.video.connector.projection"], schedule=short, batch=2)
    one = train(stage, [f"output={tmp_path}/one", "batch=4"], datasets=DATASETS)

    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(PROGRAM.parents[2])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(PROGRAM), str(stage)], env=environment, check=True, capture_output=True, timeout=240)

    two = tmp_path / "out"
    newest = checkpoint.stored(two / "checkpoints")[-1]
    # Two random states: two processes really ran. One would have made a file without a number.
    assert {path.name for path in newest.glob("rng*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert json.loads((two / "training.json").read_text())["steps"] == 3
    a, b = load_file(one / "trainable.safetensors"), load_file(two / "trainable.safetensors")
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
