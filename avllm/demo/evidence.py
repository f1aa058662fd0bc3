"""What the model got for one answer, ready to be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

# Dark violet over red to light yellow: louder is lighter, also for readers who do not tell colours apart.
_COLOURS = np.array([(8, 6, 28), (72, 18, 108), (150, 38, 110), (221, 73, 74), (250, 146, 42), (248, 240, 160)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """The sound of a file as the model heard it.

    Args:
        peaks: loudness over its time.
        seconds: its length.
        segments: (start, end) in seconds of the segments that were heard.
        mels: JPEG of each log-mel picture that the model was given; low tones are at the bottom.
    """

    peaks: Float32[np.ndarray, " n"]
    seconds: float
    segments: Sequence[tuple[float, float]] = ()
    mels: Sequence[bytes] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What was taken from one file.

    Args:
        name: of the file.
        streams: (video | audio, whether it was used, why not or how much).
        frames: (seconds, JPEG) of every frame that was sampled.
        sound: None when no sound was used.
    """

    name: str
    streams: Sequence[tuple[str, bool, str]]
    frames: Sequence[tuple[float, bytes]] = ()
    sound: Sound | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Shown below the conversation after each answer.

    Args:
        media: what was taken from each file that was in view.
        timings: (step, seconds).
        model: who answered.
    """

    media: Sequence[Shown]
    timings: Sequence[tuple[str, float]]
    model: str


def readable_timings(timings_s: Mapping[str, float]) -> list[tuple[str, float]]:
    """Names of the steps as a person reads them, in their order, without those that this answer did not need."""
    return [(name.replace("_", " "), float(seconds)) for name, seconds in timings_s.items() if seconds > 0]


def mel_pictures(segments: Float[np.ndarray, "t 1 f n"]) -> UInt8[np.ndarray, "t f n 3"]:
    """Log-mel segments in colours, on one scale for all, low tones at the bottom."""
    values = segments[:, 0, ::-1]
    low, high = np.percentile(values, (1.0, 99.5)) if values.size else (0.0, 1.0)
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    channels = [np.interp(scaled, steps, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
