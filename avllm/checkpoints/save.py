"""Writes a model folder that `avllm.load` and the Auto classes of `transformers` open."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from avllm.checkpoints.load import _quiet
from avllm.durable import written_whole
from avllm.model import AvllmForConditionalGeneration, AvllmProcessor


def save_model(
    model: AvllmForConditionalGeneration,
    processor: AvllmProcessor,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """Saves weights, configuration and processor. At any moment the folder is the old one or the new one, whole.

    Args:
        model: the model; it is not changed.
        processor: its processor.
        folder: where to; an older model there is replaced.
        dtype: of the stored floating-point weights; that of the model by default. float16 halves the size of a model
            that is loaded as float32.
    """
    with written_whole(folder) as unfinished:
        with _quiet():
            model.save_pretrained(unfinished)
            processor.save_pretrained(unfinished)
        if dtype is not None:
            _store_as(unfinished, dtype)
        for file in unfinished.glob("*.safetensors"):  # safetensors writes for the owner alone
            file.chmod((unfinished / "config.json").stat().st_mode)
    return Path(folder)


def _store_as(folder: Path, dtype: torch.dtype) -> None:
    """Rewrites the weight files with another floating-point type."""
    from safetensors.torch import load_file

    for file in folder.glob("*.safetensors"):
        state: dict[str, Tensor] = load_file(file)
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        save_file({k: v.contiguous() for k, v in cast.items()}, file, metadata={"format": "pt"})
