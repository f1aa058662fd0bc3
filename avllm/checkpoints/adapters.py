"""LoRA adapters: a folder with what was trained and the name of the model it was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avllm.checkpoints.reading import open_file
from avllm.durable import written_whole
from avllm.errors import CheckpointError
from avllm.model import AvllmForConditionalGeneration

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT = "base_model.model."  # before each name
TRAINED = "trained.safetensors"  # parts that were trained in full beside the adapter, as connectors are


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter in place of a whole model."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def is_ours(folder: Path) -> bool:
    """Whether it is an adapter of a model of ours; a published one has other names."""
    path = folder / WEIGHTS
    return is_adapter(folder) and path.is_file() and any(".decoder." in name for name in open_file(path).tensors)


def files_of(folder: Path) -> list[Path]:
    """The files with its weights."""
    return [folder / name for name in (WEIGHTS, TRAINED) if (folder / name).is_file()]


def is_quantized(config: Any) -> bool:
    """Whether a model of this configuration has weights in 8 or 4 bits."""
    return getattr(config, "quantization_config", None) is not None


def base_of(folder: Path) -> str:
    """Name or folder of the model that the adapter was trained on.

    Raises:
        CheckpointError: the adapter does not tell, or has no weights in safetensors.
    """
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"adapter {folder}: {WEIGHTS} is missing; convert it with avllm convert --base")
    try:
        base = json.loads((folder / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / ADAPTER}: cannot be read ({error})") from error
    if not base:
        raise CheckpointError(f"{folder / ADAPTER}: base_model_name_or_path is missing; expected a model folder")
    return str(base)


def save_adapter(model: "PeftModel", folder: str | Path, *, base: str | Path, trained: dict[str, Any]) -> Path:
    """Writes the adapter of a model; the folder appears whole or not at all.

    Args:
        model: the model under its adapter.
        folder: where to.
        base: the model that it was trained on.
        trained: weights of our model that were trained in full, by name.
    """
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return write_adapter(folder, next(iter(model.peft_config.values())), state, base=base, trained=trained)


def write_adapter(
    folder: str | Path, settings: "PeftConfig", state: dict[str, Any], *, base: str | Path, trained: dict[str, Any]
) -> Path:
    """Writes an adapter; the folder appears whole or not at all.

    Args:
        folder: where to.
        settings: of the adapter.
        state: its weights, as peft names them.
        base: the model that it was trained on.
        trained: weights of our model that were trained in full, by name.
    """
    settings.base_model_name_or_path = str(base)
    settings.inference_mode = True
    with written_whole(folder) as unfinished:
        settings.save_pretrained(str(unfinished))
        for file, weights in ((WEIGHTS, state), (TRAINED, trained)):
            if weights:
                path = unfinished / file
                tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
                save_file(tensors, path, metadata={"format": "pt"})
                path.chmod((unfinished / ADAPTER).stat().st_mode)  # safetensors writes for the owner alone
    return Path(folder)


def attach(model: AvllmForConditionalGeneration, folder: Path) -> "PeftModel":
    """Puts the adapter into the model, unmerged, and the parts that were trained in full in place of the model's.

    Raises:
        CheckpointError: the adapter belongs to another model; what does not fit is named.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import get_peft_model_state_dict

    state = load_file(folder / WEIGHTS)
    _require_fit(model, state, folder)
    if (folder / TRAINED).is_file():
        _replace(model, folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"adapter {folder} does not fit its base model: {error}") from error
    odd = sorted(set(state) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
    if odd:
        raise CheckpointError(f"adapter {folder}: {', '.join(odd[:8])} is missing or left over on its base model")
    if is_quantized(model.config):
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge = _RefusedMerge(folder)  # type: ignore[assignment]
    return adapted.eval()


def merge(model: AvllmForConditionalGeneration, folder: Path) -> AvllmForConditionalGeneration:
    """The model with the adapter added to its weights: the same outputs, and no adapter any more.

    Raises:
        CheckpointError: the adapter belongs to another model, or the model's weights are quantised.
    """
    merged = attach(model, folder).merge_and_unload(safe_merge=True)
    assert isinstance(merged, AvllmForConditionalGeneration)
    return merged


def _require_fit(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Each pair beside a linear layer that takes and gives as many values."""
    layers, odd = dict(model.named_modules()), []
    for name, tensor in state.items():
        module, _, part = name.removeprefix(PEFT).partition(".lora_")
        layer: Any = layers.get(module)
        size = getattr(layer, "in_features" if part.startswith("A") else "out_features", None)
        if size is None or size != tensor.shape[1 if part.startswith("A") else 0]:
            has = "no such layer" if size is None else f"a layer of {layer.in_features} to {layer.out_features} values"
            odd.append(f"{module} has a weight of {list(tensor.shape)} beside it, the model has {has}")
    if odd:
        raise CheckpointError(
            f"adapter {folder} does not fit its base model: {odd[0]} ({len(odd)} such weights); "
            f"base_model_name_or_path in {ADAPTER} must name the model that it was trained on"
        )


class _RefusedMerge:
    """Stands in for `merge` of peft, which would round the sum to 8 or 4 bits again: a small update is lost in that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: Any, **options: Any) -> None:
        raise CheckpointError(
            f"adapter {self.folder}: cannot be added to quantised weights without rounding it away; load it without "
            f"quantization, or write a whole model of full weights with: avllm merge {self.folder} --out FOLDER"
        )


@torch.no_grad()
def _replace(model: AvllmForConditionalGeneration, folder: Path) -> None:
    own = model.state_dict()
    for name, tensor in load_file(folder / TRAINED).items():
        if name not in own or own[name].shape != tensor.shape:
            shape = f"shape {list(own[name].shape)}" if name in own else "no such weight"
            raise CheckpointError(
                f"{folder / TRAINED}: {name} of shape {list(tensor.shape)}; the base model has {shape}"
            )
        own[name].copy_(tensor)
