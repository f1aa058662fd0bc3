"""LoRA adapters: a folder with what was trained and the name of the model it was trained on."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avllm.checkpoints import manifest
from avllm.checkpoints.reading import open_file
from avllm.checkpoints.replaced import require_replaceable
from avllm.checkpoints.sources import read_json
from avllm.durable import written_whole
from avllm.errors import CheckpointError
from avllm.model import AvllmForConditionalGeneration

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT = "base_model.model."  # before each name
TRAINED = "trained.safetensors"  # parts that were trained in full beside the adapter, as connectors are
# Of its settings: what is obeyed, or told by the weights; everything else must be off.
USED = ("peft_type", "r", "lora_alpha", "use_rslora")
WITHOUT_EFFECT = (
    *("base_model_name_or_path", "target_modules", "lora_dropout", "inference_mode", "task_type", "peft_version"),
    *("revision", "init_lora_weights"),
)


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
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise CheckpointError(f"{folder / ADAPTER}: base_model_name_or_path is missing; expected a model folder")
    return base


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
    require_replaceable(Path(folder))
    with written_whole(folder) as unfinished:
        fill(unfinished, settings, state, base=base, trained=trained)
        manifest.write(unfinished, manifest.of_saved(unfinished))
    return Path(folder)


def fill(
    folder: Path, settings: "PeftConfig", state: dict[str, Any], *, base: str | Path, trained: dict[str, Any]
) -> None:
    """The files of an adapter, in an empty folder; the arguments are those of `write_adapter`."""
    settings.base_model_name_or_path = str(base)
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    for file, weights in ((WEIGHTS, state), (TRAINED, trained)):
        if weights:
            tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
            save_file(tensors, folder / file, metadata={"format": "pt"})
            (folder / file).chmod((folder / ADAPTER).stat().st_mode)  # safetensors writes for the owner alone


def attach(model: AvllmForConditionalGeneration, folder: Path) -> "PeftModel":
    """Puts the adapter into the model, unmerged, and the parts that were trained in full in place of the model's.

    Raises:
        CheckpointError: the adapter belongs to another model; what does not fit is named.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import get_peft_model_state_dict

    state = _read(folder / WEIGHTS)
    _require_fit(model, state, folder)
    settings = _settings(folder, state)
    if (folder / TRAINED).is_file():
        _replace(model, folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), config=settings)
    except (RuntimeError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"adapter {folder} does not fit its base model: {error}") from error
    odd = sorted(set(state) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
    if odd:
        raise CheckpointError(f"adapter {folder}: {', '.join(odd[:8])} is missing or left over on its base model")
    manifest.require_as_written(folder)
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


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; what opens it tells what is wrong with it, which the library does not."""
    open_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is no safetensors file that can be read ({error})") from error


def _settings(folder: Path, state: Mapping[str, Tensor]) -> "PeftConfig":
    """The settings of a plain LoRA; its layers are those that its weights name, whatever pattern the file holds.

    Raises:
        CheckpointError: it is another kind of adapter, or a value is odd; the key is named.
    """
    from peft import LoraConfig

    told, path = read_json(folder / ADAPTER), folder / ADAPTER
    usual = {f.name: f.default if f.default is not MISSING else None for f in fields(LoraConfig)}
    odd = [key for key in told if key not in (*USED, *WITHOUT_EFFECT) and told[key] and told[key] != usual.get(key)]
    if told.get("peft_type") != "LORA" or odd:
        key = "peft_type" if told.get("peft_type") != "LORA" else odd[0]
        raise CheckpointError(f"{path}: {key} is {str(told.get(key))[:80]!r}; expected a plain LoRA, without {key}")
    ranks = {tensor.shape[0] for name, tensor in state.items() if ".lora_A." in name}
    rank, alpha = told.get("r"), told.get("lora_alpha")
    if type(rank) is not int or ranks != {rank}:
        raise CheckpointError(f"{path}: r is {str(rank)[:80]!r}, its weights have rank {sorted(ranks)}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise CheckpointError(f"{path}: lora_alpha is {str(alpha)[:80]!r}; expected a number above 0")
    if type(told.get("use_rslora", False)) is not bool:
        raise CheckpointError(f"{path}: use_rslora is {str(told['use_rslora'])[:80]!r}; expected true or false")
    layers = sorted({name.removeprefix(PEFT).partition(".lora_")[0] for name in state})
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft takes any number
        use_rslora=told.get("use_rslora", False),
        target_modules=layers,
    )


def _require_fit(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Each pair beside a linear layer that takes and gives as many values."""
    layers, odd = dict(model.named_modules()), []
    for name, tensor in state.items():
        module, _, part = name.removeprefix(PEFT).partition(".lora_")
        layer: Any = layers.get(module)
        size = getattr(layer, "in_features" if part.startswith("A") else "out_features", None)
        size = None if tensor.ndim != 2 else size
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
    for name, tensor in _read(folder / TRAINED).items():
        if name not in own or own[name].shape != tensor.shape:
            shape = f"shape {list(own[name].shape)}" if name in own else "no such weight"
            raise CheckpointError(
                f"{folder / TRAINED}: {name} of shape {list(tensor.shape)}; the base model has {shape}"
            )
        own[name].copy_(tensor)
