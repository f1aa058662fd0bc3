"""transformers' Trainer with what a stage needs: its order of data and schedule, whole checkpoints, clear stops."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from avllm.data.collate import IGNORED
from avllm.data.mixture import Mixture, Order
from avllm.durable import UNFINISHED, write_json
from avllm.errors import DataError, NumericError
from avllm.training import checkpoint
from avllm.training.held_out import Standing, Watch
from avllm.training.optimizer import parameter_groups
from avllm.training.progress import HELD_OUT, CsvLog
from avllm.training.sharding import share_state, whole_state, whole_weights
from avllm.training.stage import Stage
from avllm.training.stop import StopOnSignal, Stopped

logger = logging.getLogger(__name__)
POSITION = "data.json"
STATE = "trainer_state.json"  # read by transformers on resume
MAX_LISTED = 5
# A share of unreadable media is not judged before this many samples: one bad file at the start is no trend.
MIN_JUDGED = 100


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
        watch: measures the loss on held-out data, if there is some.
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
        watch: Watch | None = None,
    ) -> None:
        self.stage, self.order, self.folder = stage, order, folder
        self.trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.unreadable: list[dict[str, str]] = []
        self.num_read = 0
        self.last_ids: list[str] = []
        self.stop, self.watch = StopOnSignal(), watch
        self.is_sharded = stage.distributed == "fsdp"
        self._last_inputs: dict[str, Any] | None = None
        super().__init__(model=model, args=args, train_dataset=mixture, data_collator=collate, callbacks=[self.stop])  # type: ignore[arg-type]
        self.csv_log = log
        log.unreadable = self.unreadable
        self.add_callback(log)
        if watch is not None:
            self.add_callback(watch)
        if self.is_sharded:  # it is wrapped for autocast alone: no copies of it are kept in step
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.remove_callback(PrinterCallback)  # the log and the progress bar are ours
        # Whether the model is told how many tokens the whole step learns, to divide by them.
        self.model_accepts_loss_kwargs = stage.accumulation_mean == "tokens"

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
            if self.is_sharded:
                self.optimizer.register_load_state_dict_pre_hook(share_state)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """The stage's schedule as a factor of its highest rate."""
        if self.lr_scheduler is None:
            schedule = self.stage.schedule
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: schedule.at(step) / schedule.lr)
            self._created_lr_scheduler = True
        return self.lr_scheduler  # type: ignore[return-value]

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """The batches of a step, and how many tokens all processes learn in it; None as published, by each batch."""
        batches = list(islice(epoch_iterator, num_batches))
        if self.stage.accumulation_mean == "micro_batch":
            return batches, None
        # Also where nothing could be read: each process must take part in the sum.
        num_tokens = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches if "labels" in batch)
        total = self.accelerator.reduce(torch.tensor(num_tokens, device=device), "sum")
        assert isinstance(total, Tensor)
        return batches, total

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch=None) -> Tensor:
        """One part of a step.

        Raises:
            NumericError: the loss is not finite; the samples are named, no weight has changed by them.
            DataError: too many samples could not be read, or nothing in the step is to be learned.
        """
        self.last_ids = inputs.pop("ids")
        self._count_unreadable(inputs.pop("unreadable"))
        if not inputs:
            return self._empty_step(model)
        if num_items_in_batch is not None and num_items_in_batch == 0:
            shown = ", ".join(self.last_ids[:MAX_LISTED])
            raise DataError(
                f"step {self.state.global_step + 1}: nothing in it is to be learned; samples: {shown}; "
                f"look at their answers with avllm data preview"
            )
        if self.is_sharded:
            self._last_inputs = dict(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            shown = ", ".join(self.last_ids[: 4 * MAX_LISTED])
            raise NumericError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()}; samples: {shown}; look at them, "
                f"lower schedule.lr or use precision fp32; the last checkpoint is kept"
            )
        return loss

    def _empty_step(self, model: nn.Module) -> Tensor:
        # Nothing of the batch could be read. Other processes wait for gradients of this one, so it gives zeros.
        if self.is_sharded:  # and for its share of each layer
            if self._last_inputs is None:
                raise DataError("no sample of the first batch could be read")
            outputs = model(**self._prepare_inputs(dict(self._last_inputs)))
            self.accelerator.backward(outputs["loss"] * 0.0)
        elif self.args.world_size > 1:
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
            raise self._too_many_unreadable()

    def require_some_read(self) -> None:
        """Raises DataError when no sample at all could be read: of few, too many are not told on the way."""
        is_none = len(self.unreadable) == self.num_read > 0
        if is_none and self.stage.max_unreadable < 1.0 and self.args.world_size == 1:
            raise self._too_many_unreadable()

    def _too_many_unreadable(self) -> DataError:
        listed = "; ".join(f"{item['id']}: {item['reason']}" for item in self.unreadable[-MAX_LISTED:])
        return DataError(
            f"{len(self.unreadable)} of {self.num_read} samples could not be read, max_unreadable allows "
            f"{self.stage.max_unreadable:.1%}; the last: {listed}"
        )

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: the estimate walks all parameters in every step and no one reads it."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Only what clipping computed: a norm for the log alone would cost every step.
        return grad_norm

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """Looks at the held-out data; asks to store the best step, and for the end when patience runs out."""
        assert self.watch is not None
        loss = self.watch.loss(self._module, self._prepare_inputs)
        is_best = self.watch.standing.take(loss, self.state.global_step, min_delta=self.watch.settings.min_delta)
        self.log({HELD_OUT: loss})
        self.control.should_evaluate = False  # transformers asks once more at the end of the run
        if self.watch.is_over:
            self.control.should_training_stop = True
        if self.watch.is_over or (is_best and self.stage.checkpoints.best):
            self.control.should_save = True
        return {}

    @property
    def best(self) -> Path | None:
        """Checkpoint of the step that was best on held-out data, if the run ends with its weights."""
        step = self.watch.standing.best_step if self.watch is not None else None
        return None if step is None or not self.stage.checkpoints.best else checkpoint.folder_of(self.checkpoints, step)

    def trained_weights(self) -> dict[str, Tensor]:
        """The trained parameters, on process 0; every process must ask for them."""
        if not self.is_sharded and not self.args.should_save:
            return {}
        return whole_weights(self._module, self.trained, keep=self.args.should_save)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.control.should_save = False  # as in evaluate
        weights = self.trained_weights()
        optimizer = whole_state(self.optimizer, keep=self.args.should_save) if self.is_sharded else None
        if self.args.world_size > 1:
            # Each process has its own random state; process 0 writes them all, so that a checkpoint is one rename.
            folder = self.checkpoints / f"{UNFINISHED}random"
            folder.mkdir(parents=True, exist_ok=True)
            self._save_rng_state(str(folder))
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            best = self.best
            checkpoint.write(
                self.checkpoints,
                self.state.global_step,
                lambda folder: self._fill(folder, weights, optimizer),
                keep=self.stage.checkpoints.keep,
                also=() if best is None else (best,),
            )
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path, weights: dict[str, Tensor], optimizer: dict[str, Any] | None) -> None:
        checkpoint.save_weights(weights, folder / checkpoint.TRAINABLE)
        self._save_optimizer_and_scheduler(str(folder))
        if optimizer is not None:
            torch.save(optimizer, folder / "optimizer.pt")  # in place of this process's share
        self._save_scaler(str(folder))
        if self.args.world_size > 1:
            for path in (self.checkpoints / f"{UNFINISHED}random").iterdir():
                path.rename(folder / path.name)
        else:
            self._save_rng_state(str(folder))
        self.state.log_history = []  # log.csv holds it
        self.state.save_to_json(str(folder / STATE))
        position: dict[str, Any] = {
            "step": self.state.global_step,
            "read": self.num_read,
            "unreadable": self.unreadable,
        }
        if self.watch is not None:
            position["held_out"] = self.watch.standing.to_dict()
        write_json(folder / POSITION, position)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self.is_sharded:  # those were loaded before they were cut
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


def run_to_end(trainer: StageTrainer, resume_from: Path | None) -> None:
    """Trains from the start or a checkpoint to the last step, or to where the held-out data says that it is enough.

    Raises:
        Stopped: Ctrl-C; the state is stored.
    """
    watch = trainer.watch
    if resume_from is not None:
        position = json.loads((resume_from / POSITION).read_text(encoding="utf-8"))
        trainer.num_read = position["read"]
        trainer.unreadable.extend(position["unreadable"])
        if watch is not None and "held_out" in position:
            watch.standing = Standing(**position["held_out"])
            if watch.is_over:  # it stopped early, and broke off before its folder was complete
                trainer._load_from_checkpoint(str(resume_from))
                trainer.state.global_step = position["step"]
                return
    try:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    finally:
        trainer.stop.restore()
        trainer.csv_log.close()
    trainer.require_some_read()
    done, total = trainer.state.global_step, trainer.stage.schedule.num_steps
    if watch is not None and watch.is_over:
        best = watch.standing.best_step
        logger.warning("stopped after step %d of %d: nothing below the held-out loss of step %s", done, total, best)
    elif done < total:
        raise Stopped(f"stopped after step {done} of {total}, which is stored; go on with --resume")
