"""Decoded frames to RGB arrays of a wanted size, upright."""

import math
from dataclasses import dataclass, replace

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from avllm.media.fit import Fit, Picture, fit_picture, inner_size, place
from avllm.media.limits import Limits


@dataclass(frozen=True)
class Display:
    """How players show a stored picture: mirrored left to right first if at all, then turned counter-clockwise.

    Args:
        turns: quarters of a turn.
        is_mirrored: whether it is mirrored first.
    """

    turns: int = 0
    is_mirrored: bool = False

    @property
    def degrees(self) -> int:
        """By how much it is turned counter-clockwise: 0, 90, 180 or -90."""
        return (0, 90, 180, -90)[self.turns]

    def size_of(self, size: tuple[int, ...]) -> tuple[int, int]:
        """(h, w) as shown of a stored size, and the other way round."""
        return (size[1], size[0]) if self.turns % 2 else (size[0], size[1])

    def apply(self, picture: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The picture as shown."""
        return np.rot90(picture[:, ::-1] if self.is_mirrored else picture, k=self.turns)


def display_of(frame: VideoFrame) -> Display:
    """What the container, or the stream itself, says about showing a decoded frame; turns are rounded to quarters."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Display()
    # x' = a x + c y, y' = b x + d y, y downwards, in native byte order.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data)[:20], np.int32))
    is_mirrored = a * d - b * c < 0
    if is_mirrored:
        a, b = -a, -b
    return Display(turns=round(math.degrees(math.atan2(-b, a)) / 90) % 4, is_mirrored=is_mirrored)


class Shaper:
    """Turns frames into RGB, upright, of the size that `how` asks for, or that of the first frame.

    With `decoder`, frames are resized while the colours are converted: no full-size RGB copy is made.

    Args:
        how: which size and how it is reached.
        limits: what a picture may cost on the way.
    """

    def __init__(self, how: Fit, limits: Limits) -> None:
        self.how, self.limits = how, limits
        self.reformatter = VideoReformatter()
        self.display, self.seen = Display(), None

    def __call__(self, frame: VideoFrame) -> Picture:
        # PyAV keeps a frame whose side data was looked at until the next garbage collection.
        seen = (frame.rotation, frame.width, frame.height)
        if seen != self.seen:
            self.display, self.seen = display_of(frame), seen
        display = self.display
        height, width = display.size_of((frame.height, frame.width))
        if self.how.size is None:  # A stream that changes its size is brought to its first one.
            self.how = replace(self.how, size=(height, width))
        size, inner = self.how.size or (height, width), (height, width)
        if self.how.resample == "decoder":
            inner = inner_size(inner, size, self.how.resize)
        to_h, to_w = display.size_of(inner)
        self.limits.check_pixels(to_w, to_h)
        picture = self.reformatter.reformat(
            frame, width=to_w, height=to_h, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
        upright = display.apply(picture)
        if self.how.resample == "decoder":
            return place(upright, size, self.how.pad_color)
        return fit_picture(upright, self.how, self.limits)
