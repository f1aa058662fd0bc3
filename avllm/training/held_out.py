"""The loss on data that is never trained on: which step was best, and when to stop early."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from avllm.data.collate import IGNORED
from avllm.data.mixture import Draw, Mixture
from avllm.errors import DataError
from avllm.training.stage import HeldOut

logger = logging.getLogger(__name__)


@dataclass
class Standing:
    """How a run stands on its held-out data; part of each checkpoint, so that it outlives a crash.

    Args:
        best: lowest loss so far.
        best_step: where.
        last: newest loss.
        without_gain: looks since then that found no lower one.
    """

    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    without_gain: int = 0

    def take(self, loss: float, step: int, *, min_delta: float) -> bool:
        """Takes a new loss; whether it is the lowest."""
        self.last = loss
        is_best = self.best is None or loss < self.best - min_delta
        if is_best:
            self.best, self.best_step, self.without_gain = loss, step, 0
        else:
            self.without_gain += 1
        return is_best

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


class Watch(TrainerCallback):
    """Measures the loss on held-out data, over all processes.

    Args:
        settings: which data, how often, how patient.
        mixture: reads samples of `settings.data`.
        collate: samples to a batch.
        batch: samples per process and batch.
        seed: draws the samples, and what is random in each, once for all looks.
        workers: processes that read.
        rank: this process.
        world: number of processes.
        is_sharded: whether they share the weights.
    """

    def __init__(
        self,
        settings: HeldOut,
        mixture: Mixture,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        *,
        batch: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        is_sharded: bool = False,
    ) -> None:
        self.is_sharded = is_sharded
        self.settings, self.mixture, self.collate = settings, mixture, collate
        self.batch, self.workers, self.rank, self.world = batch, workers, rank, world
        self.standing = Standing()
        self.num_unreadable = 0
        rng = np.random.default_rng([seed, 3])
        every = [Draw(source, index, 0) for source, of in enumerate(mixture.sources) for index in range(len(of))]
        if not every:
            raise DataError("held_out.data: the datasets are empty; expected at least one sample")
        chosen = rng.permutation(len(every))[: settings.samples]
        self.draws = [every[number]._replace(seed=int(rng.integers(2**62))) for number in sorted(chosen.tolist())]

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks for a look when it is time for one."""
        if state.global_step % self.settings.every == 0 or state.global_step == state.max_steps:
            control.should_evaluate = True
        return control

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        patience = self.settings.patience
        return patience is not None and self.standing.without_gain >= patience

    @torch.no_grad()
    def loss(self, model: Any, to_device: Callable[[Any], Any]) -> float:
        """Mean loss over all learned tokens; `model` is in training mode again after it.

        Args:
            model: as it is called in training.
            to_device: moves a batch to where the model is.

        Raises:
            DataError: none of the samples could be read.
        """
        was_training = [module for module in model.modules() if module.training]
        model.eval()
        total = torch.zeros(2, dtype=torch.float64)
        unreadable = 0
        for batch, counts in self._batches():
            unreadable += len(batch.pop("unreadable")) if counts else 0
            batch.pop("ids")
            if not batch and self.is_sharded:  # the other processes wait for its share of each layer
                raise DataError("held_out: no sample of a batch could be read; take the broken ones out of the data")
            if batch:
                num = int((batch["labels"][:, 1:] != IGNORED).sum())
                loss = float(model(**to_device(batch)).loss)
                total += torch.tensor([loss * num, num], dtype=torch.float64) if counts and num else 0
        for module in was_training:
            module.training = True
        if self.world > 1:
            total = _summed(total)
        self._tell(unreadable)
        if total[1] == 0:
            raise DataError("held_out: none of the samples could be read, or nothing in them is to be learned")
        return float(total[0] / total[1])

    def _batches(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Batches of this process, and whether each counts: all processes run as many, as sharded weights need."""
        whole = self.batch * self.world
        parts = []
        for start in range(self.rank * self.batch, len(self.draws) + self.rank * self.batch, whole):
            parts.append(self.draws[start : start + self.batch])
        shares = [part or self.draws[:1] for part in parts]
        loader = DataLoader(
            self.mixture,
            batch_sampler=shares,
            collate_fn=self.collate,
            num_workers=self.workers,
            generator=torch.Generator(),  # its own, so that a look does not move the random state of the run
        )
        for part, batch in zip(parts, loader, strict=True):
            yield batch, bool(part)

    def _tell(self, unreadable: int) -> None:
        if unreadable and not self.num_unreadable:
            logger.warning("held_out: %d of %d samples cannot be read and are left out", unreadable, len(self.draws))
        self.num_unreadable = unreadable


def _summed(values: Tensor) -> Tensor:
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    values = values.to(device)
    torch.distributed.all_reduce(values)
    return values.cpu()
