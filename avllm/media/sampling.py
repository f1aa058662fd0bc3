"""Which frames of a video a system looks at: arithmetic on a count and a rate, no files."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avllm.errors import ConfigError, MediaError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How frames are picked.

    `uniform`: the first frame of each of n equal segments; short videos yield fewer frames (Video-LLaMA).
    `middle`: the middle of each of n segments; indices repeat in short videos (VideoLLaMA2).
    `linspace`: from the first frame to the last, both included; indices repeat in short videos (Video-LLaVA).
    `head_tail`: n // 2 random frames of each half, sorted (Video-LLaMA's training option).
    `fps`: the middle of each segment of 1 / fps seconds (VideoLLaMA2).
    `all`: every frame.

    Args:
        kind: see above.
        num_frames: n; `fps` and `all` do not use it.
        fps: frames per second for `fps`.
        start_s: the part of the video to look at, in seconds from its start.
        end_s: where that part ends, exclusive.
        max_frames: more frames than this are thinned out evenly.
        seed: of `head_tail`.
    """

    kind: Literal["uniform", "middle", "linspace", "head_tail", "fps", "all"] = "uniform"
    num_frames: int = 8
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    max_frames: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ConfigError(f"num_frames: expected at least 1, got {self.num_frames}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max_frames: expected at least 1, got {self.max_frames}")
        if self.kind == "fps" and not (self.fps and math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"fps: sampling 'fps' expects a rate above 0, got {self.fps}")
        start, end = self.start_s or 0.0, self.end_s
        if not start >= 0 or (end is not None and not end > start):
            raise ConfigError(f"start_s, end_s: expected 0 <= start_s < end_s, got {self.start_s} and {self.end_s}")

    def count(self, num_frames: int, fps: float) -> int:
        """How many indices `indices` returns at most; known without making them."""
        first, last = self.window(num_frames, fps)
        total = last - first
        if self.kind == "all":
            count = total
        elif self.kind == "fps":
            count = math.ceil(total / min(max(1.0, fps // (self.fps or 1.0)), total))
        else:
            count = self.num_frames if self.kind in ("middle", "linspace") else min(self.num_frames, total)
        return count if self.max_frames is None else min(count, self.max_frames)

    def indices(self, num_frames: int, fps: float) -> tuple[int, ...]:
        """Ascending indices of the frames to look at.

        Args:
            num_frames: how many the video has.
            fps: its rate; used by start_s, end_s and `fps`.

        Raises:
            MediaError: the video has no frame, or none between start_s and end_s.
        """
        first, last = self.window(num_frames, fps)
        total = last - first
        match self.kind:
            case "uniform":
                picked = uniform(self.num_frames, total)
            case "middle":
                picked = middle(self.num_frames, total)
            case "linspace":
                picked = np.linspace(0, total - 1, self.num_frames).astype(int).tolist()
            case "head_tail":
                picked = head_tail(self.num_frames, total, self.seed)
            case "fps":
                picked = every(max(1.0, fps // (self.fps or 1.0)), total)
            case "all":
                picked = range(total)
        if self.max_frames is not None and len(picked) > self.max_frames:
            picked = [picked[i] for i in uniform(self.max_frames, len(picked))]
        return tuple(first + int(index) for index in picked)

    def window(self, num_frames: int, fps: float) -> tuple[int, int]:
        """First index and end (exclusive) of the part between start_s and end_s."""
        if num_frames < 1:
            raise MediaError("the video has 0 frames; expected at least one")
        # A start between two frames means the one on screen then; 1e-6 absorbs 0.1 * 30 = 3.0000000000000004.
        first = 0 if self.start_s is None else math.floor(self.start_s * fps + 1e-6)
        last = num_frames if self.end_s is None else min(num_frames, math.ceil(self.end_s * fps - 1e-6))
        if first >= last:
            length = num_frames / fps if fps else 0.0
            raise MediaError(
                f"no frame between start_s={self.start_s} and end_s={self.end_s}; the video is {length:.2f} s long"
            )
        return first, last


def uniform(num_frames: int, total: int) -> list[int]:
    """The first frame of each of n equal segments.

    Source: Video-LLaMA's `load_video`. It steps by a float and for some sizes returns one index too many, at times
    past the end (7 of 17, for one); here there are never more than n.
    """
    count = min(num_frames, total)
    return np.arange(0, total, total / count).astype(int)[:count].tolist()


def middle(num_frames: int, total: int) -> list[int]:
    """The middle of each of n segments of the span from the first to the last frame.

    Source: VideoLLaMA2's `frame_sample`; 1e-6 is its guard against halves rounded to even.
    """
    segment = (total - 1) / num_frames
    starts = segment * np.arange(num_frames)
    return np.round((starts + segment * (np.arange(num_frames) + 1)) / 2 + 1e-6).astype(int).tolist()


def head_tail(num_frames: int, total: int, seed: int | None) -> list[int]:
    """n // 2 random frames of the first half and as many of the second, each sorted. An odd n gives n - 1.

    Source: Video-LLaMA's `load_video`, with Python's own generator so that a seed gives the published frames.
    """
    if total == 1:  # The first half of one frame is empty.
        return [0]
    half, generator = min(num_frames, total) // 2, random.Random(seed)
    head = sorted(generator.sample(range(total // 2), half))
    return (head + sorted(generator.sample(range(total // 2, total), half))) or [0]


def every(step: float, total: int) -> list[int]:
    """One frame of each segment of `step` frames, from its middle.

    Source: VideoLLaMA2's `frame_sample` in fps mode; a float step is truncated value by value.
    """
    step = min(step, total)
    return [int(index) for index in np.arange(step // 2, total, step, dtype=int)]


def time_message(indices: Sequence[int], fps: float) -> str:
    """Video-LLaMA's sentence about the sampled times, with the space that ends it.

    Source: Video-LLaMA's `load_video`: round(index / fps, 1) in Python's rounding.
    """
    seconds = ", ".join(str(round(index / fps, 1)) for index in indices)
    return f"The video contains {len(indices)} frames sampled at {seconds} seconds. "
