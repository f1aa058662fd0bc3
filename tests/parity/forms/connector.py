"""The form `connector` of VideoLLaMA 2: every kind of `mm_projector`, with the stages inside."""

import re
from pathlib import Path

import torch
from torch import nn

from avllm.checkpoints import rename
from avllm.checkpoints.videollama2 import BOTTLENECK, connector_from, projector
from tests.parity.check import Check
from tests.parity.common import captured, read_json, read_tensors, ready

ATOL = 5e-5
STAGES = {"s1": "before", "s2": "after", "sampler": "sampler", "readout": "projection"}


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Compares the tokens, their number, and what each stage gave."""
    case = read_json(folder / "config.json")
    config = connector_from(case)
    connector = ready(config.build(in_width=case["mm_hidden_size"], out_width=case["hidden_size"]))
    table = rename.before("model.mm_projector.", projector(config))
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(connector, rename.rename(weights, table, source="weights.safetensors"))
    tokens = read_tensors(folder / "inputs.safetensors")["frames_features"]
    expected = read_tensors(folder / "outputs.safetensors")
    stages = {name: stage for name in expected if (stage := stage_of(connector, name)) is not None}
    with captured(stages) as ours:
        ours["out"] = connector(tokens)
    for name, tensor in expected.items():
        if name in ours:
            check.close(name, ours[name], tensor, atol=ATOL)
        else:
            check.same(name, "not computed by the adapter", "a stored tensor")
    check.same("num_tokens", config.num_tokens(*tokens.shape[1:3]), expected["out"].shape[1])


def stage_of(connector: nn.Module, name: str) -> nn.Module | None:
    """Our module of a stored stage such as `stage.s1.b1.conv2`."""
    found = re.fullmatch(r"stage\.(s1|s2|sampler|readout)(?:\.b(\d+)(?:\.(\w+))?)?", name)
    if found is None:
        return None
    inner = {**BOTTLENECK, "se": "excite"}.get(found[3], found[3])
    path = [STAGES[found[1]], *([str(int(found[2]) - 1)] if found[2] else []), *([inner] if inner else [])]
    return connector.get_submodule(".".join(path))
