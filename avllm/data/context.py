"""What a dataset may need of the system it is read for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Context:
    """Passed to `build` of every dataset.

    Args:
        model: the system, frozen as the stage says; for datasets that compute features with it.
        processor: its processor.
        modality: branch -> "vision" when the branch of sound is fed pictures.
        seed: of the run.
        cache: folder of the run where a dataset may store what it computed.
    """

    model: Any = None
    processor: Any = None
    modality: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cache: Path | None = None
