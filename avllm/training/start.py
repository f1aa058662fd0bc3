"""What a stage starts from, and how the complete model is written at its end."""

import json
from pathlib import Path
from typing import Any

from avllm.checkpoints.adapters import is_adapter
from avllm.checkpoints.load import _quiet, dtype_of, find_model, quantization_config
from avllm.checkpoints.save import save_model
from avllm.errors import ConfigError
from avllm.model.modeling import AvllmForConditionalGeneration
from avllm.model.processing import AvllmProcessor
from avllm.training import checkpoint
from avllm.training.stage import Stage

RECORD = "training.json"  # the folder is complete once it is there


def open_start(settings: Stage) -> tuple[Any, Any]:
    """Opens the system to start from, and puts the trained parts of earlier stages over it.

    Raises:
        ConfigError: a folder that is no finished stage, or a modality of a branch that is not there.
        CheckpointError: weights that do not fit.
    """
    base, *parts = settings.starts
    for index, start in enumerate(settings.starts):
        if is_adapter(Path(start)):
            raise ConfigError(
                f"init.{index}: {start} is an adapter; make it a whole model first: avllm merge {start} --out FOLDER"
            )
    model, processor = _open_system(base, settings)
    for index, part in enumerate(parts, start=1):
        record = Path(part) / RECORD
        if not record.is_file():
            raise ConfigError(f"init.{index}: {part} has no {RECORD}; expected the output folder of a finished stage")
        checkpoint.load_parameters(model, trained_in(part), Path(part) / checkpoint.TRAINABLE)
    for name, modality in settings.modality.items():
        if name not in model.branches:
            raise ConfigError(f"modality.{name}: the system has no such branch, it has: {', '.join(model.branches)}")
        model.branches[name].modality = modality
    return model, processor


def trained_in(stage: str | Path) -> list[str]:
    """Names of the parameters that a finished stage trained."""
    return json.loads((Path(stage) / RECORD).read_text(encoding="utf-8"))["trained"]


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
    options: dict[str, Any] = {"dtype": "auto"}
    if settings.quantization is not None:
        dtype = dtype_of(settings.precision)
        options = {"dtype": dtype, "quantization_config": quantization_config(settings.quantization, dtype)}
    with _quiet():
        model = AvllmForConditionalGeneration.from_pretrained(folder, **options)
        return model, AvllmProcessor.from_pretrained(folder) if has_processor else None
