"""The form `projector` of Video-LLaVA: `mm_projector.bin`."""

from pathlib import Path

import torch
from einops import rearrange

from avllm.checkpoints import rename
from avllm.checkpoints.video_llava import connector_from
from avllm.checkpoints.videollama2 import projector
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors, ready

ATOL = 1e-5


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Every token on its own, whether it is of an image [b p d] or of a video [b t p d]."""
    case = read_json(folder / "config.json")
    config = connector_from(case)
    connector = ready(config.build(in_width=case["mm_hidden_size"], out_width=case["hidden_size"]))
    table = rename.before("model.mm_projector.", projector(config))
    weights = read_tensors(folder / "weights.safetensors")
    rename.load(connector, rename.rename(weights, table, source="weights.safetensors"))
    outputs = read_tensors(folder / "outputs.safetensors")
    tokens = read_tensors(folder / "inputs.safetensors")["x"]
    frames = tokens if tokens.ndim == 4 else rearrange(tokens, "b p d -> b 1 p d")
    check.close("out", connector(frames).reshape(*tokens.shape[:-1], -1), outputs.pop("out"), atol=ATOL)
    check.same("num_tokens", config.num_tokens(*frames.shape[1:3]), connector(frames).shape[1])
    for name in outputs:
        check.same(name, "not computed by the adapter", "a stored tensor")
