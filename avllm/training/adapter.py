"""LoRA on the decoder of a stage: put in before it, written as an adapter folder at its end."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from avllm.errors import ConfigError
from avllm.training.frozen import freeze
from avllm.training.stage import Adapter

if TYPE_CHECKING:
    from peft import PeftModel

LORA = ("*.lora_A.*", "*.lora_B.*")


def add_adapter(model: nn.Module, settings: Adapter, *, seed: int) -> "PeftModel":
    """Puts pairs of small matrices beside the linear layers of the decoder; `model` itself is changed.

    Source: LoRA (arXiv:2106.09685), section 4.1.

    Args:
        model: not frozen yet.
        settings: rank, scale, dropout and layers.
        seed: of the first matrices, so that a run can be started again.

    Returns:
        The adapter's view of the model, which is what writes it.

    Raises:
        ConfigError: a target that is no linear layer of the decoder.
    """
    from peft import LoraConfig, get_peft_model

    known = _linear_layers(model)
    for index, name in enumerate(settings.target):
        if name not in known:
            raise ConfigError(
                f"adapter.target.{index}: {name!r} is no linear layer of the decoder, it has: {', '.join(known)}"
            )
    names = "|".join(re.escape(name) for name in settings.target or known)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=settings.dropout,
        target_modules=rf"decoder\.(?:.+\.)?(?:{names})",
        bias="none",
    )
    adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    # transformers refuses to train quantised weights unless it knows of the adapter beside them.
    model._hf_peft_config_loaded = True  # type: ignore[assignment]
    return adapted  # type: ignore[return-value]


def freeze_beside_adapter(model: nn.Module, trainable: Sequence[str]) -> list[str]:
    """Freezes all but the adapter and the named parts.

    Raises:
        ConfigError: a pattern names weights of the decoder, which the adapter trains.
    """
    trained = freeze(model, [*trainable, *LORA])
    own = [name for name in trained if name.startswith("decoder.") and ".lora_" not in name]
    if own:
        raise ConfigError(
            f"trainable: names {own[0]} of the decoder, which the adapter trains; name parts of branches alone, "
            f"or leave out adapter to train the decoder in full"
        )
    return trained


def full_weights(model: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """The named parameters that belong to no adapter."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().cpu().clone() for name in names if ".lora_" not in name}


def _linear_layers(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    layers = {name: layer for name, layer in model.decoder.named_modules() if isinstance(layer, nn.Linear)}
    return list(dict.fromkeys(name.rpartition(".")[2] for name, layer in layers.items() if layer is not head))
