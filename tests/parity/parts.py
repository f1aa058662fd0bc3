"""Our configurations from the `config.json` of a Video-LLaMA case."""

from collections.abc import Mapping
from typing import Any

from avllm.config import parse
from avllm.connectors.qformer import FrameQFormer
from avllm.connectors.temporal_qformer import TemporalQFormer
from avllm.encoders import EvaClip, ImageBind

# Constants and defaults of the original's ImageBind, for what a case does not name.
IMAGEBIND_DEFAULTS = {
    "kernel_size": (2, 14, 14),
    "audio_kernel_size": 16,
    "audio_stride": 10,
    "out_embed_dim": 768,
    "vision_embed_dim": 1024,
    "vision_num_blocks": 24,
    "vision_num_heads": 16,
    "audio_embed_dim": 768,
    "audio_num_blocks": 12,
    "audio_num_heads": 12,
    "audio_num_mel_bins": 128,
    "audio_target_len": 204,
    "text_embed_dim": 768,
    "text_num_blocks": 12,
    "text_num_heads": 12,
}


def eva_clip(vit: Mapping[str, Any]) -> EvaClip.Config:
    """`vit` names the sizes; `ckpt_img_size` is that of the stored position table."""
    data = {
        "image_size": vit["ckpt_img_size"],
        "patch_size": vit["patch_size"],
        "width": vit["embed_dim"],
        "depth": vit["depth"],
        "num_heads": vit["num_heads"],
        "mlp_ratio": vit["mlp_ratio"],
    }
    return parse(EvaClip.Config, data, "vit")


def frame_qformer(bert: Mapping[str, Any], *, num_queries: int, cross_every: int, depth: int) -> FrameQFormer.Config:
    """The image Q-Former."""
    return parse(
        FrameQFormer.Config,
        {**_bert(bert), "depth": depth, "cross_every": cross_every, "num_queries": num_queries},
        "qformer",
    )


def video_connector(case: Mapping[str, Any]) -> TemporalQFormer.Config:
    """The vision branch's connector."""
    image = case["image_qformer"]
    return TemporalQFormer.Config(
        **_bert(case["bert"]),
        depth=case["video_qformer"]["num_hidden_layers"],
        num_queries=case["num_video_query_token"],
        max_frames=case["max_frame_pos"],
        frame_qformer=frame_qformer(
            case["bert"],
            num_queries=case["num_query_token"],
            cross_every=image["cross_attention_freq"],
            depth=image["num_hidden_layers"],
        ),
    )


def audio_connector(case: Mapping[str, Any]) -> TemporalQFormer.Config:
    """The audio branch's connector."""
    return TemporalQFormer.Config(
        **_bert(case["bert"]),
        depth=case["audio_qformer"]["num_hidden_layers"],
        num_queries=case["num_audio_query_token"],
        max_frames=case["audio_position_embedding_size"],
    )


def imagebind(case: Mapping[str, Any], *, has_text: bool) -> ImageBind.Config:
    """ImageBind with vision and audio, and text if asked."""
    sizes = {**IMAGEBIND_DEFAULTS, **case.get("fixed", {}), **case["ctor"]}
    clip_frames, patch_size, _ = sizes["kernel_size"]
    data: dict[str, Any] = {
        "width": sizes["out_embed_dim"],
        "vision": {
            "image_size": case["vision_img_size"],
            "patch_size": patch_size,
            "clip_frames": clip_frames,
            **_trunk(sizes, "vision"),
        },
        "audio": {
            "num_mel_bins": sizes["audio_num_mel_bins"],
            "num_frames": sizes["audio_target_len"],
            "kernel_size": sizes["audio_kernel_size"],
            "stride": sizes["audio_stride"],
            **_trunk(sizes, "audio"),
        },
    }
    if has_text:
        text = {"context_length": case["text_context_length"], "vocab_size": case["text_vocab_size"]}
        data["text"] = {**text, **_trunk(sizes, "text")}
    return parse(ImageBind.Config, data, "imagebind")


def _trunk(sizes: Mapping[str, Any], name: str) -> dict[str, int]:
    names = {"width": "embed_dim", "depth": "num_blocks", "num_heads": "num_heads"}
    return {ours: sizes[f"{name}_{theirs}"] for ours, theirs in names.items()}


def _bert(bert: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": bert["hidden_size"],
        "num_heads": bert["num_attention_heads"],
        "mlp_width": bert["intermediate_size"],
        "dropout": bert["hidden_dropout_prob"],
    }
