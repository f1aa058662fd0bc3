"""Linear layers in 4 bits on a CPU: answers may use a repacked copy of them, their own weights stay as they are.

On CPUs with AVX512-BF16 bitsandbytes (0.49 and later) repacks such a layer in place at its first forward pass in eval
mode. That is a hundred times faster for single tokens, but no gradient passes through the layer any more, and neither
saving nor merging gets the same weights back. Here the layer keeps its weights and a copy beside it is repacked.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

SWITCH = "support_avx512bf16_for_cpu"  # of each layer of bitsandbytes
ROWS = 32  # the repacked form holds rows in blocks of these; bitsandbytes fails on other numbers


def keep_own_weights(model: nn.Module, *, repacked_copies: bool = True) -> None:
    """Has every layer in 4 bits keep its weights for good.

    Args:
        model: layers of another kind are left alone.
        repacked_copies: whether forward passes without gradients, in eval mode, on a CPU that gains by it, use a copy;
            it takes as much memory as the layer and computes in bfloat16. Off: they use the weights themselves.
    """
    for layer in model.modules():
        forward = layer.__dict__.get("forward")
        if isinstance(forward, _Forward):
            forward.uses_copy &= repacked_copies
            forward.copy = forward.copied = None
        elif getattr(layer, SWITCH, False):
            layer.forward = _Forward(layer, uses_copy=repacked_copies)
            setattr(layer, SWITCH, False)


class _Forward:
    """Stands in for `forward` of a layer."""

    def __init__(self, layer: nn.Module, *, uses_copy: bool) -> None:
        self.layer, self.own, self.uses_copy = layer, layer.forward, uses_copy
        self.copy: nn.Module | None = None
        self.copied: tuple[Tensor, int, int] | None = None

    def __call__(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        layer = self.layer
        if self.uses_copy and not layer.training and not torch.is_grad_enabled() and x.device.type == "cpu":
            weight: Any = layer.weight
            state = weight.quant_state
            if state is not None and state.shape[0] % ROWS == 0 and state.shape[1] % state.blocksize == 0:
                return self._repacked(weight)(x, *args, **options)
        return self.own(x, *args, **options)

    def _repacked(self, weight: Any) -> nn.Module:
        if self.copy is not None and self.copied is not None:
            before, place, version = self.copied
            if before is weight and (place, version) == (weight.data_ptr(), weight._version):
                return self.copy
        other = copy.copy(self.layer)
        other.__dict__.pop("forward")
        other._parameters = {**self.layer._parameters, "weight": copy.copy(weight)}
        # bitsandbytes changes the state of what it repacks, too.
        other.weight.quant_state = copy.copy(weight.quant_state)  # type: ignore[union-attr]
        setattr(other, SWITCH, True)
        self.copy, self.copied = other, (weight, weight.data_ptr(), weight._version)
        return other
