"""Which frames of a video a system looks at: arithmetic on a count and a rate, no files."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from avllm.config import check_choice
from avllm.errors import ConfigError, MediaError

Kind: TypeAlias = Literal[
    "uniform",
    "middle",
    "half_step",
    "linspace",
    "head_tail",
    "interval_middle",
    "interval_random",
    "fps",
    "fps_time",
    "all",
]
Keep: TypeAlias = Literal["spread", "first", "refuse"]
_LOWEST_FPS, _HIGHEST_FPS = 1e-6, 1e6
# Kinds that may give fewer than n frames; the others repeat indices or take no n.
_AT_MOST_N: frozenset[Kind] = frozenset({"uniform", "head_tail"})


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How frames are picked.

    `uniform`: the first frame of each of n equal segments; short videos yield fewer frames (Video-LLaMA).
    `middle`: the middle of each of n segments; indices repeat in short videos (VideoLLaMA 2).
    `half_step`: n equal steps, the first of them half as long; indices repeat in short videos (VideoChat).
    `linspace`: from the first frame to the last, both included; indices repeat in short videos (Video-LLaVA).
    `head_tail`: n // 2 random frames of each half, sorted (Video-LLaMA's training option).
    `interval_middle`: the middle of each of n intervals of whole frames; short videos end in copies of the last index
    (VideoChat's training).
    `interval_random`: a random frame of each of those intervals (VideoChat's training).
    `fps`: the middle of each segment of 1 / fps seconds, in whole frames (VideoLLaMA 2).
    `fps_time`: the same, in seconds (VideoChat's training).
    `all`: every frame.

    Args:
        kind: see above.
        num_frames: n; `fps`, `fps_time` and `all` do not use it.
        fps: frames per second for `fps` and `fps_time`.
        start_s: the part of the video to look at, in seconds from its start.
        end_s: where that part ends, exclusive.
        starts_early: begins a frame before the one that is on screen at start_s, and ends with the last frame that is
            over at end_s (VideoLLaMA 2, see `avllm.model.quirks`).
        max_frames: most frames taken.
        keep: which of more than max_frames: `spread` thins them out evenly, `first` cuts them off, `refuse` takes none.
        seed: of `head_tail` and `interval_random`.
    """

    kind: Kind = "uniform"
    num_frames: int = 8
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    starts_early: bool = False
    max_frames: int | None = None
    keep: Keep = "spread"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("sampling", self.kind, get_args(Kind))
        check_choice("keep", self.keep, get_args(Keep))
        _check_counts(num_frames=self.num_frames, max_frames=self.max_frames, seed=self.seed)
        _check_numbers(fps=self.fps, start_s=self.start_s, end_s=self.end_s)
        if self.num_frames < 1:
            raise ConfigError(f"num_frames: expected at least 1, got {self.num_frames}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max_frames: expected at least 1, got {self.max_frames}")
        if self.kind in ("fps", "fps_time") and not _LOWEST_FPS <= (self.fps or 0.0) <= _HIGHEST_FPS:
            raise ConfigError(
                f"fps: sampling {self.kind!r} expects a rate above 0, {_LOWEST_FPS:g} to {_HIGHEST_FPS:g};"
                f" got {self.fps}"
            )
        start, end = self.start_s or 0.0, self.end_s
        if not start >= 0 or (end is not None and not end > start):
            raise ConfigError(f"start_s, end_s: expected 0 <= start_s < end_s, got {self.start_s} and {self.end_s}")

    @property
    def is_exact(self) -> bool:
        """Whether every video gives `num_frames` frames, however short it is."""
        return self.max_frames is None and self.kind not in (*_AT_MOST_N, "fps", "fps_time", "all")

    def count(self, num_frames: int, fps: float) -> int:
        """How many indices `indices` returns at most; known without making them."""
        first, last = self.window(num_frames, fps)
        total = last - first
        if self.kind == "all":
            count = total
        elif self.kind == "fps":
            count = math.ceil(total / min(max(1.0, fps // (self.fps or 1.0)), total))
        elif self.kind == "fps_time":
            count = math.ceil(total / fps * (self.fps or 1.0)) + 1
        else:
            count = min(self.num_frames, total) if self.kind in _AT_MOST_N else self.num_frames
        return count if self.max_frames is None else min(count, self.max_frames)

    def indices(self, num_frames: int, fps: float) -> tuple[int, ...]:
        """Ascending indices of the frames to look at.

        Args:
            num_frames: how many the video has.
            fps: its rate; used by start_s, end_s and `fps`.

        Raises:
            MediaError: the video has no frame, or none between start_s and end_s.
            ConfigError: there are more than max_frames, and `keep` is `refuse`.
        """
        first, last = self.window(num_frames, fps)
        total = last - first
        match self.kind:
            case "uniform":
                picked = uniform(self.num_frames, total)
            case "middle":
                picked = middle(self.num_frames, total)
            case "half_step":
                picked = half_step(self.num_frames, total)
            case "linspace":
                picked = np.linspace(0, total - 1, self.num_frames).astype(int).tolist()
            case "head_tail":
                picked = head_tail(self.num_frames, total, self.seed)
            case "interval_middle":
                middles = [(start + end - 1) // 2 for start, end in intervals(self.num_frames, total)]
                picked = padded(middles, self.num_frames)
            case "interval_random":
                picked = padded(interval_random(self.num_frames, total, self.seed), self.num_frames)
            case "fps":
                picked = every(max(1.0, fps // (self.fps or 1.0)), total)
            case "fps_time":
                picked = every_seconds(1 / (self.fps or 1.0), total, fps)
            case "all":
                picked = range(total)
        if self.max_frames is not None and len(picked) > self.max_frames:
            if self.keep == "refuse":
                raise ConfigError(
                    f"sampling {self.kind}{f' at {self.fps:g} fps' if self.fps else ''} takes {len(picked)} frames of "
                    f"this video, more than the {self.max_frames} that fit; give max_frames={self.max_frames} to thin "
                    f"them out, or a lower fps"
                )
            kept = uniform(self.max_frames, len(picked)) if self.keep == "spread" else range(self.max_frames)
            picked = [picked[i] for i in kept]
        return tuple(first + int(index) for index in picked)

    def window(self, num_frames: int, fps: float) -> tuple[int, int]:
        """First index and end (exclusive) of the part between start_s and end_s."""
        if num_frames < 1:
            raise MediaError("the video has 0 frames; expected at least one")
        # A start between two frames means the one on screen then; 1e-6 absorbs 0.1 * 30 = 3.0000000000000004.
        first = 0 if self.start_s is None else math.floor(self.start_s * fps + 1e-6)
        last = num_frames if self.end_s is None else min(num_frames, math.ceil(self.end_s * fps - 1e-6))
        if self.starts_early:
            first = max(int((self.start_s or 0.0) * fps) - 1, 0)
            last = num_frames if self.end_s is None else min(num_frames, int(self.end_s * fps))
        if first >= last:
            length = num_frames / fps if fps else 0.0
            raise MediaError(
                f"no frame between start_s={self.start_s} and end_s={self.end_s}; the video is {length:.2f} s long"
            )
        return first, last


def _check_counts(**given: object) -> None:
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
            raise ConfigError(f"{name}: expected a whole number, got {value!r}")


def _check_numbers(**given: Any) -> None:
    for name, value in given.items():
        if value is None:
            continue
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or not abs(value) < float("inf"):
            raise ConfigError(f"{name}: expected a number, got {value!r}")


def uniform(num_frames: int, total: int) -> list[int]:
    """The first frame of each of n equal segments.

    Source: Video-LLaMA's `load_video`. It steps by a float and for some sizes returns one index too many, at times
    past the end (7 of 17, for one); here there are never more than n.
    """
    count = min(num_frames, total)
    return np.arange(0, total, total / count).astype(int)[:count].tolist()


def middle(num_frames: int, total: int) -> list[int]:
    """The middle of each of n segments of the span from the first to the last frame.

    Source: VideoLLaMA 2's `frame_sample`; 1e-6 is its guard against halves rounded to even.
    """
    segment = (total - 1) / num_frames
    starts = segment * np.arange(num_frames)
    return np.round((starts + segment * (np.arange(num_frames) + 1)) / 2 + 1e-6).astype(int).tolist()


def half_step(num_frames: int, total: int) -> list[int]:
    """n equal steps over the span from the first to the last frame, begun half a step late.

    Source: the demo of VideoChat; halves are rounded to even, the late start is rounded down.
    """
    step = (total - 1) / num_frames
    return (int(step / 2) + np.round(step * np.arange(num_frames)).astype(int)).tolist()


def intervals(num_frames: int, total: int) -> list[tuple[int, int]]:
    """First frame and end (exclusive) of each of n intervals, as equal as whole frames allow; never an empty one."""
    edges = np.linspace(0, total, min(num_frames, total) + 1).astype(int).tolist()
    return list(pairwise(edges))


def interval_random(num_frames: int, total: int, seed: int | None) -> list[int]:
    """A random frame of each interval; never its last one, unless it has no other.

    Source: VideoChat's training, with Python's own generator so that a seed gives the published frames. Where an
    interval has one frame, the published code draws all frames without regard to intervals.
    """
    generator = random.Random(seed)
    return [generator.choice(range(start, max(end - 1, start + 1))) for start, end in intervals(num_frames, total)]


def padded(picked: list[int], num_frames: int) -> list[int]:
    """As many indices as were asked for: the last one is repeated."""
    return picked + [picked[-1]] * (num_frames - len(picked))


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

    Source: VideoLLaMA 2's `frame_sample` in fps mode; a float step is truncated value by value.
    """
    step = min(step, total)
    return [int(index) for index in np.arange(step // 2, total, step, dtype=int)]


def every_seconds(step_s: float, total: int, fps: float) -> list[int]:
    """The frame nearest to the middle of each `step_s` seconds; of a video shorter than half of that, its middle.

    Source: VideoChat's training; halves are rounded to even.
    """
    middles = np.arange(step_s / 2, total / fps + step_s / 2, step_s)
    picked = np.around(middles * fps).astype(int)
    return picked[picked < total].tolist() or [total // 2]


def time_message(indices: Sequence[int], fps: float) -> str:
    """Video-LLaMA's sentence about the sampled times, with the space that ends it.

    Source: Video-LLaMA's `load_video`: round(index / fps, 1) in Python's rounding.
    """
    seconds = ", ".join(str(round(index / fps, 1)) for index in indices)
    return f"The video contains {len(indices)} frames sampled at {seconds} seconds. "
