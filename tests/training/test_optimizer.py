import json
import os
from pathlib import Path

import pytest
import torch

from avllm.checkpoints.rename import rename
from avllm.checkpoints.video_llama import video_checkpoint
from avllm.errors import ConfigError
from avllm.training.frozen import freeze
from avllm.training.optimizer import parameter_groups
from avllm.training.stage import Optimizer
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


def test_a_part_has_its_own_rate_and_the_others_the_schedules():
    model = tiny_model()
    freeze(model, TRAINED)
    part = CONNECTOR + "projection"

    groups = parameter_groups(model, Optimizer(weight_decay=0.05, part_lr={part: 2e-5}))

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slow = {names[id(p)] for group in groups if group.get("lr") == 2e-5 for p in group["params"]}
    assert slow == {f"{part}.weight", f"{part}.bias"}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


def test_a_rate_of_a_part_that_is_not_trained_is_told():
    model = tiny_model()
    freeze(model, TRAINED)

    with pytest.raises(ConfigError, match="'decoder' names nothing that is trained"):
        parameter_groups(model, Optimizer(part_lr={"decoder": 1e-5}))
