"""Draws scenes of nano's world into frames of any size, many at once."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Int, UInt8

from avllm.nano.render_shapes import SIZES, integrals
from avllm.nano.world import THINGS, Background, Rgb, Scene, Thing

DARK_LEVEL, LIGHT_LEVEL = 12.0, 240.0
_NOISE_VALUES = 1 << 20
_CHUNK = 64  # small frames drawn together

Frames = UInt8[np.ndarray, "n h w 3"]


def path(thing: Thing, at: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and size of a thing at moments of its scene given as fractions 0..1 of the duration."""
    step = at - 0.5
    x, y, size = np.full_like(at, thing.x), np.full_like(at, thing.y), np.full_like(at, thing.size)
    if thing.motion in ("left", "right"):
        x = x + step * (thing.travel if thing.motion == "right" else -thing.travel)
    elif thing.motion in ("up", "down"):
        y = y + step * (thing.travel if thing.motion == "down" else -thing.travel)
    elif thing.motion in ("grow", "shrink"):
        size = size * thing.travel ** (step if thing.motion == "grow" else -step)
    return x, y, size


def render_frames(
    scenes: Scene | Sequence[Scene], times_s: Float[np.ndarray, "..."], size: int | tuple[int, int]
) -> UInt8[np.ndarray, "..."]:
    """Frames of one scene at times [t], or of several at times [b t], squashed to `size` as a model would do.

    The same scene, time and size always give the same pixels.

    Args:
        times_s: moments in seconds from the start of the clip.
        size: height and width in pixels, or one number for both.

    Returns:
        [t h w 3] for one scene, [b t h w 3] for several.
    """
    height, width = (size, size) if isinstance(size, int) else size
    is_one = isinstance(scenes, Scene)
    listed = [scenes] if isinstance(scenes, Scene) else list(scenes)
    times = np.asarray(times_s, dtype=np.float64)
    times = times[None] if is_one else times
    if times.ndim != 2 or len(times) != len(listed):
        raise ValueError(f"times_s: {len(listed)} scenes need the shape [{len(listed)}, t], got {times.shape}")
    if max(height, width) > 2 * SIZES[0]:
        frames = np.stack([_draw_large(scene, row, height, width) for scene, row in zip(listed, times, strict=True)])
    else:
        rows = max(1, _CHUNK // max(times.shape[1], 1))
        frames = np.concatenate(
            [_draw_small(listed[i : i + rows], times[i : i + rows], height, width) for i in range(0, len(listed), rows)]
        )
    return frames[0] if is_one else frames


def _draw_small(scenes: Sequence[Scene], times: np.ndarray, height: int, width: int) -> UInt8[np.ndarray, "b t h w 3"]:
    num, steps = times.shape
    canvas = np.repeat(np.stack([background(s, height, width) for s in scenes]), steps, axis=0)  # [n h w 3]
    for layer in range(max(len(scene.things) for scene in scenes)):
        rows, names, colours, places = [], [], [], []
        for index, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
            if layer < len(scene.things):
                thing = scene.things[layer]
                seen = np.flatnonzero(_is_there(thing, scene, moments))
                rows.append(index * steps + seen)
                names.append(np.full(len(seen), THINGS.index(thing.name)))
                colours.append(np.tile(np.array(thing.rgb, dtype=np.float32), (len(seen), 1)))
                places.append(_boxes(scene, layer, moments[seen]))
        index = np.concatenate(rows)
        canvas[index] = _paste(
            canvas[index], SIZES[0], np.concatenate(names), np.concatenate(colours), np.concatenate(places)
        )
    for index, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
        block = canvas[index * steps : (index + 1) * steps]
        block *= scene.brightness
        if scene.noise:
            for frame, moment in zip(block, moments, strict=True):
                frame += 255 * scene.noise * _noise(scene.seed, moment, frame.size).reshape(frame.shape)
    frames = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return frames.reshape(num, steps, height, width, 3)


def _is_there(thing: Thing, scene: Scene, moments: np.ndarray) -> np.ndarray:
    """At which moments a thing is seen; one that stays is also there after the nominal end."""
    return (moments >= thing.appears_s) & ((moments < thing.leaves_s) | (thing.leaves_s >= scene.duration_s))


def _draw_large(scene: Scene, moments: np.ndarray, height: int, width: int) -> Frames:
    """One frame after the other, touching only the box of each thing."""
    even_height, even_width = height + height % 2, width + width % 2
    base = scene.brightness * background(scene, even_height, even_width)
    things = [replace(thing, rgb=_dimmed(thing.rgb, scene.brightness)) for thing in scene.things]
    boxes = [_boxes(scene, layer, moments) for layer in range(len(things))]
    frames = np.empty((len(moments), height, width, 3), dtype=np.uint8)
    canvas = np.empty_like(base)
    # Grains of two pixels: averaged down to 48 pixels they are weaker than the noise of small frames.
    grains = rearrange(canvas, "(h i) (w j) k -> h i w j k", i=2, j=2)
    assert np.shares_memory(grains, canvas)
    for index, moment in enumerate(moments):
        canvas[:] = base
        for thing, places in zip(things, boxes, strict=True):
            if _is_there(thing, scene, moment):
                _paste_large(canvas, thing, places[index])
        if scene.noise:
            rows, _, columns, _, _ = grains.shape
            noise = 255 * scene.noise * _noise(scene.seed, moment, rows * columns).reshape(rows, columns)
            grains += noise[:, None, :, None, None]
        np.clip(canvas, 0, 255, out=canvas)
        frames[index] = canvas[:height, :width]
    return frames


def _dimmed(rgb: Rgb, brightness: float) -> Rgb:
    red, green, blue = (round(value * brightness) for value in rgb)
    return red, green, blue


def _paste_large(canvas: Float32[np.ndarray, "h w 3"], thing: Thing, place: Float[np.ndarray, "4"]) -> None:
    height, width = canvas.shape[:2]
    x, y, radius_x, radius_y = place
    left, right = _span(x, radius_x, width)
    top, bottom = _span(y, radius_y, height)
    if left >= right or top >= bottom:
        return
    pixels = 2 * max(radius_x * width, radius_y * height)
    size = next((size for size in SIZES if size >= pixels), SIZES[-1])
    x, radius_x = (x * width - left) / (right - left), radius_x * width / (right - left)
    y, radius_y = (y * height - top) / (bottom - top), radius_y * height / (bottom - top)
    window = np.array([[x, y, radius_x, radius_y]])
    part = canvas[None, top:bottom, left:right]
    colour = np.array([thing.rgb], dtype=np.float32)
    canvas[top:bottom, left:right] = _paste(part, size, np.array([THINGS.index(thing.name)]), colour, window)[0]


def _span(centre: float, radius: float, pixels: int) -> tuple[int, int]:
    start, end = np.floor((centre - radius) * pixels), np.ceil((centre + radius) * pixels)
    return int(np.clip(start, 0, pixels)), int(np.clip(end, 0, pixels))


def _boxes(scene: Scene, layer: int, moments: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """x, y, radius along x, radius along y, as fractions of the frame, with the jitter of each moment."""
    x, y, size = path(scene.things[layer], moments / scene.duration_s)
    if scene.jitter:
        shake = np.array([_noise(scene.seed + 1 + layer, moment, 2) for moment in moments]).reshape(-1, 2)
        x, y = x + scene.jitter * shake[:, 0], y + scene.jitter * shake[:, 1]
    return np.stack([x, y, size * scene.aspect**-0.5, size * scene.aspect**0.5], axis=1)


def _paste(
    canvas: Float32[np.ndarray, "n h w 3"],
    size: int,
    things: Int[np.ndarray, " n"],
    colours: Float32[np.ndarray, "n 3"],
    boxes: Float[np.ndarray, "n 4"],
) -> Float32[np.ndarray, "n h w 3"]:
    """Lays pictures of `size` texels over the canvas; every pixel is the exact mean of what it covers."""
    _, height, width, _ = canvas.shape
    x, y, radius_x, radius_y = boxes.T
    table = integrals(size)
    across = _differences(rearrange(table, "n w h k -> n w (h k)"), things, _edges(x, radius_x, width, size))
    rows = rearrange(across, "n w (h k) -> n h (w k)", k=3)
    layers = _differences(rows, np.arange(len(canvas)), _edges(y, radius_y, height, size))
    texels = size * size / (4 * radius_x * radius_y * width * height)  # to a pixel
    layers = rearrange(layers, "n h (w k) -> n h w k", k=3) / texels.astype(np.float32)[:, None, None, None]
    covered, body, light = layers[..., :1], layers[..., 1:2], layers[..., 2:]
    rest = DARK_LEVEL * (covered - body - light) + LIGHT_LEVEL * light
    return canvas * (1 - covered) + body * colours[:, None, None] + rest


def _edges(
    centre: Float[np.ndarray, " n"], radius: Float[np.ndarray, " n"], pixels: int, texels: int
) -> Float32[np.ndarray, "n edges"]:
    """Where the edges of the output's pixels fall in a picture laid at centre +- radius, in texels."""
    places = np.arange(pixels + 1) / pixels - (centre - radius)[:, None]
    return np.clip(places / (2 * radius[:, None]) * texels, 0, texels).astype(np.float32)


def _differences(
    tables: Float[np.ndarray, "n_tables rows k"], which: Int[np.ndarray, " n"], edges: Float32[np.ndarray, "n edges"]
) -> Float[np.ndarray, "n steps k"]:
    """The tables `which`, read between rows at fractional `edges`; each reading less the one before it."""
    num_rows = tables.shape[1]
    below = np.minimum(edges.astype(np.int64), num_rows - 2)
    flat = rearrange(tables, "n rows k -> (n rows) k")
    index = which[:, None] * num_rows + below
    low = np.take(flat, index, axis=0)
    values = np.take(flat, index + 1, axis=0)
    values -= low
    values *= (edges - below).astype(tables.dtype)[:, :, None]
    values += low
    return values[:, 1:] - values[:, :-1]


@cache
def _noise_bank() -> Float32[np.ndarray, " n"]:
    return np.random.default_rng(7).standard_normal(_NOISE_VALUES, dtype=np.float32)


def _noise(seed: int, moment: float, num: int) -> Float32[np.ndarray, " n"]:
    """Normal noise that belongs to a seed and a moment: a slice of one fixed bank, 20x faster than drawing it."""
    start = (seed * 2_654_435_761 + int(moment * 1000 + 0.5) * 40_503 * 97) % (_NOISE_VALUES - 1)
    bank = _noise_bank()
    if start + num <= _NOISE_VALUES:
        return bank[start : start + num]
    return np.take(bank, np.arange(start, start + num), mode="wrap")


def background(scene: Scene, height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """The gradient between four corners with a faint pattern over it."""
    ground = scene.background
    corners = np.array(ground.corners, dtype=np.float32)[:, None, None]
    top_left, top_right, bottom_left, bottom_right = corners
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[:, None]
    shade = (top_left * (1 - x) + top_right * x) * (1 - y) + (bottom_left * (1 - x) + bottom_right * x) * y
    return (shade * (1 + ground.strength * _pattern(ground, scene.seed, y, x))).astype(np.float32)


def _pattern(ground: Background, seed: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values in about -1..1 over the frame."""
    turns, phase = 2 * np.pi * ground.scale / 2, (seed % 628) / 100
    if ground.pattern == "stripes":
        slant = (seed % 5 - 2) / 2
        return np.sin(turns * (x + slant * y) + phase)
    if ground.pattern == "checks":
        return np.sign(np.sin(turns * x + phase) * np.sin(turns * y + phase))
    if ground.pattern == "dots":
        return 2 * np.maximum(np.sin(turns * x + phase) * np.sin(turns * y + phase), 0) - 0.5
    if ground.pattern == "clouds":
        waves = (np.sin((k * 0.7 + 1) * 3 * x + (1.9 - k * 0.6) * 4 * y + phase * (k + 1)) for k in range(3))
        return sum(waves, np.zeros_like(x * y)) / 2
    return np.zeros_like(x * y)
