"""Rows with a video, an image and text alone, padded on the left, say together what each says alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avllm import config
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from tests.model.tiny import TINY

SLOT = 300
BRANCH: dict[str, Any] = {
    "media": {"kind": "frames", "num_frames": 4, "image_frames": 4, "size": 24},
    "encoder": {
        "kind": "clip",
        "image_size": 24,
        "patch_size": 6,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "mlp_width": 24,
    },
    "connector": {"kind": "stc", "depth": 1},
}
DECODERS = {
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
    "mixtral": {"model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
}


def built(decoder: dict[str, Any]) -> AvllmForConditionalGeneration:
    """A tiny VideoLLaMA 2, loud enough for clear greedy choices."""
    torch.manual_seed(0)
    system = config.parse(System, {**TINY, "decoder": {**TINY["decoder"], **decoder}, "branches": {"video": BRANCH}})
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()
    for parameter in model.decoder.parameters():
        parameter.data.mul_(8)
    model.branches["video"].connector.projection[-1].weight.data.mul_(50)
    return model


def rows(num_slots: int) -> list[list[int]]:
    """Prompts of different length: a video, an image, text alone, two videos."""
    slots = [SLOT] * num_slots
    return [[1, *slots, 9, 8, 7], [1, 5, *slots, 6], [1, 17, 42, 4], [1, *slots, 12, 13, *slots, 99, 100, 101, 102]]


def padded(prompts: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(row)) + row for row in prompts]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("num_frames", [4, 7])
def test_a_batch_says_what_each_row_says_alone(decoder: dict[str, Any], num_frames: int):
    model = built(decoder)
    image = torch.randn(1, 3, 24, 24).expand(num_frames, -1, -1, -1)
    video, first, second = (torch.randn(num_frames, 3, 24, 24) for _ in range(3))
    clips = [[video], [image], [], [first, second]]
    num_slots = model.config.parsed().branches["video"].num_tokens(video.shape)
    prompts = rows(num_slots)
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}

    together = model.generate(**padded(prompts), media={"video": [clip for row in clips for clip in row]}, **options)

    alone = [
        model.generate(torch.tensor([ids]), media={"video": torch.stack(row)} if row else {}, **options)[0]
        for ids, row in zip(prompts, clips, strict=True)
    ]
    assert [row.tolist() for row in together] == [row.tolist() for row in alone]
    assert len({tuple(row.tolist()) for row in together}) == 4  # media and prompts change what is said


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_a_saved_model_says_the_same(decoder: dict[str, Any], tmp_path: Path):
    model, media = built(decoder), {"video": torch.randn(1, 4, 3, 24, 24)}
    ids = torch.tensor([[1, *[SLOT] * model.config.parsed().branches["video"].num_tokens((4, 3, 24, 24)), 9, 8]])

    model.save_pretrained(tmp_path)
    opened = AvllmForConditionalGeneration.from_pretrained(tmp_path).eval()

    kept = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    again = {**dict(opened.named_parameters()), **dict(opened.named_buffers())}
    assert kept.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())
    # Not to the last bit: where the tensors lie in memory chooses the kernels of convolutions.
    embeds = model.embed(ids, media)
    assert torch.allclose(opened.embed(ids, media), embeds, atol=1e-3)
    assert torch.allclose(opened(inputs_embeds=embeds).logits, model(inputs_embeds=embeds).logits, atol=1e-3)
