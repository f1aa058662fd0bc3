"""A cut out of each frame, enlarged to one size: the augmentation of the published training recipes."""

import numpy as np
from jaxtyping import Float32, Shaped, UInt8


def crop_and_resize(
    frames: Shaped[np.ndarray, "t h w 3"], box: tuple[int, int, int, int], size: tuple[int, int]
) -> Float32[np.ndarray, "t h2 w2 3"]:
    """Cuts `box` out of all frames and resizes it by bicubic interpolation, without smoothing first.

    Values may overshoot [0, 255]; see `to_pixels`.

    Args:
        frames: RGB, uint8 or float.
        box: top, left, height and width, in pixels.
        size: (h2, w2).

    Source: torchvision's `resized_crop` as LAVIS uses it (bicubic with a = -0.75, corners not aligned).
    """
    top, left, height, width = box
    cut = frames[:, top : top + height, left : left + width].astype(np.float32)
    rows, columns = _weights(height, size[0]), _weights(width, size[1])
    return np.einsum("yh,thwc,xw->tyxc", rows, cut, columns, optimize=True).astype(np.float32)


def to_pixels(frames: Float32[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Clamps, then cuts off the fraction. The published cast does not clamp, and overshoot wraps from 256 to 0."""
    return np.clip(frames, 0, 255).astype(np.uint8)


def _weights(length: int, to: int) -> Float32[np.ndarray, "to length"]:
    """One row of interpolation weights per output position; the border is repeated."""
    centres = (np.arange(to) + 0.5) * (length / to) - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((to, length), np.float32)
    for offset in range(-1, 3):
        weight = _cubic(np.abs(centres - (first + offset)))
        np.add.at(matrix, (np.arange(to), np.clip(first + offset, 0, length - 1)), weight.astype(np.float32))
    return matrix


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
