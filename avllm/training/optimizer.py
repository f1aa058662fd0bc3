"""Groups of the trained parameters: with and without weight decay, and parts with a rate of their own."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from avllm.errors import ConfigError
from avllm.training.frozen import matches
from avllm.training.stage import Optimizer


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
