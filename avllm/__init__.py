"""Audio-visual language models of the Video-LLaMA family.

`avllm.load("nano").chat().ask("What moves?", video="clip.mp4")`
"""

import importlib
from typing import TYPE_CHECKING, Any

from avllm.imports import collector_paused

if TYPE_CHECKING:
    from avllm.chat import Assistant, Reply, Session, load
    from avllm.errors import (
        AvllmError,
        CheckpointError,
        ConfigError,
        DataError,
        MediaError,
        NoAudioStream,
        NumericError,
    )
    from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor

__version__ = "0.1.0"

__all__ = [
    "Assistant",
    "AvllmConfig",
    "AvllmError",
    "AvllmForConditionalGeneration",
    "AvllmProcessor",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "MediaError",
    "NoAudioStream",
    "NumericError",
    "Reply",
    "Session",
    "load",
]

_CHAT = {"Assistant", "Reply", "Session", "load"}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `import avllm` and `avllm --help` never wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'avllm' has no attribute {name!r}")
    layer = "chat" if name in _CHAT else "errors" if name.endswith("Error") or name == "NoAudioStream" else "model"
    with collector_paused():
        return getattr(importlib.import_module(f"avllm.{layer}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
