"""The looks of nano's things: each painted once, with no colour of its own, and kept in several sizes."""

from collections.abc import Callable
from functools import cache

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float, Float32
from PIL import Image, ImageDraw

from avllm.nano.world import THINGS

CANVAS = 1024  # pixels a side of the painting
SIZES = (64, 128, 256)  # pixels a side of the kept pictures
NOTHING, BODY, DARK, LIGHT, SHADE = range(5)  # what a pixel of a painting is
SHADE_LEVEL = 0.55  # brightness of SHADE against BODY

Draw = ImageDraw.ImageDraw


def _points(*values: float) -> list[tuple[float, float]]:
    """Corner points from x, y pairs in -1..1."""
    scaled = [(value + 1) / 2 * CANVAS for value in values]
    return list(zip(scaled[::2], scaled[1::2], strict=True))


def _polygon(draw: Draw, fill: int, *values: float) -> None:
    draw.polygon(_points(*values), fill=fill)


def _box(draw: Draw, fill: int, left: float, top: float, right: float, bottom: float, round_by: float = 0.0) -> None:
    draw.rounded_rectangle(_points(left, top, right, bottom), radius=round_by * CANVAS / 2, fill=fill)


def _disc(draw: Draw, fill: int, x: float, y: float, radius: float, flat: float = 1.0) -> None:
    draw.ellipse(_points(x - radius, y - radius * flat, x + radius, y + radius * flat), fill=fill)


def _line(draw: Draw, fill: int, width: float, *values: float) -> None:
    draw.line(_points(*values), fill=fill, width=round(width * CANVAS / 2), joint="curve")


def _drum(draw: Draw) -> None:
    """A square barrel with a dark zigzag between two hoops."""
    _box(draw, BODY, -0.9, -0.85, 0.9, 0.85, 0.12)
    _box(draw, DARK, -0.9, -0.45, 0.9, 0.45)
    _line(draw, BODY, 0.24, -0.95, 0.42, -0.48, -0.42, 0.0, 0.42, 0.48, -0.42, 0.95, 0.42)
    draw.rectangle(_points(-1.0, -1.0, -0.9, 1.0), fill=NOTHING)
    draw.rectangle(_points(0.9, -1.0, 1.0, 1.0), fill=NOTHING)


def _bell(draw: Draw) -> None:
    """A cone that widens to a brim, with a ring on top and the clapper below a gap."""
    _disc(draw, BODY, 0.0, -0.78, 0.2)
    _polygon(draw, BODY, -0.2, -0.7, 0.2, -0.7, 0.5, -0.1, 0.62, 0.3, 1.0, 0.55, -1.0, 0.55, -0.62, 0.3, -0.5, -0.1)
    _disc(draw, BODY, 0.0, 0.78, 0.22)
    _box(draw, DARK, -0.5, 0.18, 0.5, 0.3)


def _clock(draw: Draw) -> None:
    """A wide ring round a dark face with two hands."""
    _disc(draw, BODY, 0.0, 0.0, 0.98)
    _disc(draw, DARK, 0.0, 0.0, 0.64)
    _line(draw, BODY, 0.2, 0.0, 0.06, 0.0, -0.5)
    _line(draw, BODY, 0.2, -0.06, 0.0, 0.4, 0.0)


def _car(draw: Draw) -> None:
    """Long and low, with a cabin of dark windows and two dark wheels."""
    _polygon(draw, BODY, -0.62, -0.1, -0.42, -0.66, 0.36, -0.66, 0.66, -0.1)
    _box(draw, BODY, -1.0, -0.16, 1.0, 0.42, 0.14)
    _polygon(draw, DARK, -0.46, -0.12, -0.3, -0.5, -0.06, -0.5, -0.06, -0.12)
    _polygon(draw, DARK, 0.08, -0.12, 0.08, -0.5, 0.28, -0.5, 0.48, -0.12)
    for x in (-0.54, 0.54):
        _disc(draw, DARK, x, 0.42, 0.32)
        _disc(draw, BODY, x, 0.42, 0.15)


def _rocket(draw: Draw) -> None:
    """On its way to the upper right: a pointed bar with a dark window, two fins and a flame."""

    def tilted(*values: float) -> list[float]:
        """Turns upright points by 45 degrees."""
        pairs = zip(values[::2], values[1::2], strict=True)
        return [turned for x, y in pairs for turned in ((x - y) * 0.9, (x + y) * 0.9)]

    _polygon(draw, SHADE, *tilted(-0.24, 0.6, 0.24, 0.6, 0.0, 1.06))
    _polygon(draw, BODY, *tilted(-0.26, 0.05, -0.58, 0.4, -0.58, 0.8, -0.2, 0.55))
    _polygon(draw, BODY, *tilted(0.26, 0.05, 0.58, 0.4, 0.58, 0.8, 0.2, 0.55))
    _polygon(draw, BODY, *tilted(0.0, -1.08, 0.24, -0.74, 0.32, -0.4, 0.32, 0.6, -0.32, 0.6, -0.32, -0.4, -0.24, -0.74))
    _disc(draw, DARK, 0.2, -0.2, 0.2)


def _ghost(draw: Draw) -> None:
    """A dome on a ragged hem with two large dark eyes."""
    _disc(draw, BODY, 0.0, -0.2, 0.76)
    _polygon(
        draw, BODY, -0.76, -0.2, 0.76, -0.2, 0.76, 0.95, 0.51, 0.55, 0.25, 0.95, 0.0, 0.55, -0.25, 0.95, -0.51, 0.55,
        -0.76, 0.95,
    )  # fmt: skip
    for x in (-0.32, 0.32):
        _disc(draw, DARK, x, -0.26, 0.2, 1.4)
        _disc(draw, LIGHT, x + 0.05, -0.36, 0.07)


def _bird(draw: Draw) -> None:
    """Seen from the side: a round belly, raised head and tail, a dark wing, a beak and two legs."""
    _line(draw, SHADE, 0.09, -0.12, 0.5, -0.12, 0.98)
    _line(draw, SHADE, 0.09, 0.16, 0.5, 0.16, 0.98)
    draw.pieslice(_points(-0.7, -0.8, 0.66, 0.72), 0, 180, fill=BODY)
    _polygon(draw, BODY, -0.7, -0.04, -1.0, -0.6, -0.52, -0.45, -0.3, -0.02)
    _disc(draw, BODY, 0.42, -0.4, 0.36)
    _polygon(draw, LIGHT, 0.7, -0.56, 1.0, -0.34, 0.7, -0.22)
    _polygon(draw, BODY, 0.1, -0.3, 0.72, -0.3, 0.66, 0.0, 0.0, 0.0)
    draw.pieslice(_points(-0.45, -0.3, 0.25, 0.4), 0, 180, fill=DARK)
    _disc(draw, DARK, 0.5, -0.46, 0.11)


def _drone(draw: Draw) -> None:
    """From above: a cross of two bars with a rotor at each end and a dark middle."""
    _line(draw, BODY, 0.22, -0.62, -0.62, 0.62, 0.62)
    _line(draw, BODY, 0.22, -0.62, 0.62, 0.62, -0.62)
    for x in (-0.62, 0.62):
        for y in (-0.62, 0.62):
            _disc(draw, BODY, x, y, 0.36)
            _disc(draw, DARK, x, y, 0.13)
    _disc(draw, BODY, 0.0, 0.0, 0.2)


PAINTERS: dict[str, Callable[[Draw], None]] = {
    "drum": _drum,
    "bell": _bell,
    "clock": _clock,
    "car": _car,
    "rocket": _rocket,
    "ghost": _ghost,
    "bird": _bird,
    "drone": _drone,
}


@cache
def shapes(size: int) -> Float32[np.ndarray, "n h w 3"]:
    """All things at `size` pixels a side: how much of each pixel is covered, is of the body's colour, is light."""
    pictures = []
    for name in THINGS:
        canvas = Image.new("L", (CANVAS, CANVAS), NOTHING)
        PAINTERS[name](ImageDraw.Draw(canvas))
        painted = np.asarray(canvas)
        body = (painted == BODY) + SHADE_LEVEL * (painted == SHADE)
        layers = np.stack([painted != NOTHING, body, painted == LIGHT], axis=-1).astype(np.float32)
        step = CANVAS // size
        pictures.append(reduce(layers, "(h i) (w j) k -> h w k", "mean", i=step, j=step))
    return np.stack(pictures)


@cache
def integrals(size: int) -> Float[np.ndarray, "n w1 h1 3"]:
    """Sums of `shapes` over all texels left of and above a corner: any box's mean is four look-ups away."""
    summed = rearrange(shapes(size).astype(np.float64), "n h w k -> n w h k").cumsum(1).cumsum(2)
    padded = np.pad(summed, ((0, 0), (1, 0), (1, 0), (0, 0)))
    # Single precision holds the sums of the small pictures exactly enough (1e-4 of a texel) and is twice as fast.
    return padded.astype(np.float32) if size <= 64 else padded
