"""VideoChat's vision encoder: patches, every block, every step of the global token, and the norm that follows."""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from avllm.checkpoints import videochat
from avllm.checkpoints.rename import load, rename, under
from avllm.encoders.eva_clip_temporal import EvaClipTemporal, LocalBlock
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, ready

TOLERANCE = Tolerance(1e-4, 5e-5)


def recognises(path: Path) -> bool:
    """A ViT with a global token, and no language model."""
    case = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    return "gmhra_layers" in case and "vit" in case


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    case = read_json(path / "config.json")
    config = videochat.encoder_from(case)
    encoder, norm = config.build(), nn.LayerNorm(config.width, eps=case["ln_vision_eps"])
    table = {**under("encoder.", videochat.whole_encoder(config)), "ln_vision.{w}": "norm.{w}"}
    whole = ready(nn.ModuleDict({"encoder": encoder, "norm": norm}))
    load(whole, rename(read_tensors(path / "weights.safetensors"), table, source="weights.safetensors"))
    ours: dict[str, Tensor] = {}
    for name, frames in read_tensors(path / "inputs.safetensors").items():
        ours |= {f"{name}.{stage}": tensor for stage, tensor in stages(encoder, norm, frames).items()}
    return [
        *compare_all(ours, read_tensors(path / "outputs.safetensors"), TOLERANCE),
        same("gmhra_block_index", [config.depth - config.num_global + i for i in range(config.num_global)], case),
        same("block_mlp_hidden", encoder.blocks[0].mlp.up.out_features, case),
        same("gmhra_mlp_hidden", encoder.gmhra[0].mlp.up.out_features, case),
    ]


def stages(encoder: EvaClipTemporal, norm: nn.Module, frames: Tensor) -> dict[str, Tensor]:
    """What the case records for one clip."""
    hooks = {"patch_embed": encoder.patches}
    hooks |= {f"block.{i}": block for i, block in enumerate(encoder.blocks)}
    hooks |= {f"gmhra.{i}": step for i, step in enumerate(encoder.gmhra)}
    with torch.no_grad(), captured(hooks) as found:
        tokens = encoder(frames)
    assert tokens.shape[1:3] == encoder.config.token_shape(frames.shape[1:])
    for name, tensor in found.items():
        if name.startswith("gmhra"):
            found[name] = rearrange(tensor, "b 1 d -> 1 b d")
        elif name.startswith("block") and isinstance(encoder.blocks[0], LocalBlock):
            found[name] = rearrange(tensor, "b t p d -> (b t) p d")
    found["features"] = rearrange(tokens, "b 1 p d -> b p d")
    found["ln_vision"] = norm(found["features"])
    return found


def same(name: str, ours: object, case: dict) -> Row:
    """A size that follows from others."""
    return Row(name, None, "exact", ours == case[name], "" if ours == case[name] else f"{ours}, not {case[name]}")
