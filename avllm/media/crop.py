"""A cut out of each frame, enlarged to one size: the augmentation of the published training recipes."""

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from avllm.media.fit import interpolate


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
    cut = frames[:, top : top + height, left : left + width]
    return interpolate(interpolate(cut, 1, size[0], "bicubic"), 2, size[1], "bicubic")


def to_pixels(frames: Float32[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Clamps, then cuts off the fraction. The published cast does not clamp, and overshoot wraps from 256 to 0."""
    return np.clip(frames, 0, 255).astype(np.uint8)
