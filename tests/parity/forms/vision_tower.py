"""The form `vision_tower` of VideoLLaMA 2: CLIP or SigLIP, tokens of several layers."""

import re
from dataclasses import replace
from pathlib import Path

import torch

from avllm.checkpoints import rename
from avllm.checkpoints.videollama2 import encoder_from, vision_tower
from tests.parity.check import Check
from tests.parity.common import read_json, read_tensors, ready

PREFIX = "model.vision_tower.vision_tower.vision_model."
ATOL = 2e-5


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Builds the encoder once for every layer and feature that the case stores."""
    config = encoder_from(read_json(folder / "config.json"))
    weights = read_tensors(folder / "weights.safetensors")
    frames = read_tensors(folder / "inputs.safetensors")["pixel_values"][:, None]
    for name, expected in read_tensors(folder / "outputs.safetensors").items():
        found = re.fullmatch(r"features\.layer(-?\d+)\.(\w+)|hidden_(\d+)|(embeddings_out)", name)
        if found is None:
            check.same(name, "not computed by the adapter", "a stored tensor")
            continue
        layer = 0 if found[4] else int(found[1] or found[3])
        feature = found[2] or ("cls_patch" if config.family == "clip" else "patch")
        chosen = replace(config, layer=layer, feature=feature)
        encoder = ready(chosen.build())
        table = rename.before(PREFIX, vision_tower(chosen))
        rename.load(encoder, rename.rename(weights, table, source="weights.safetensors"))
        check.close(name, encoder(frames)[:, 0], expected, atol=ATOL)
        check.same(f"{name}: token_shape", chosen.token_shape(frames.shape[1:]), (1, expected.shape[1]))
