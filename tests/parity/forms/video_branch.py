"""The vision branch of Video-LLaMA: frames to tokens of the decoder, for clips and for a still image."""

from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from avllm.checkpoints.rename import join, load, rename, under
from avllm.checkpoints.video_llama import blip2, eva_clip, video_checkpoint
from tests.parity import parts
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, readme_tolerance, ready


def recognises(path: Path) -> bool:
    """It has a VL checkpoint and no dialogue."""
    return (path / "weights_vl_checkpoint.safetensors").is_file() and not (
        path / "weights_al_checkpoint.safetensors"
    ).is_file()


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    case = read_json(path / "config.json")
    encoder = parts.eva_clip(case["vit"]).build()
    connector = parts.video_connector(case).build(in_width=encoder.width, out_width=case["llama"]["hidden_size"])
    _load(path, encoder, connector)
    ours: dict[str, Tensor] = {}
    for name, media in read_tensors(path / "inputs.safetensors").items():
        frames = rearrange(media, "b c t h w -> b t c h w")
        ours |= {f"{name}.{stage}": tensor for stage, tensor in _stages(encoder, connector, frames).items()}
    outputs = read_tensors(path / "outputs.safetensors")
    return compare_all(ours, outputs, readme_tolerance(path, Tolerance(1e-4, 2e-5)))


def _load(path: Path, encoder: nn.Module, connector: nn.Module) -> None:
    tables = {
        "weights_eva_vit_g": eva_clip(encoder.config.depth),
        "weights_blip2": under("frame_qformer.", blip2()),
        "weights_vl_checkpoint": video_checkpoint(),
    }
    read = {
        name: rename(read_tensors(path / f"{name}.safetensors"), table, source=f"{name}.safetensors")
        for name, table in tables.items()
    }
    load(ready(encoder), read["weights_eva_vit_g"])
    load(ready(connector), join(read["weights_blip2"], read["weights_vl_checkpoint"]))


def _stages(encoder: nn.Module, connector: nn.Module, frames: Tensor) -> dict[str, Tensor]:
    frame_qformer, embedding = connector.frame_qformer, connector.frame_embedding
    hooks = {
        "image_embeds": frame_qformer.input_norm,
        "placed": embedding,
        "video_hidden": connector.qformer,
    }
    with torch.no_grad(), captured(hooks) as stages:
        tokens = encoder(frames)
        features = connector.prefix(tokens)
        stages["inputs_llama"] = connector.resample(features)
    b, t, q, _ = features.shape
    stages["vit_tokens"] = rearrange(tokens, "b t p d -> (b t) p d")
    stages["qformer_hidden"] = features
    stages["frame_position_embeddings"] = repeat(embedding.table.weight[:t], "t d -> b t d", b=b)
    stages["frame_hidden_state"] = rearrange(stages.pop("placed"), "b t q d -> b (t q) d")
    # Every media token is attended to: the masks follow from the shapes.
    stages["frame_atts"] = torch.ones(b, t * q, dtype=torch.int64)
    stages["atts_llama"] = torch.ones(b, connector.config.num_tokens(t, 1), dtype=torch.int64)
    return stages
