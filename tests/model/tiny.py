"""A random system of a few thousand weights, with both branches."""

from typing import Any

import torch

from avllm import config
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, System

QFORMER = {"width": 16, "depth": 2, "num_heads": 2, "mlp_width": 32}
TINY: dict[str, Any] = {
    "decoder": {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "prompt": "nano",
    "branches": {
        "video": {
            "media": {"kind": "frames", "num_frames": 4, "size": 16},
            "encoder": {"kind": "eva_clip", "image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2},
            "connector": {
                "kind": "temporal_qformer",
                "num_queries": 3,
                "max_frames": 8,
                **QFORMER,
                "frame_qformer": {**QFORMER, "num_queries": 2},
            },
        },
        "audio": {
            "media": {
                "kind": "segments",
                "num_segments": 3,
                "segment_seconds": 0.5,
                "num_mel_bins": 16,
                "num_frames": 32,
            },
            "encoder": {
                "kind": "imagebind",
                "width": 12,
                "vision": {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2},
                "audio": {
                    "num_mel_bins": 16,
                    "num_frames": 32,
                    "kernel_size": 8,
                    "stride": 8,
                    "width": 16,
                    "depth": 1,
                    "num_heads": 2,
                },
            },
            "connector": {"kind": "temporal_qformer", "num_queries": 2, "max_frames": 8, **QFORMER},
        },
    },
}
AUDIO, VIDEO = 300, 301


def tiny_model(seed: int = 0, **changes: Any) -> AvllmForConditionalGeneration:
    """A tiny system in eval mode; `changes` replace top-level keys."""
    torch.manual_seed(seed)
    system = config.parse(System, {**TINY, **changes})
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    for parameter in model.decoder.parameters():  # far from uniform, so that greedy choices are clear
        parameter.data.mul_(8)
    for branch in model.branches.values():  # loud enough to change what is said
        branch.connector.projection.weight.data.mul_(50)
    return model


def frames(*shape: int) -> torch.Tensor:
    """Random normalised frames [*shape 3 16 16]."""
    return torch.randn(*shape, 3, 16, 16)


def segments(*shape: int) -> torch.Tensor:
    """Random normalised segments [*shape 1 16 32]."""
    return torch.randn(*shape, 1, 16, 32)


def tiny_tokenizer() -> Any:
    """One token per byte, and the three special tokens with ids 0, 1, 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    vocabulary = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


def tiny_processor(model: AvllmForConditionalGeneration) -> AvllmProcessor:
    """The processor of a tiny model."""
    return AvllmProcessor.from_config(model.config, tiny_tokenizer())
