"""The plan against what the same workload really takes."""

from dataclasses import replace

import pytest
import torch

from avllm.checkpoints.load import load_model
from avllm.cli import main
from avllm.config import parse
from avllm.errors import ConfigError, OutOfMemory
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from avllm.model.memory import LiveBytes
from avllm.model.plan import Workload, out_of_memory_named, plan
from tests.model.tiny_av import AUDIO_TOKENS, TINY_AV, VIDEO_TOKENS

NANO = Workload(dtype=torch.float32, text_tokens=20, new_tokens=40)


@pytest.mark.parametrize("batch", [1, 6])
def test_predicts_the_peak_of_generation_within_a_tenth(batch: int) -> None:
    model, processor = load_model("nano")
    predicted = plan(model.config, replace(NANO, batch=batch))
    assert predicted.weights == sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
    slots = [id for name, id in processor.slot_ids.items() for _ in range(predicted.media_tokens[name])]
    ids = torch.tensor([slots + [5] * NANO.text_tokens] * batch)
    mask = torch.ones_like(ids)
    mask[1:, 0] = 0  # rows of a batch differ in length
    with LiveBytes([*model.parameters(), *model.buffers()]) as live, torch.no_grad():
        media = {
            name: torch.zeros(batch, *shape)
            for name, shape in {"video": (8, 3, 48, 48), "audio": (10, 1, 64, 48)}.items()
        }
        lengths = {"max_new_tokens": NANO.new_tokens, "min_new_tokens": NANO.new_tokens}
        model.generate(ids, attention_mask=mask, media=media, do_sample=False, **lengths)
    measured = predicted.weights + live.peak
    assert predicted.total == pytest.approx(measured, rel=0.1)
    assert predicted.kv_cache + predicted.activations == pytest.approx(live.peak, rel=0.25)


def test_predicts_training_within_a_tenth() -> None:
    model, processor = load_model("nano")
    work = replace(NANO, batch=8, train="connectors")
    predicted = plan(model.config, work)
    slots = [id for name, id in processor.slot_ids.items() for _ in range(predicted.media_tokens[name])]
    ids = torch.tensor([slots + [5] * (work.text_tokens + work.new_tokens)] * work.batch)
    labels = ids.clone()
    labels[:, : -work.new_tokens] = -100
    mask = torch.ones_like(ids)
    mask[1:, -1] = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".connector." in name
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        for _ in range(2):  # the states of AdamW are there from the second step on
            media = {"video": torch.zeros(8, 8, 3, 48, 48), "audio": torch.zeros(8, 10, 1, 64, 48)}
            model(input_ids=ids, attention_mask=mask, labels=labels, media=media).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert predicted.total == pytest.approx(predicted.weights + live.peak, rel=0.1)


def test_trained_weights_are_kept_in_float32_beside_frozen_ones_in_bf16() -> None:
    config = AvllmConfig.from_yaml("nano")
    bf16, fp32 = (plan(config, Workload(train="connectors", dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    connectors = bf16.training_state // 3  # gradients and two states of AdamW
    assert bf16.training_state == fp32.training_state
    assert bf16.weights == pytest.approx(connectors + (fp32.weights - connectors) / 2, rel=0.01)


def test_rows_of_a_batch_take_a_mask_and_a_single_one_takes_none() -> None:
    config = AvllmConfig.from_yaml("nano")
    one, two = (plan(config, Workload(train="all", batch=batch)) for batch in (1, 2))
    assert two.activations > 2 * one.activations


def test_published_sizes_are_planned_without_memory() -> None:
    whole = plan(AvllmConfig.from_yaml("video_llama_7b"), Workload(text_tokens=64, new_tokens=128))
    assert whole.parameters == pytest.approx(8.6e9, rel=0.01)
    # tokens x (keys, values) x layers x width x bytes
    assert whole.kv_cache == (32 + 8 + 64 + 128) * 2 * 32 * 4096 * 2


def test_linear_layers_of_the_decoder_take_four_bits_and_their_scales() -> None:
    config = AvllmConfig.from_yaml("nano")
    saved = plan(config, Workload()).weights - plan(config, Workload(quantization="nf4")).weights
    linear = 4 * (4 * 128 * 128 + 3 * 128 * 256)  # layers x (attention, MLP); not the head
    assert saved == pytest.approx(linear * (16 - 4.127) / 8, rel=1e-3)


def test_quantised_weights_cannot_be_trained_in_full() -> None:
    with pytest.raises(ConfigError, match="8 or 4 bits"):
        plan(AvllmConfig.from_yaml("nano"), Workload(quantization="nf4", train="all"))


def test_what_a_system_cannot_do_is_one_line(capsys) -> None:
    assert main(["plan", "nano", "--frames", "500"]) == 1
    assert "clip has 500 frames" in capsys.readouterr().err
    assert main(["plan", "video_llama_7b", "decoder.hidden_size=33"]) == 1
    assert "decoder: no sizes of a llama" in capsys.readouterr().err


def test_a_failed_allocation_names_what_would_fit() -> None:
    config = AvllmConfig.from_yaml("nano")
    work = Workload(dtype=torch.float32, batch=4000, num_frames=16)
    with (
        pytest.raises(OutOfMemory, match=r"batch=1 \("),
        out_of_memory_named(config, lambda: work, torch.device("cpu")),
    ):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass_through() -> None:
    config = AvllmConfig.from_yaml("nano")
    with (
        pytest.raises(RuntimeError, match="size of tensor"),
        out_of_memory_named(config, Workload, torch.device("cpu")),
    ):
        torch.zeros(2) + torch.zeros(3)


@pytest.mark.parametrize("is_tied", [True, False])
def test_counts_the_weights_of_a_system_with_siglip_and_beats(is_tied: bool):
    decoder = {**TINY_AV["decoder"], "tie_word_embeddings": is_tied}
    config = AvllmConfig.from_system(parse(System, {**TINY_AV, "decoder": decoder}))

    result = plan(config)

    model = AvllmForConditionalGeneration(config)
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert result.media_tokens == {"video": VIDEO_TOKENS, "audio": AUDIO_TOKENS}
