"""transformers' Trainer with what a stage needs: its order of data and schedule, whole checkpoints, clear stops."""

import json
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from avllm.data.mixture import Mixture, Order
from avllm.errors import ConfigError, DataError, NumericError
from avllm.training import checkpoint
from avllm.training.frozen import matches
from avllm.training.progress import CsvLog
from avllm.training.stage import Optimizer, Stage

logger = logging.getLogger(__name__)
POSITION = "data.json"
STATE = "trainer_state.json"  # read by transformers on resume
MAX_LISTED = 5
# A share of unreadable media is not judged before this many samples: one bad file at the start is no trend.
MIN_JUDGED = 100


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after the step was finished and stored."""


class StageTrainer(Trainer):
    """Trains the parameters that need gradients; everything else is left as it is.

    Args:
        stage: what is trained how.
        model: frozen already by `freeze`.
        mixture: reads samples.
        order: batches of the whole run.
        collate: samples to a batch.
        folder: checkpoints go to `checkpoints/` in it.
        log: writes the rows of the log.
    """

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        mixture: Mixture,
        order: Order,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        *,
        args: TrainingArguments,
        folder: Path,
        log: CsvLog,
    ) -> None:
        self.stage, self.order, self.folder = stage, order, folder
        self.trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.unreadable: list[dict[str, str]] = []
        self.num_read = 0
        self.last_ids: list[str] = []
        self.stop = _StopOnSignal()
        super().__init__(model=model, args=args, train_dataset=mixture, data_collator=collate, callbacks=[self.stop])  # type: ignore[arg-type]
        self.csv_log = log
        log.unreadable = self.unreadable
        self.add_callback(log)
        self.remove_callback(PrinterCallback)  # the log and the progress bar are ours
        # The loss is the mean over the targets of each batch, as published, also with accumulation.
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader:
        """Batches from the start of `order`, which knows its process: accelerate must not deal them out again."""
        stage = self.stage
        return DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            num_workers=stage.workers,
            # Its own: starting a loader draws from its generator, and a resumed run starts one more.
            generator=torch.Generator(),
            pin_memory=self.args.device.type == "cuda",
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW in two groups: with weight decay, and biases and norms without."""
        if self.optimizer is None:
            groups = parameter_groups(model or self._module, self.stage.optimizer)
            settings = self.stage.optimizer
            # One kernel per step in place of several per parameter: 4 ms less for a Q-Former on a CPU.
            self.optimizer = AdamW(
                groups, lr=self.stage.schedule.lr, betas=settings.betas, eps=settings.eps, fused=True
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """The stage's schedule as a factor of its highest rate."""
        if self.lr_scheduler is None:
            schedule = self.stage.schedule
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: schedule.at(step) / schedule.lr)
            self._created_lr_scheduler = True
        return self.lr_scheduler  # type: ignore[return-value]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch=None) -> Tensor:
        """One part of a step.

        Raises:
            NumericError: the loss is not finite; the samples are named, no weight has changed by them.
            DataError: too many samples could not be read.
        """
        self.last_ids = inputs.pop("ids")
        self._count_unreadable(inputs.pop("unreadable"))
        if not inputs:
            return self._empty_step()
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            shown = ", ".join(self.last_ids[: 4 * MAX_LISTED])
            raise NumericError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()}; samples: {shown}; look at them, "
                f"lower schedule.lr or use precision fp32; the last checkpoint is kept"
            )
        return loss

    def _empty_step(self) -> Tensor:
        # Nothing of the batch could be read. Other processes wait for gradients of this one, so it gives zeros.
        if self.args.world_size > 1:
            zero = sum(p.sum() * 0.0 for p in self._module.parameters() if p.requires_grad)
            self.accelerator.backward(zero)
        return torch.tensor(0.0, device=self.args.device)

    def _count_unreadable(self, unreadable: Sequence[Any]) -> None:
        self.num_read += len(self.last_ids) + len(unreadable)
        for item in unreadable:
            logger.warning("left out %s: %s", item.id, item.reason)
            self.unreadable.append({"id": item.id, "reason": item.reason})
        share = len(self.unreadable) / max(self.num_read, MIN_JUDGED)
        if share > self.stage.max_unreadable:
            listed = "; ".join(f"{item['id']}: {item['reason']}" for item in self.unreadable[-MAX_LISTED:])
            raise DataError(
                f"{len(self.unreadable)} of {self.num_read} samples could not be read, max_unreadable allows "
                f"{self.stage.max_unreadable:.1%}; the last: {listed}"
            )

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: the estimate walks all parameters in every step and no one reads it."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Only what clipping computed: a norm for the log alone would cost every step.
        return grad_norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.args.world_size > 1:
            self._save_shared(model)
        elif self.args.should_save:
            checkpoint.write(self.checkpoints, self.state.global_step, self._fill, keep=self.stage.checkpoints.keep)

    def _save_shared(self, model: nn.Module) -> None:
        # Each process has its own random state; process 0 writes them all, so that a checkpoint is one rename.
        folder = self.checkpoints / f"{checkpoint.UNFINISHED}random"
        folder.mkdir(parents=True, exist_ok=True)
        self._save_rng_state(str(folder))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoint.write(self.checkpoints, self.state.global_step, self._fill, keep=self.stage.checkpoints.keep)
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path) -> None:
        checkpoint.save_parameters(
            self.accelerator.unwrap_model(self.model), self.trained, folder / checkpoint.TRAINABLE
        )
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        if self.args.world_size > 1:
            for path in (self.checkpoints / f"{checkpoint.UNFINISHED}random").iterdir():
                path.rename(folder / path.name)
        else:
            self._save_rng_state(str(folder))
        self.state.log_history = []  # log.csv holds it
        self.state.save_to_json(str(folder / STATE))
        position = {"step": self.state.global_step, "read": self.num_read, "unreadable": self.unreadable}
        checkpoint.replace_json(folder / POSITION, position)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / checkpoint.TRAINABLE
        checkpoint.load_parameters(model or self._module, self.trained, path)

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model

    @property
    def checkpoints(self) -> Path:
        """Folder of the stored states."""
        return self.folder / "checkpoints"


def parameter_groups(model: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """Trained parameters with and without weight decay; parts with a rate of their own in groups behind them.

    Source: the published groups: no decay for tensors of fewer than two axes, which are the biases and norms.

    Raises:
        ConfigError: a part with its own rate of which nothing is trained.
    """
    parts: dict[str, list[Tensor]] = {pattern: [] for pattern in settings.part_lr}
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            pattern = next((pattern for pattern in parts if matches(name, pattern)), None)
            (rest if pattern is None else parts[pattern]).append(parameter)
    for pattern, found in parts.items():
        if not found:
            raise ConfigError(f"optimizer.part_lr: {pattern!r} names nothing that is trained")
    groups = _by_decay(rest, settings.weight_decay)
    for pattern, rate in settings.part_lr.items():
        groups += [{**group, "lr": rate} for group in _by_decay(parts[pattern], settings.weight_decay)]
    return groups


def _by_decay(parameters: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def arguments(stage: Stage, folder: Path) -> TrainingArguments:
    """The stage in the terms of transformers."""
    reports = ["tensorboard"] if stage.logging.tensorboard and _has_tensorboard() else []
    if reports:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.schedule.num_steps,
        per_device_train_batch_size=stage.batch,
        gradient_accumulation_steps=stage.accumulation,
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
        report_to=reports,
        seed=stage.seed,
        data_seed=stage.seed,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        bf16=stage.precision == "bf16",
        fp16=stage.precision == "fp16",
    )
    args._n_gpu = min(args.n_gpu, 1)  # more of them by torchrun; DataParallel would tear the media of a batch apart
    return args


def _has_tensorboard() -> bool:
    from transformers.integrations import is_tensorboard_available

    return is_tensorboard_available()


class _StopOnSignal(TrainerCallback):
    """Ctrl-C or a scheduler's SIGTERM: the step is finished and stored; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args, state, control, **rest: Any) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread: whoever started it there stops it
            logger.debug("signals are left alone outside the main thread")

    def on_step_end(self, args, state, control, **rest: Any):
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control

    def restore(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("stopping after this step; once more stops at once, without storing it")


def run_to_end(trainer: StageTrainer, resume_from: Path | None) -> None:
    """Trains from the start or a checkpoint to the last step.

    Raises:
        Stopped: Ctrl-C; the state is stored.
    """
    if resume_from is not None:
        position = json.loads((resume_from / POSITION).read_text(encoding="utf-8"))
        trainer.num_read = position["read"]
        trainer.unreadable.extend(position["unreadable"])
    try:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    finally:
        trainer.stop.restore()
        trainer.csv_log.close()
    done, total = trainer.state.global_step, trainer.stage.schedule.num_steps
    if done < total:
        raise Stopped(f"stopped after step {done} of {total}, which is stored; go on with --resume")
