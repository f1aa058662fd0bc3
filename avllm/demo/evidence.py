"""What the model got of a file for one answer, ready to be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Shown below the conversation after each answer.

    Args:
        streams: (video | audio, whether it was used, why not or how much).
        frames: (seconds, JPEG) of every frame that was sampled.
        peaks: loudness over the time of the sound; None when no sound was used.
        sound_seconds: length of the sound.
        segments: (start, end) in seconds of the segments that were heard.
        timings: (step, seconds).
    """

    streams: Sequence[tuple[str, bool, str]]
    frames: Sequence[tuple[float, bytes]]
    peaks: Float32[np.ndarray, " n"] | None
    sound_seconds: float
    segments: Sequence[tuple[float, float]]
    timings: Sequence[tuple[str, float]]
    model: str


def readable_timings(timings_s: Mapping[str, float]) -> list[tuple[str, float]]:
    """Names of the steps as a person reads them, in their order, without those that this answer did not need."""
    return [(name.replace("_", " "), float(seconds)) for name, seconds in timings_s.items() if seconds > 0]
