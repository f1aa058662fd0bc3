"""What a stage starts from, and how the complete model is written at its end."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avllm.checkpoints import manifest
from avllm.checkpoints.adapters import is_adapter, is_quantized
from avllm.checkpoints.hub import may_be_on_hub
from avllm.checkpoints.load import (
    SHIPPED,
    dtype_of,
    find_model,
    load_config,
    open_processor,
    open_weights,
    quantization_config,
)
from avllm.checkpoints.reading import open_file
from avllm.checkpoints.save import save_model
from avllm.checkpoints.sources import read_json
from avllm.errors import CheckpointError, ConfigError
from avllm.model.modeling import Branch
from avllm.model.processing import AvllmProcessor
from avllm.model.stored import weight_files
from avllm.training import checkpoint
from avllm.training.stage import Stage

RECORD = "training.json"  # the folder is complete once it is there


def open_start(settings: Stage) -> tuple[Any, Any]:
    """Opens the system to start from, and puts the trained parts of earlier stages over it.

    Raises:
        ConfigError: a folder that is no finished stage, or a modality of a branch that is not there.
        CheckpointError: weights that do not fit.
    """
    base, *parts = _checked_starts(settings)
    model, processor = _open_system(base, settings)
    for part in parts:
        checkpoint.load_parameters(model, trained_in(part), Path(part) / checkpoint.TRAINABLE)
    _set_modality(settings, model.branches)
    return model, processor


def open_branches(settings: Stage) -> tuple[dict[str, Branch], AvllmProcessor]:
    """The branches alone of the system to start from, with what earlier stages trained of them, and its processor.

    Raises:
        ConfigError: see `open_start`.
        CheckpointError: weights that do not fit.
    """
    base, *parts = _checked_starts(settings)
    folder = find_model(base)
    config, processor = load_config(folder), open_processor(folder)
    manifest.require_as_written(folder)
    weights: dict[str, Tensor] = {}
    for file in [*weight_files(folder), *(Path(part) / checkpoint.TRAINABLE for part in parts)]:
        tensors = open_file(file).tensors
        weights |= {name: tensor.read() for name, tensor in tensors.items() if name.startswith("branches.")}
    branches: dict[str, Branch] = {}
    for name, about in config.parsed().branches.items():
        with torch.device("meta"):
            branch = Branch(about, out_width=config.text_config.hidden_size)
        start = f"branches.{name}."
        own = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        try:
            branch.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{base}: branch {name}: {error}") from error
        branches[name] = branch.eval().requires_grad_(False)
    _set_modality(settings, branches)
    return branches, processor


def _checked_starts(settings: Stage) -> tuple[str, ...]:
    for index, start in enumerate(settings.starts):
        folder = Path(start)
        if not folder.is_dir() and (index or not (start in SHIPPED or may_be_on_hub(start))):
            made_by = next((item.MADE_BY for item in settings.data if hasattr(item, "MADE_BY")), None)
            advice = f"make it with: {made_by}" if made_by else "expected a model, or the output of a finished stage"
            raise ConfigError(f"init.{index}: {start}: no such folder; {advice} (or give another one: init=...)")
        if is_adapter(folder):
            raise ConfigError(
                f"init.{index}: {start} is an adapter; make it a whole model first: avllm merge {start} --out FOLDER"
            )
        if index and not (folder / RECORD).is_file():
            raise ConfigError(f"init.{index}: {start} has no {RECORD}; expected the output folder of a finished stage")
    return settings.starts


def _set_modality(settings: Stage, branches: Any) -> None:
    for name, modality in settings.modality.items():
        if name not in branches:
            raise ConfigError(f"modality.{name}: the system has no such branch, it has: {', '.join(branches)}")
        branches[name].modality = modality


def trained_in(stage: str | Path) -> list[str]:
    """Names of the parameters that a finished stage trained.

    Raises:
        CheckpointError: its record is damaged.
    """
    names = read_json(Path(stage) / RECORD).get("trained")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{Path(stage) / RECORD}: names no trained parameters; train the stage again")
    return names


def save_system(model: Any, processor: Any, folder: Path) -> None:
    """Writes a folder that `avllm.load` opens."""
    if processor is None:
        model.save_pretrained(folder)
    else:
        save_model(model, processor, folder)


def _open_system(name: str, settings: Stage) -> tuple[Any, Any]:
    # Stages on stored features and ids need no processor, so a folder without one can be trained.
    has_processor = not (Path(name) / "config.json").is_file() or (Path(name) / "processor_config.json").is_file()
    folder = find_model(name) if has_processor else Path(name)
    if has_processor and is_quantized(load_config(folder)):
        raise ConfigError(
            f"init: {name} holds quantised weights; start from the model that they were made of, which quantization: "
            f"nf4 holds in 4 bits while it trains"
        )
    options: dict[str, Any] = {"dtype": "auto"}
    if settings.quantization is not None:
        dtype = dtype_of(settings.precision)
        options = {"dtype": dtype, "quantization_config": quantization_config(settings.quantization, dtype)}
    return open_weights(folder, **options), open_processor(folder) if has_processor else None
