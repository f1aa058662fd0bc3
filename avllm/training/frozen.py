"""What of a model is trained; all else is frozen, in eval mode, and stays so."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from avllm.errors import ConfigError

MAX_NAMED = 12


def freeze(model: nn.Module, trainable: Sequence[str]) -> list[str]:
    """Leaves gradients only to the parameters that a pattern names.

    A module none of whose parameters is trained is set to eval mode and stays in it after `model.train()`, so that its
    dropout is off. A module without parameters goes with the one that holds it.

    Args:
        model: any module; earlier calls are undone first.
        trainable: whole names, names of modules (all below them), or patterns with `*`, `?` and `[...]`.

    Returns:
        Names of the trained parameters, in the order of the model.

    Raises:
        ConfigError: a pattern that matches no parameter.
    """
    unfreeze(model)
    names = [name for name, _ in model.named_parameters()]
    for index, pattern in enumerate(trainable):
        if not any(matches(name, pattern) for name in names):
            raise ConfigError(
                f"trainable.{index}: {pattern!r} matches no parameter of the model; it has: {_summary(names)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(matches(name, pattern) for pattern in trainable))
    _hold_in_eval(model)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def unfreeze(model: nn.Module) -> None:
    """Gives every parameter its gradient back, and `train()` its usual effect."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # weights in 4 bits have none
    for module in model.modules():
        module.__dict__.pop("train", None)


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter is meant by a pattern of `trainable`."""
    return fnmatchcase(name, pattern) or name.startswith(pattern + ".")


def recompute_activations(model: Any) -> None:
    """Has each layer of the decoder computed again in the backward pass in place of storing what it holds.

    transformers does so in training mode alone, which a frozen decoder is not in; so the layers are told they train,
    while what is in them, dropout included, stays as it is.
    """
    # Renamed in transformers 5.23; the first argument is the same.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


class _StayInEval:
    """Stands in for `train` of a frozen module; `nn.Module.train` calls it on each child."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module


def _hold_in_eval(module: nn.Module) -> None:
    for child in module.children():
        parameters = list(child.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            _hold_in_eval(child)
        elif parameters:
            child.eval()
            child.__dict__["train"] = _StayInEval(child)


def _summary(names: Sequence[str]) -> str:
    depth = 4
    heads = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))
    more = f" and {len(heads) - MAX_NAMED} more" if len(heads) > MAX_NAMED else ""
    return ", ".join(heads[:MAX_NAMED]) + more
