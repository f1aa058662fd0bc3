"""EVA-CLIP: every block, at each image size of the case."""

from pathlib import Path

import torch
from torch import Tensor

from avllm.checkpoints.rename import join, load, rename
from avllm.checkpoints.video_llama import eva_clip
from tests.parity import parts
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, readme_tolerance, ready

LN_VISION = {"ln_vision.{w}": "{w}"}


def recognises(path: Path) -> bool:
    """A ViT beside the norm that follows it."""
    return (path / "ln_vision.safetensors").is_file()


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    config = parts.eva_clip(read_json(path / "config.json"))
    encoder = ready(config.build())
    weights = read_tensors(path / "weights.safetensors")
    load(encoder, rename(weights, eva_clip(config.depth), source="weights.safetensors"))
    norm = ready(torch.nn.LayerNorm(config.width, eps=1e-5))
    norm_weights = read_tensors(path / "ln_vision.safetensors")
    load(norm, join(rename(norm_weights, LN_VISION, source="ln_vision.safetensors")))

    ours: dict[str, Tensor] = {}
    for name, images in read_tensors(path / "inputs.safetensors").items():
        size = name.rsplit("_", 1)[-1]
        with captured({"patches": encoder.patches} | {str(i): b for i, b in enumerate(encoder.blocks)}) as stages:
            features = encoder(images[:, None])[:, 0]
        ours[f"s{size}.pos_embed_used"] = encoder.positions_for(*images.shape[-2:])
        ours[f"s{size}.patch_embed"] = stages["patches"].flatten(2).transpose(1, 2)
        ours |= {f"s{size}.block_{i}": stages[str(i)] for i in range(config.depth)}
        ours[f"s{size}.forward_features"] = features
        ours[f"s{size}.ln_vision"] = norm(features)
    tolerance = readme_tolerance(path, Tolerance(1e-4, 1e-5))
    return compare_all(ours, read_tensors(path / "outputs.safetensors"), tolerance)
