"""Opens a model folder: weights, configuration and processor, whole or not at all."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from avllm.config import PACKAGE
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor

# Systems whose weights ship inside the package.
SHIPPED = {"nano": PACKAGE / "nano" / "weights"}


def find_model(name: str | Path) -> Path:
    """The folder of a model.

    Args:
        name: a shipped system or a folder.

    Raises:
        CheckpointError: there is no such folder, or it holds no model; what is missing is named.
    """
    folder = SHIPPED.get(str(name), Path(name))
    if not folder.is_dir():
        what = "its weights are not installed" if str(name) in SHIPPED else "no such folder or name"
        raise CheckpointError(f"model {name}: {what} ({folder}); expected a model folder or: {', '.join(SHIPPED)}")
    missing = [
        file
        for file in ("config.json", "processor_config.json", "tokenizer_config.json")
        if not (folder / file).is_file()
    ]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(
            f"model folder {folder}: {', '.join(missing)} is missing; save or convert the model again"
        )
    return folder


def load_model(
    name: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None, **options: Any
) -> tuple[AvllmForConditionalGeneration, AvllmProcessor]:
    """Loads a model and its processor, ready to answer.

    Args:
        name: a shipped system or a folder.
        device: where it runs; CUDA when there is a device, else the CPU.
        dtype: of the weights in memory, whatever they are stored in; float32 on a CPU, bfloat16 on a GPU by default.
        options: what `from_pretrained` takes besides (`device_map`, `quantization_config`, ...).

    Raises:
        CheckpointError: files or weights are missing, left over or damaged.
    """
    folder = find_model(name)
    if device is None and "device_map" not in options:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None:
        dtype = torch.float32 if device is None or torch.device(device).type == "cpu" else torch.bfloat16
    try:
        with _quiet():
            model = AvllmForConditionalGeneration.from_pretrained(folder, dtype=dtype, **options)
            processor = AvllmProcessor.from_pretrained(folder)
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:  # damaged files
        raise CheckpointError(f"model folder {folder}: {error}") from error
    assert isinstance(model, AvllmForConditionalGeneration)
    if device is not None:
        model.to(device=torch.device(device))  # type: ignore[call-overload]
    return model.eval(), processor


def load_config(name: str | Path) -> AvllmConfig:
    """The configuration of a model folder, without its weights."""
    path = find_model(name) / "config.json"
    try:
        return AvllmConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and notices of `transformers` on a terminal that waits for an answer."""
    from transformers.utils import logging as hf_logging

    had_bar, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if had_bar:
            hf_logging.enable_progress_bar()
