"""How many threads a model on the CPU should have."""

import os

import torch
from torch import nn

SMALL_MODEL = 50_000_000


def choose_threads(model: nn.Module) -> int:
    """Gives a small model one thread; a large one, or one on a GPU, keeps what is set.

    The operations of a small model are shorter than the hand-over between threads, and on a busy machine the threads
    wait for each other. Only for a process that serves one model, as the commands do; `OMP_NUM_THREADS` is respected.

    Returns:
        the number of threads now set.
    """
    is_small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if is_small and on_cpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return torch.get_num_threads()
