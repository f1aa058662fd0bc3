"""A random VideoLLaMA 2.1-AV of a few thousand weights: SigLIP, STC, BEATs, Qwen2."""

from typing import Any

import torch

from avllm import config
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, System
from tests.model.tiny import TINY, tiny_tokenizer

TINY_AV: dict[str, Any] = {
    "decoder": {**TINY["decoder"], "model_type": "qwen2", "num_key_value_heads": 2},
    "prompt": "videollama2_qwen2",
    "branches": {
        "video": {
            "media": {"kind": "frames", "num_frames": 4, "image_frames": 4, "sampling": "middle", "size": 16},
            "encoder": {
                "kind": "clip",
                "family": "siglip",
                "image_size": 16,
                "patch_size": 8,
                "width": 16,
                "depth": 2,
                "num_heads": 2,
                "mlp_width": 24,
                "activation": "gelu_pytorch_tanh",
            },
            "connector": {"kind": "stc", "depth": 1, "padding": 0},
        },
        "audio": {
            "media": {"kind": "fbank", "seconds": 1.0, "num_mel_bins": 32, "num_clips": 2, "clip_seconds": 0.25},
            "encoder": {
                "kind": "beats",
                "patch_width": 8,
                "width": 16,
                "depth": 1,
                "num_heads": 2,
                "mlp_width": 24,
                "conv_kernel": 8,
                "conv_groups": 2,
                "num_buckets": 16,
                "max_distance": 20,
            },
            "connector": {"kind": "mlp", "depth": 2},
        },
    },
}
VIDEO_TOKENS, AUDIO_TOKENS = 2, 12  # 4 frames of 2 x 2 patches halved each way; 6 x 2 patches of 98 frames and 32 bins


def tiny_av_model(seed: int = 0) -> AvllmForConditionalGeneration:
    """The system in eval mode, its media loud enough to change what is said."""
    torch.manual_seed(seed)
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(config.parse(System, TINY_AV))).eval()
    for parameter in model.decoder.parameters():
        parameter.data.mul_(8)
    return model


def tiny_av_processor(model: AvllmForConditionalGeneration) -> AvllmProcessor:
    """Its processor, with the two tokens around a turn."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return AvllmProcessor.from_config(model.config, tokenizer)
