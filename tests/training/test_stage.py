from importlib.util import find_spec

import pytest
import torch
import yaml

from avllm.config import find_file
from avllm.data import DATASETS as PUBLISHED
from avllm.errors import ConfigError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from avllm.training.arguments import arguments
from avllm.training.frozen import freeze
from avllm.training.stage import read_stage
from tests.training.tiny_system import DATASETS, stage_data


def _write(tmp_path, **changes):
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(stage_data(tmp_path / "base", tmp_path / "out", **changes)))
    return path


def test_reads_a_stage_with_kinds_of_a_higher_layer(tmp_path):
    stage, plain = read_stage(_write(tmp_path), ["batch=3", "data.0.size=7"], datasets=DATASETS)

    assert (stage.batch, stage.data[0].size, plain["data"][0]["size"]) == (3, 7, 7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1e-4"], "optimizer.lr: unknown key"),
        (["schedule.lr=1e-4"], "schedule.lr: expected a float, got the text '1e-4'"),
        (["data.0.kind=nothing"], r"data\.0\.kind: 'nothing' is unknown, known are: tiny_features"),
        (["data.0.sise=4"], r"data\.0\.sise: unknown key; did you mean 'size'"),
        (["data.0.ratio=0"], r"data\.0\.ratio: expected a number above 0"),
        (["precision=fp8"], "precision: got the text 'fp8', allowed are: fp32, bf16, fp16"),
        (["schedule.steps_per_epoch=0"], "schedule: steps_per_epoch"),
        (["batch=0"], "batch: expected 1 or more"),
        (["accumulation=0"], "accumulation: expected 1 or more"),
        (["accumulation_mean=sum"], "accumulation_mean: got the text 'sum', allowed are: tokens, micro_batch"),
        (["schedule.lr=-1.0e-3"], "lr: expected a rate above 0"),
        (["schedule.lr=.inf"], "lr: expected a rate above 0"),
        (["optimizer.weight_decay=-0.1"], "optimizer: expected weight_decay and eps of 0 or more"),
        (["optimizer.betas=[0.9, 1.5]"], "optimizer: betas: expected two from 0 to below 1"),
        (["optimizer.clip_norm=0"], "optimizer: clip_norm: expected a norm above 0, or null"),
        (["adapter.alpha=0"], "adapter: alpha: expected a number above 0"),
        (["seed=-1"], "seed: expected 0 or more"),
        (["max_text_tokens=0"], "max_text_tokens: expected 1 or more, or null"),
    ],
)
def test_names_the_wrong_key(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        read_stage(_write(tmp_path), overrides, datasets=DATASETS)


def test_a_report_to_a_package_that_is_not_there_is_refused(tmp_path):
    if find_spec("wandb"):
        pytest.skip("wandb is installed here")
    stage, _ = read_stage(_write(tmp_path), ["logging.wandb=true"], datasets=DATASETS)

    with pytest.raises(ConfigError, match=r"logging\.wandb: the package 'wandb' is not installed"):
        arguments(stage, tmp_path)


@pytest.mark.parametrize(
    ("name", "steps", "warmup", "batch", "rates"),
    [
        ("video_stage1", 5 * 2500, 2500, 32, (1e-4, 8e-5, 1e-6)),
        ("video_stage2", 3 * 1000, 1000, 4, (3e-5, 1e-5, 1e-6)),
        ("audio_stage1", 5 * 5000, 5000, 32, (1e-4, 8e-5, 1e-6)),
        ("audio_stage2", 3 * 1000, 400, 4, (3e-5, 1e-5, 1e-6)),
    ],
)
def test_published_stages_have_the_published_values(name, steps, warmup, batch, rates):
    stage, _ = read_stage(f"video_llama_7b/{name}", datasets=PUBLISHED)

    schedule = stage.schedule
    assert (schedule.num_steps, schedule.warmup_steps, stage.batch) == (steps, warmup, batch)
    assert (schedule.lr, schedule.min_lr, schedule.warmup_start_lr) == rates
    assert (stage.optimizer.weight_decay, stage.seed, stage.optimizer.clip_norm) == (0.05, 42, None)
    assert stage.modality == ({"audio": "vision"} if name.startswith("audio") else {})
    assert all(f".{name.split('_')[0]}." in pattern for pattern in stage.trainable)
    command = find_file("train_configs", f"video_llama_7b/{name}").read_text().splitlines()[0]
    assert command.startswith(f"# avllm train train_configs/video_llama_7b/{name}.yaml")


@pytest.mark.parametrize(
    ("name", "epochs", "warmup_epochs", "batch", "frames", "rates"),
    [("stage1", 1, 0.2, 32, 4, (1e-4, 1e-6)), ("stage2", 3, 0.6, 1, 8, (2e-5, 5e-6))],
)
def test_the_stages_of_videochat_have_the_published_values(name, epochs, warmup_epochs, batch, frames, rates):
    stage, _ = read_stage(f"videochat_7b/{name}", datasets=PUBLISHED)

    schedule = stage.schedule
    assert (schedule.cosine, schedule.epochs, stage.batch) == ("after_warmup", epochs, batch)
    assert (schedule.warmup_steps / schedule.steps_per_epoch, schedule.lr, schedule.min_lr) == (warmup_epochs, *rates)
    assert (stage.optimizer.weight_decay, stage.seed, stage.optimizer.clip_norm) == (0.02, 42, None)
    assert {getattr(item, "num_frames", None) for item in stage.data} == {frames, None}
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(AvllmConfig.from_yaml("videochat_7b"))
    assert sum(model.get_parameter(key).numel() for key in freeze(model, stage.trainable)) == 205_542_528
