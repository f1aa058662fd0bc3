"""Where the frames of a video track lie in time, without any of them being decoded."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from av import VideoStream
from av.container import InputContainer
from jaxtyping import Int64

from avllm.errors import MediaError
from avllm.media.container import duration_seconds, goes_on_after_segment, rate_of, seconds_per_tick, tagged_seconds
from avllm.media.source import Source
from avllm.media.walk import NO_TIME, Track

_CHECKED_ENTRIES = 2000
# Their index is read when they are opened, or leads to where packets are; all other formats are walked through.
_INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})
# A few frames that were lost on the way, or whose times were, do not make a varying rate.
_USUAL_SHARE, _MOST_LATE_S = 0.9, Fraction(1, 4)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Frame numbers to timestamps. All timestamps count `tick` seconds.

    Args:
        num_frames: exact, or estimated from length and rate.
        fps: frames per second on average.
        start: timestamp of the first frame.
        step: distance of two frames.
        tolerance: how far a frame may lie from its number's timestamp and still be it.
        is_exact: every frame is known to lie on the grid; else the file is sampled by time.
        is_stated: the length is what the track itself states, so an earlier end means a truncated file.
        tick: seconds of one count.
        moments: timestamps of all frames where they were met one by one; the grid is not used for frames then.
        paused: how much longer the last frames before a join stay on screen than others.
        is_counted: frames carry no timestamps that mean anything; what counts is how many came before.
    """

    num_frames: int
    fps: float
    start: int
    step: Fraction
    tolerance: int
    is_exact: bool
    is_stated: bool
    tick: Fraction
    moments: Int64[np.ndarray, " n"] | None = None
    paused: Fraction = Fraction(0)
    is_counted: bool = False

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float((self.num_frames * self.step + self.paused) * self.tick)

    def timestamps(self, indices: Sequence[int], start_s: float = 0.0) -> list[int]:
        """When the frames of these numbers begin; where numbers are estimates, not before `start_s`."""
        if self.moments is not None and self.is_exact:
            return [int(self.moments[index]) for index in indices]
        # The frame on screen at start_s has begun then.
        earliest = 0 if self.is_exact else round(start_s / self.tick) - self.tolerance
        even = [self.start + max(earliest, round(index * self.step)) for index in indices]
        if self.moments is None:
            return even
        shown = [bisect_right(self.moments, time + self.tolerance) - 1 for time in even]
        return [int(self.moments[max(0, place)]) for place in shown]


def is_indexed(container: InputContainer, stream: VideoStream, source: Source) -> bool:
    """Whether the file itself says where its pictures are and how long they last in all."""
    name = container.format.name
    if name not in _INDEXED:
        return False
    if name == "matroska,webm":
        # Without a stated rate FFmpeg guesses one from the first frames.
        is_guessed = not stream.average_rate or stream.average_rate != stream.base_rate
        if is_guessed or goes_on_after_segment(source):
            return False
        return tagged_seconds(stream) is not None or (len(container.streams) == 1 and bool(container.duration))
    return bool(stream.frames and len(stream.index_entries))  # An mp4 of fragments counts none.


def read_timeline(container: InputContainer, stream: VideoStream, source: Source, *, by_time: bool = False) -> Timeline:
    """Reads what the container says.

    Args:
        by_time: do not trust the grid of a constant rate.

    Raises:
        MediaError: the track has no clock.
    """
    if not stream.time_base:
        raise MediaError(f"{source.name}: the video track has no clock; the file is damaged")
    tick = seconds_per_tick(stream)
    if container.format.name == "avi" and not by_time:
        return _avi_timeline(stream, source)
    start = stream.start_time if stream.start_time is not None else 0
    constant = None if by_time else _constant_step(stream)
    if constant is not None:
        step, num_shown = constant
        return Timeline(
            num_frames=num_shown,
            fps=float(1 / (step * tick)),
            start=start,
            step=Fraction(step),
            tolerance=(step - 1) // 2,
            is_exact=True,
            is_stated=True,
            tick=tick,
        )
    rate = stated_rate(stream)
    seconds = duration_seconds(container, stream) or float(stream.frames / rate)
    return Timeline(
        num_frames=max(1, round(seconds * rate)),
        fps=float(rate),
        start=start,
        step=1 / (rate * tick),
        # Matroska rounds times to milliseconds; more than that would show a frame before its time.
        tolerance=round(Fraction(2, 1000) / tick),
        is_exact=False,
        is_stated=bool(stream.duration) or tagged_seconds(stream) is not None,
        tick=tick,
    )


def timeline_of_track(track: Track, stream: VideoStream, source: Source, *, since: int | None = None) -> Timeline:
    """What a walk through the file found out.

    Args:
        track: what was met.
        stream: the same track, for the rate where it is the only thing known.
        source: for messages.
        since: when the first frame that can be decoded is shown.

    Raises:
        MediaError: the track has no frame.
    """
    if not track.num_packets:
        raise MediaError(f"{source.name}: the video track has 0 frames; the file is empty or truncated")
    shown = np.ones(track.num_packets, bool)
    shown[[*track.hidden, *track.headers]] = False
    times = np.sort(track.times[shown])
    if not len(times) or times[0] == NO_TIME or (np.diff(times) == 0).any():
        step = Fraction(max(0, track.total), track.num_packets) or 1 / (stated_rate(stream) * track.tick)
        start = track.parts[0].start if track.parts else 0
        return counted(int(shown.sum()), step, track.tick, start)
    times = times if since is None else times[times >= since]
    edges = [part.start + part.shift for part in track.parts[1:]]
    return timeline_of_moments(times, track.tick, edges, 1 / (stated_rate(stream) * track.tick))


def timeline_of_moments(
    moments: Int64[np.ndarray, " n"], tick: Fraction, edges: Sequence[int], only_step: Fraction
) -> Timeline:
    """A timeline of frames that are all known.

    Args:
        moments: their timestamps, ascending.
        tick: seconds of one count.
        edges: timestamps at which another recording begins; a short gap before it is no frame that was left out.
        only_step: how long a single frame lasts.
    """
    count = len(moments)
    groups = [group for group in np.split(moments, np.searchsorted(moments, edges)) if len(group)]
    step = _even_step(groups, tick) if count > len(groups) else only_step
    is_even = step is not None
    paused = Fraction(0)
    if step is None:
        step = Fraction(int(moments[-1] - moments[0]), count - 1)
    else:
        paused = sum((int(b[0] - a[-1]) - step for a, b in pairwise(groups)), Fraction(0))
    return Timeline(
        num_frames=count,
        fps=float(1 / (step * tick)),
        start=int(moments[0]),
        step=step,
        tolerance=0 if is_even else round(Fraction(2, 1000) / tick),
        is_exact=is_even,
        is_stated=True,
        tick=tick,
        moments=moments,
        paused=paused,
    )


def _even_step(groups: list[np.ndarray], tick: Fraction) -> Fraction | None:
    """The step of frames that are so evenly spaced that their number tells their time; None if it does not."""
    pauses = [int(after[0] - before[-1]) for before, after in pairwise(groups)]
    if any(pause * tick > _MOST_LATE_S for pause in pauses):
        return None
    steps = np.concatenate([np.diff(group) for group in groups])
    step = Fraction(int(steps.sum()), len(steps))
    # Clocks count whole ticks, some encoders stumble: a quarter of a step leaves no doubt which frame is which.
    if all(np.abs(group - group[0] - np.arange(len(group)) * float(step)).max() <= step / 4 for group in groups):
        return step
    usual = Fraction(int(np.median(steps)))
    is_usual = np.abs(steps - float(usual)) <= usual / 4
    if is_usual.mean() < _USUAL_SHARE or abs(int(steps.sum()) - len(steps) * usual) * tick > _MOST_LATE_S:
        return None
    return Fraction(int(steps[is_usual].sum()), int(is_usual.sum()))


def counted(num_frames: int, step: Fraction, tick: Fraction, start: int = 0) -> Timeline:
    """A timeline of frames of which only the number and the rate are known."""
    return Timeline(
        num_frames=num_frames,
        fps=float(1 / (step * tick)),
        start=start,
        step=step,
        tolerance=0,
        is_exact=True,
        is_stated=True,
        tick=tick,
        is_counted=True,
    )


def stated_rate(stream: VideoStream) -> Fraction:
    """Frames per second as the track states them, or the usual ones."""
    return rate_of(stream) or Fraction(25)


def _avi_timeline(stream: VideoStream, source: Source) -> Timeline:
    """AVI numbers its frames in the order of decoding, and has no times of showing.

    What FFmpeg makes up for reordered frames is wrong: they are counted from the start.
    """
    tick = seconds_per_tick(stream)
    numbers = np.array([entry.timestamp for entry in stream.index_entries if entry.size], np.int64)
    step = 1 / (stated_rate(stream) * tick)
    if not len(numbers):
        raise MediaError(f"{source.name}: its index lists no frames; the file is empty or damaged")
    if stream.codec_context.has_b_frames or (np.diff(numbers) <= 0).any():
        return counted(len(numbers), step, tick)
    return timeline_of_moments(numbers, tick, [], step)


def _constant_step(stream: VideoStream) -> tuple[int, int] | None:
    """Distance of two frames, and how many are shown, when the index of the file proves that all are alike.

    The index holds decoding times: those of a constant rate are equally far apart whatever the order of the frames.
    """
    entries, count = stream.index_entries, stream.frames
    if count < 2 or len(entries) != count:
        return None
    first, step = entries[0].timestamp, entries[1].timestamp - entries[0].timestamp
    stride = max(1, count // _CHECKED_ENTRIES)
    num_shown = count
    if any(entries[number].is_discard for number in (*range(min(count, 64)), *range(max(0, count - 64), count))):
        num_shown -= sum(entry.is_discard for entry in entries)  # An edit list cuts them off.
    # The last steps of the index are guesses of the encoder where frames are reordered; the length is none.
    if step < 1 or num_shown < 1 or abs((stream.duration or 0) - num_shown * step) > step:
        return None
    if any(entries[number].timestamp != first + number * step for number in (*range(0, count, stride), count - 1)):
        return None
    return step, num_shown
