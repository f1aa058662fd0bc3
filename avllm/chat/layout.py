"""The order in which weights lie in memory."""

import torch
from torch import nn


def lay_out_for_cpu(model: nn.Module) -> None:
    """Lays the float32 matrices of linear layers on a CPU out input by input instead of output by output.

    Values, shapes and names stay; only the strides change. A product with one token, or a few, then takes two thirds of
    the time, and one with thousands is no slower (`benchmarks/chat.py`). A matrix that narrows is as fast as it was.
    """
    for module in model.modules():
        # Quantized layers are subclasses with formats of their own.
        if type(module) is not nn.Linear or module.out_features < module.in_features:
            continue
        if module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.weight.data = module.weight.data.t().contiguous().t()
