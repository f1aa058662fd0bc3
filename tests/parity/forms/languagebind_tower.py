"""The forms `image_tower` and `video_tower` of Video-LLaVA: LanguageBind's tokens after several blocks."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from avllm.checkpoints import rename
from avllm.checkpoints.video_llava import image_tower, video_tower
from avllm.checkpoints.videollama2 import tower_from
from avllm.encoders import LanguageBind
from tests.parity.check import Check
from tests.parity.common import captured, read_json, read_tensors, ready

ATOL = 2e-5


def recognises(folder: Path) -> bool:
    """Whether its configuration is that of a LanguageBind."""
    path = folder / "config.json"
    return path.is_file() and "languagebind_config" in read_json(path)


@torch.no_grad()
def run(folder: Path, check: Check) -> None:
    """Builds the encoder for every layer and feature that the case stores."""
    vision = read_json(folder / "config.json")["languagebind_config"]["vision_config"]
    weights = read_tensors(folder / "weights.safetensors")
    pixels = read_tensors(folder / "inputs.safetensors")["pixel_values"]
    is_video = pixels.ndim == 5
    frames = rearrange(pixels, "b c t h w -> b t c h w") if is_video else rearrange(pixels, "b c h w -> b 1 c h w")
    for name, expected in read_tensors(folder / "outputs.safetensors").items():
        found = re.fullmatch(r"features\.layer(-?\d+)\.(patch|cls_patch)|hidden_(\d+)", name)
        layer = int(found[1] or found[3]) if found else -1
        feature = (found[2] if found else None) or "cls_patch"
        encoder = build(vision, weights, layer=layer, feature=feature, is_video=is_video)
        stages = attentions(encoder) if is_video else {}
        with captured(stages) as ours:
            tokens = encoder(frames)
        if found:
            ours[name] = tokens if is_video else tokens[:, 0]
            count = encoder.config.token_shape(frames.shape[1:])
            check.same(f"{name}: token_shape", count, tuple(tokens.shape[1:3]))
        ours["last_hidden_state"] = rearrange(tokens, "b t p d -> (b t) p d")
        ours["pooler_output"] = pooled(tokens, weights, vision["layer_norm_eps"])
        if name in ours:
            check.close(name, ours[name], expected, atol=ATOL)
        else:
            check.same(name, "not computed by the adapter", "a stored tensor")


def build(
    vision: dict[str, Any], weights: dict[str, Tensor], *, layer: int, feature: Any, is_video: bool
) -> LanguageBind:
    """The encoder with the case's weights in one of its towers."""
    tower = replace(tower_from(vision), layer=layer)
    config = LanguageBind.Config(
        image=replace(tower, feature=feature),
        video=replace(tower, feature="cls_patch"),  # the original keeps it, whatever feature is selected
        temporal=vision["add_time_attn"],
        num_frames=vision["num_frames"],
    )
    encoder = config.build()
    ready(encoder)
    if is_video:
        part: Any = {"video": encoder.video, "temporal": encoder.temporal}
        table = rename.before("model.video_tower.video_tower.", video_tower(config))
    else:
        part = {"image": encoder.image}
        table = rename.before("model.image_tower.image_tower.", image_tower(config))
    rename.load(nn.ModuleDict(part), rename.rename(weights, table, source="weights.safetensors"))
    return encoder


def attentions(encoder: LanguageBind) -> dict[str, nn.Module]:
    """Both attentions of every block that is run."""
    blocks = encoder.video.get_submodule("tower.encoder.layers")
    assert isinstance(blocks, nn.ModuleList)
    spatial = {
        f"layer{i}.spatial_attn_out_(bt)_n_d": block.get_submodule("self_attn.out_proj")
        for i, block in enumerate(blocks)
    }
    temporal = {
        f"layer{i}.temporal_attn_out_(bn)_t_d": block.get_submodule("attention")
        for i, block in enumerate(encoder.temporal)
    }
    return {**spatial, **temporal}


def pooled(tokens: Tensor, weights: dict[str, Tensor], eps: float) -> Tensor:
    """The mean over frames of the normed class token: no part of our encoder, but it shows that its weight is there."""
    scale, bias = (next(t for n, t in weights.items() if n.endswith(f"post_layernorm.{w}")) for w in ("weight", "bias"))
    normed = F.layer_norm(tokens[:, :, 0], scale.shape, scale, bias, eps)
    return reduce(normed, "b t d -> b d", "mean")
