"""FSDP2: each process holds a share of every layer of the decoder, of its gradients and of its optimizer state.

What is stored is whole, as one process would store it, so that a checkpoint does not depend on how many processes ran.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from avllm.errors import ConfigError


def shard(model: Any, device: torch.device) -> None:
    """Shards in place: each layer of the decoder on its own, then what is left.

    Source: FSDP2 of PyTorch (`torch.distributed.fsdp.fully_shard`).

    Args:
        model: frozen and of its final dtypes already, with the same weights in every process.
        device: of this process.

    Raises:
        ConfigError: there is one process only.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        raise ConfigError(
            "distributed: fsdp shards over several processes, there is one; start it with torchrun "
            "--nproc_per_node N -m avllm train, or use ddp"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in model.decoder.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(value: Any) -> Any:
    """A sharded tensor as a whole, detached and on the CPU; every process must ask for it. Other values as they are."""
    if not isinstance(value, Tensor):
        return value
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().cpu()  # type: ignore[operator]


def whole_weights(model: nn.Module, names: list[str], *, keep: bool) -> dict[str, Tensor]:
    """The named parameters as a whole; every process must ask for them, and those with `keep` off get none."""
    parameters = dict(model.named_parameters())
    weights = ((name, whole(parameters[name])) for name in names)
    return {name: weight.contiguous() for name, weight in weights if keep}


def whole_state(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """State of an optimizer as a whole; every process must ask for it, and those with `keep` off get none."""
    state, found = optimizer.state_dict(), {}
    for number, values in state["state"].items():
        full = {name: whole(value) for name, value in values.items()}
        if keep:
            found[number] = full
    return {**state, "state": found}


def share_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A whole state cut into the shares that this process holds; a hook of `Optimizer.load_state_dict`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    shared = {**state, "state": {}}
    for group, stored in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, number in zip(group["params"], stored["params"], strict=True):
            values = dict(state["state"].get(number, {}))
            for name, value in values.items():
                if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)
            shared["state"][number] = values
    return shared
