"""The learning rate of the published recipes: a linear warm-up, then half a cosine. Pure arithmetic."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate runs over a stage.

    `over_all`, of Video-LLaMA: the warm-up counts the iterations of the epoch; the cosine runs over all steps from 0
    and does not start again after the warm-up, so that the rate jumps at its end. Published runs warm up for one epoch
    at most. The cosine ends at `min_lr`.

    `after_warmup`, of VideoChat: the warm-up counts all steps from rate 0, the cosine begins where it ends and runs to
    rate 0; `min_lr` cuts off what is below it, at both ends.

    Source: the published training code of Video-LLaMA ("linear_warmup_cosine_lr") and of VideoChat ("cosine").

    Args:
        cosine: over which steps the cosine runs.
        epochs: how often `steps_per_epoch` are run.
        steps_per_epoch: steps of the optimiser per epoch; an epoch is a unit of the schedule, not of the data.
        warmup_steps: steps of the linear warm-up.
        lr: highest learning rate.
        min_lr: learning rate at the end.
        warmup_start_lr: learning rate of step 0 when there is a warm-up; for `over_all` alone.
    """

    cosine: Literal["over_all", "after_warmup"] = "over_all"
    epochs: int = 1
    steps_per_epoch: int
    warmup_steps: int = 0
    lr: float
    min_lr: float = 0.0
    warmup_start_lr: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps: expected 0 or more, got {self.warmup_steps}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: expected a rate above 0, got {self.lr}")
        for name in ("min_lr", "warmup_start_lr"):
            if not 0 <= getattr(self, name) <= self.lr:
                raise ValueError(f"{name}: expected a rate from 0 to lr = {self.lr}, got {getattr(self, name)}")

        if self.cosine == "after_warmup" and self.warmup_start_lr:
            raise ValueError(
                "warmup_start_lr: the warm-up before an after_warmup cosine begins at min_lr; leave it out"
            )

    @property
    def num_steps(self) -> int:
        """Steps of the optimiser in the whole stage."""
        return self.epochs * self.steps_per_epoch

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if self.cosine == "after_warmup":
            return max(self.min_lr, self.lr * self._share_after_warmup(step))
        iteration = step % self.steps_per_epoch
        if step < self.warmup_steps:
            return self.warmup_start_lr + (self.lr - self.warmup_start_lr) * iteration / self.warmup_steps
        share = min(step / self.num_steps, 1.0)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * share)) / 2

    def _share_after_warmup(self, step: int) -> float:
        if step < self.warmup_steps:
            return step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
