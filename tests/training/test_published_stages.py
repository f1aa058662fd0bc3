"""The stages of Video-LLaVA and VideoLLaMA 2 have the published values and train the published parts, at full size."""

import math
from functools import cache

import pytest
import torch

from avllm.config import find_file
from avllm.data import DATASETS
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from avllm.training.adapter import add_adapter, freeze_beside_adapter
from avllm.training.frozen import freeze
from avllm.training.stage import read_stage

VIDEO, AUDIO, BEATS, LLM = "branches.video.connector", "branches.audio.connector", "branches.audio.encoder", "decoder"
LLAVA, TWO, AV = "video_llava_7b", "videollama2_1_7b_16f", "videollama2_1_7b_av"
# stage, trained in full, samples per step on 8 GPUs, epochs, highest rate
FULL = [
    (f"{LLAVA}/stage1", {VIDEO}, 256, 1, 1e-3),
    (f"{LLAVA}/stage2", {LLM, VIDEO}, 128, 1, 2e-5),
    (f"{TWO}/stage1", {VIDEO}, 256, 1, 1e-3),
    (f"{TWO}/stage2", {LLM, VIDEO}, 128, 1, 2e-5),
    (f"{AV}/audio_stage1", {AUDIO}, 1024, 1, 1e-3),
    (f"{AV}/audio_stage2", {AUDIO, BEATS}, 128, 2, 2e-5),
    (f"{AV}/joint", {LLM, VIDEO, AUDIO, BEATS}, 128, 2, 2e-5),
]
ADAPTERS = [(f"{LLAVA}/lora", 2e-4, None), (f"{TWO}/lora", 2e-5, None), (f"{TWO}/qlora", 2e-5, "nf4")]


@cache
def _config(system):
    return AvllmConfig.from_yaml(system)


def _meta(name):
    with torch.device("meta"):
        return AvllmForConditionalGeneration(_config(name.split("/")[0]))


def _check_common(stage, name, num_samples):
    schedule = stage.schedule
    assert stage.batch * stage.accumulation * 8 == num_samples
    assert (schedule.cosine, schedule.min_lr) == ("after_warmup", 0.0)
    assert schedule.warmup_steps == math.ceil(0.03 * schedule.num_steps)
    assert (stage.optimizer.weight_decay, stage.optimizer.betas, stage.optimizer.eps) == (0.0, (0.9, 0.999), 1e-8)
    assert (stage.optimizer.clip_norm, stage.precision, stage.gradient_checkpointing) == (1.0, "bf16", True)
    assert (stage.seed, stage.max_text_tokens) == (42, 2048)
    first = find_file("train_configs", name).read_text().splitlines()[0]
    assert first == f"# avllm train train_configs/{name}.yaml"


@pytest.mark.parametrize(("name", "parts", "num_samples", "epochs", "lr"), FULL)
def test_full_stages(name, parts, num_samples, epochs, lr):
    stage, _ = read_stage(name, datasets=DATASETS)

    _check_common(stage, name, num_samples)
    assert (stage.schedule.epochs, stage.schedule.lr, stage.adapter) == (epochs, lr, None)
    model = _meta(name)
    trained = set(freeze(model, stage.trainable))
    assert trained == {key for key, _ in model.named_parameters() if any(key.startswith(f"{part}.") for part in parts)}


@pytest.mark.parametrize(("name", "lr", "quantization"), ADAPTERS)
def test_adapter_stages(name, lr, quantization):
    pytest.importorskip("peft", reason="adapters need avllm[train]")
    stage, _ = read_stage(name, datasets=DATASETS)

    _check_common(stage, name, 128)
    adapter = stage.adapter
    assert (adapter.r, adapter.alpha, adapter.dropout) == (128, 256, 0.05)
    assert (stage.schedule.lr, stage.optimizer.part_lr, stage.quantization) == (lr, {VIDEO: 2e-5}, quantization)
    model = _meta(name)
    linear = [m for key, m in model.decoder.named_modules() if isinstance(m, torch.nn.Linear) and key != "lm_head"]
    in_full = {key for key, _ in model.named_parameters() if key.startswith(f"{VIDEO}.")}
    add_adapter(model, adapter, seed=0)
    trained = freeze_beside_adapter(model, stage.trainable)
    pairs = {key for key in trained if ".lora_" in key}
    assert set(trained) - pairs == in_full
    expected = sum(128 * (layer.in_features + layer.out_features) for layer in linear)
    assert sum(model.get_parameter(key).numel() for key in pairs) == expected


def test_the_first_stage_of_videollama2_is_without_a_template():
    assert [item.form for item in read_stage(f"{TWO}/stage1", datasets=DATASETS)[0].data] == ["caption"]
    assert {item.form for item in read_stage(f"{LLAVA}/stage1", datasets=DATASETS)[0].data} == {"train"}


def test_video_llava_groups_its_instructions_by_media_and_length():
    published = {f"{LLAVA}/stage1": "none", f"{LLAVA}/stage2": "modality_length", f"{LLAVA}/lora": "modality_length"}
    assert {name: read_stage(name, datasets=DATASETS)[0].group_by for name in published} == published


def test_video_and_sound_are_joined_in_the_last_stage_alone():
    assert [item.sound for item in read_stage(f"{AV}/joint", datasets=DATASETS)[0].data] == ["require", "none", "none"]
