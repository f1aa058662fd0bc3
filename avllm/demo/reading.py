"""A file that a visitor loaded: what it is, and the pictures of it that the page shows."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

Kind = Literal["video", "image", "audio"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Medium:
    """A file that can be asked about. Two loads of one file are two media.

    Args:
        path: where it lies.
        kind: what the model takes it for; an image is a video of one frame.
        name: as it is shown.
        duration_s: 0 for an image.
        size: (width, height) in pixels; None for a sound.
        has_audio: whether there is a track of sound.
        poster: JPEG of one frame; None for a sound.
        shown: what was computed for display, by what it depends on.
    """

    path: Path
    kind: Kind
    name: str
    duration_s: float = 0.0
    size: tuple[int, int] | None = None
    has_audio: bool = False
    poster: bytes | None = None
    shown: dict[Any, Any] = field(default_factory=dict)

    def facts(self) -> str:
        """A few words: length, size, sound."""
        words = []
        if self.kind != "image":
            words.append(f"{self.duration_s:.1f} s")
        if self.size is not None:
            words.append(f"{self.size[0]}×{self.size[1]}")
        if self.kind == "video":
            words.append("with sound" if self.has_audio else "no sound")
        return " · ".join(words)


def to_jpeg(frame: UInt8[np.ndarray, "h w 3"], longest: int | None = None, quality: int = 82) -> bytes:
    """A frame as it is shown on the page, made to fit into a square of `longest` pixels."""
    image, buffer = Image.fromarray(frame), io.BytesIO()
    if longest is not None:
        image.thumbnail((longest, longest))
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def fit(width: int, height: int, longest: int) -> tuple[int, int]:
    """(height, width) of a picture made to fit into a square of `longest` pixels; it is never enlarged."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def loudness(waveform: Float32[np.ndarray, "c s"], num_bars: int) -> Float32[np.ndarray, " n"]:
    """Peak of each of `num_bars` equal parts of a sound, over all channels."""
    mono = np.abs(waveform).max(axis=0)
    edges = np.linspace(0, len(mono), min(num_bars, len(mono)) + 1).astype(int)
    return np.maximum.reduceat(mono, edges[:-1]).astype(np.float32) if len(mono) else np.zeros(0, np.float32)
