"""A stage in the terms of transformers."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import TrainingArguments

from avllm.errors import ConfigError
from avllm.training.stage import Stage


def arguments(stage: Stage, folder: Path) -> TrainingArguments:
    """Arguments of the trainer.

    Raises:
        ConfigError: a package that the stage asks for is not installed, or FSDP was asked for another way.
    """
    if os.environ.get("ACCELERATE_USE_FSDP"):
        raise ConfigError("FSDP by the settings of accelerate is not supported; write distributed: fsdp, use torchrun")
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.schedule.num_steps,
        per_device_train_batch_size=stage.batch,
        gradient_accumulation_steps=stage.accumulation,
        average_tokens_across_devices=True,
        learning_rate=stage.schedule.lr,
        max_grad_norm=stage.optimizer.clip_norm or 0.0,
        logging_strategy="steps",
        logging_steps=stage.logging.every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if stage.checkpoints.every else "no",
        save_steps=stage.checkpoints.every or 500,
        ignore_data_skip=True,  # the order starts at the step itself
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=_reports(stage, folder),
        seed=stage.seed,
        data_seed=stage.seed,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        bf16=stage.precision == "bf16",
        fp16=stage.precision == "fp16",
    )
    args._n_gpu = min(args.n_gpu, 1)  # more of them by torchrun; DataParallel would tear the media of a batch apart
    return args


def _reports(stage: Stage, folder: Path) -> list[str]:
    reports = []
    if stage.logging.tensorboard and (find_spec("tensorboard") or find_spec("tensorboardX")):
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
        reports.append("tensorboard")
    if stage.logging.wandb:
        if not find_spec("wandb"):
            raise ConfigError("logging.wandb: the package 'wandb' is not installed; install it, or leave this out")
        reports.append("wandb")
    return reports
