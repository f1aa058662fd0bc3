"""The audio branch of Video-LLaMA: segments of sound, and frames in their place, to tokens of the decoder."""

from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from avllm.checkpoints.rename import load, rename
from avllm.checkpoints.video_llama import audio_checkpoint, imagebind
from tests.parity import parts
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, readme_tolerance, ready


def recognises(path: Path) -> bool:
    """It has an AL checkpoint and no VL checkpoint."""
    return (path / "weights_al_checkpoint.safetensors").is_file() and not (
        path / "weights_vl_checkpoint.safetensors"
    ).is_file()


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    case = read_json(path / "config.json")
    encoder = parts.imagebind(case["imagebind"], has_text=False).build()
    connector = parts.audio_connector(case).build(in_width=encoder.width, out_width=case["llama"]["hidden_size"])
    trunks = ("audio", "vision")
    for module, name, table in (
        (encoder, "weights_imagebind_huge.safetensors", imagebind(trunks)),
        (connector, "weights_al_checkpoint.safetensors", audio_checkpoint()),
    ):
        load(ready(module), rename(read_tensors(path / name), table, source=name))
    ours: dict[str, Tensor] = {}
    for name, media in read_tensors(path / "inputs.safetensors").items():
        stages = _stages(encoder, connector, media, is_vision=media.shape[2] == 3)
        ours |= {f"{name}.{stage}": tensor for stage, tensor in stages.items()}
    outputs = read_tensors(path / "outputs.safetensors")
    return compare_all(ours, outputs, readme_tolerance(path, Tolerance(1e-4, 2e-5)))


def _stages(encoder: nn.Module, connector: nn.Module, media: Tensor, *, is_vision: bool) -> dict[str, Tensor]:
    trunk = encoder.vision if is_vision else encoder.audio
    hooks = {
        "trunk_out": trunk.blocks[-1],
        "feature": trunk.norm,
        "placed": connector.frame_embedding,
        "audio_hidden": connector.qformer,
    }
    b, t = media.shape[:2]
    with torch.no_grad(), captured(hooks) as stages:
        embeddings = encoder.encode_vision(media) if is_vision else encoder(media)
        stages["inputs_llama"] = connector(embeddings)
        if is_vision:
            media = repeat(media, "b t c h w -> b t c k h w", k=trunk.config.clip_frames)
        stages["trunk_tokens_in"] = trunk.tokens(rearrange(media, "b t ... -> (b t) ..."))
    stages["audio_feature"] = rearrange(stages.pop("feature"), "(b t) d -> b t d", b=b)
    stages["imagebind_out"] = rearrange(embeddings, "b t 1 d -> b t d")
    stages["position_embeddings"] = repeat(connector.frame_embedding.table.weight[:t], "t d -> b t d", b=b)
    stages["audio_states"] = rearrange(stages.pop("placed"), "b t 1 d -> b t d")
    stages["atts_llama"] = torch.ones(b, connector.config.num_tokens(t, 1), dtype=torch.int64)  # all are attended to
    return stages
