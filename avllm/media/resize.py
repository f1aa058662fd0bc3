"""Decoded frames to RGB arrays of a wanted size, upright."""

from typing import Literal, TypeAlias

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

Resize: TypeAlias = Literal["squash", "crop", "pad"]


class Shaper:
    """Turns frames into RGB, upright, resized while the colours are converted: no full-size RGB copy is made.

    Args:
        size: (h, w) of the result; None keeps the size of the first frame.
        mode: `squash` changes the aspect ratio, `crop` cuts the longer side, `pad` adds black bars.
    """

    def __init__(self, size: tuple[int, int] | None, mode: Resize) -> None:
        self.size = size
        self.mode: Resize = mode
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        turns = round(frame.rotation / 90) % 4
        height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
        if self.size is None:  # A stream that changes its size is brought to its first one.
            self.size = (height, width)
        inner_h, inner_w = inner_size((height, width), self.size, self.mode)
        to_h, to_w = (inner_w, inner_h) if turns % 2 else (inner_h, inner_w)
        picture = self.reformatter.reformat(
            frame, width=to_w, height=to_h, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
        return place(np.rot90(picture, k=turns), self.size)


def inner_size(size: tuple[int, int], to: tuple[int, int], mode: Resize) -> tuple[int, int]:
    """(h, w) to scale to before `place` crops or pads it to `to`."""
    if mode == "squash":
        return to
    choose = max if mode == "crop" else min
    scale = choose(to[0] / size[0], to[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def place(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Cuts or fills with black, around the centre."""
    if picture.shape[:2] == size:
        return picture
    result = np.zeros((*size, 3), np.uint8)
    taken, given = [], []
    for have, want in zip(picture.shape[:2], size, strict=True):
        length = min(have, want)
        taken.append(slice((have - length) // 2, (have - length) // 2 + length))
        given.append(slice((want - length) // 2, (want - length) // 2 + length))
    result[tuple(given)] = picture[tuple(taken)]
    return result
