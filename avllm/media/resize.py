"""Decoded frames to RGB arrays of a wanted size, upright."""

from dataclasses import replace

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from avllm.media.fit import Fit, Picture, fit_picture, inner_size, place
from avllm.media.limits import Limits


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

    def __call__(self, frame: VideoFrame) -> Picture:
        turns = round(frame.rotation / 90) % 4
        height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
        if self.how.size is None:  # A stream that changes its size is brought to its first one.
            self.how = replace(self.how, size=(height, width))
        size, inner = self.how.size or (height, width), (height, width)
        if self.how.resample == "decoder":
            inner = inner_size(inner, size, self.how.resize)
        to_h, to_w = reversed(inner) if turns % 2 else inner
        self.limits.check_pixels(to_w, to_h)
        picture = self.reformatter.reformat(
            frame, width=to_w, height=to_h, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
        upright = np.rot90(picture, k=turns)
        if self.how.resample == "decoder":
            return place(upright, size, self.how.pad_color)
        return fit_picture(upright, self.how, self.limits)
