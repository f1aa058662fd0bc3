import json
import os
from pathlib import Path

import pytest
import torch

from avllm.checkpoints.rename import rename
from avllm.checkpoints.video_llama import video_checkpoint
from avllm.training.frozen import freeze
from avllm.training.stage import Optimizer
from avllm.training.trainer import parameter_groups
from tests.model.tiny import tiny_model

GOLDEN = Path(os.environ.get("AVLLM_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
CONNECTOR = "branches.video.connector."
TRAINED = [CONNECTOR + part for part in ("query_tokens", "frame_embedding", "qformer", "projection")]


def _groups(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, Optimizer(weight_decay=0.05))
    return [({names[id(p)] for p in group["params"]}, group["weight_decay"]) for group in groups]


def test_biases_and_norms_do_not_decay():
    model = tiny_model()
    freeze(model, TRAINED)

    (decayed, rate), (others, none) = _groups(model)

    assert (rate, none) == (0.05, 0.0)
    assert all(name.endswith(".bias") or ".norm" in name or "norm." in name for name in others)
    assert {CONNECTOR + "query_tokens", CONNECTOR + "frame_embedding.table.weight"} <= decayed


def test_groups_are_those_of_the_published_optimiser():
    path = GOLDEN / "video_llama" / "model" / "cases.json"
    if not path.exists():
        pytest.skip("no reference cases here")
    published = json.loads(path.read_text())["stage1_video"]["adamw"]
    model = tiny_model()
    freeze(model, TRAINED)

    for (ours, _), key in zip(_groups(model), ("decay", "no_decay"), strict=True):
        renamed = rename({name: torch.empty(0) for name in published[key]}, video_checkpoint())
        assert {CONNECTOR + name for name in renamed.state} == ours
