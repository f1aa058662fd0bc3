"""ImageBind: vision, audio and text, stage by stage, and the joint space."""

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from avllm.checkpoints.rename import load, rename
from avllm.checkpoints.video_llama import imagebind
from avllm.encoders import ImageBind
from tests.parity import parts
from tests.parity.common import Row, Tolerance, compare_all, read_json, read_tensors, readme_tolerance, ready

OUTSIDE = r"(get_audio_feature\.|softmax\.)?.*(depth|thermal|imu).*"
NOT_COVERED = {OUTSIDE: "depth, thermal and IMU are outside the systems here"}
ALIASES = {"image": "vision_image"}


def recognises(path: Path) -> bool:
    """Its configuration has the sizes of the whole ImageBind."""
    return (path / "config.json").is_file() and {"ctor", "vision_img_size"} <= set(read_json(path / "config.json"))


def run(path: Path) -> list[Row]:
    """Compares every recorded stage of the three trunks."""
    config = parts.imagebind(read_json(path / "config.json"), has_text=True)
    model = config.build()
    weights = read_tensors(path / "weights.safetensors")
    load(model, rename(weights, imagebind(("vision", "audio", "text")), source="weights.safetensors"))
    ready(model)
    ours: dict[str, Tensor] = {}
    embeddings: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, media in read_tensors(path / "inputs.safetensors").items():
            modality = name.split("_")[0]
            if modality not in ("vision", "audio", "text"):
                continue
            stages = _stages(model, modality, media)
            embeddings[name] = stages["embedding"]
            ours |= {f"{name}.{stage}": tensor for stage, tensor in stages.items()}
            if modality != "text":
                ours |= {f"get_audio_feature.{name}.{stage}": stages[stage] for stage in ("feature", "final")}
    outputs = read_tensors(path / "outputs.safetensors")
    ours |= _softmax(outputs, embeddings)
    return compare_all(ours, outputs, readme_tolerance(path, Tolerance(1e-4, 1e-5)), not_covered=NOT_COVERED)


def _stages(model: ImageBind, modality: str, media: Tensor) -> dict[str, Tensor]:
    if modality == "text":
        assert model.text is not None
        tokens = model.text.tokens(media)
        out = model.text.run_blocks(tokens)
        return {"tokens": tokens, "trunk": out, "head": model.text(media), "embedding": model.encode_text(media)}
    trunk = model.vision if modality == "vision" else model.audio
    assert trunk is not None
    if media.ndim == 4:  # a still image, or one segment
        media = media[:, None]
    if modality == "vision":
        clips = (
            media if media.ndim == 6 else repeat(media, "b t c h w -> b t c k h w", k=model.vision.config.clip_frames)
        )
        final = model.encode_vision(media) if media.ndim == 5 else model.encode_clips(media)
    else:
        clips, final = media, model(media)
    flat = rearrange(clips, "b t ... -> (b t) ...")
    tokens = trunk.tokens(flat)
    out = trunk.run_blocks(trunk.pre_norm(tokens) if modality == "vision" else tokens)
    final = rearrange(final, "b t 1 d -> b t d")
    return {
        "tokens": tokens,
        "trunk": out,
        "head": trunk(flat),
        "feature": rearrange(trunk.norm(out[:, 0]), "(b t) d -> b t d", b=len(media)),
        "final": final,
        "embedding": final.mean(dim=1),  # scaled vectors are averaged, not scaled again
    }


def _softmax(outputs: dict[str, Tensor], embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = {}
    for name in outputs:
        if name.startswith("softmax."):
            left, right = (ALIASES.get(word, word) for word in name.removeprefix("softmax.").split("_x_"))
            if left in embeddings and right in embeddings:
                pairs[name] = F.softmax(embeddings[left] @ embeddings[right].T, dim=-1)
    return pairs
