"""Where the frames of a video track lie in time, as far as the file says so without being decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av import VideoStream
from av.container import InputContainer

from avllm.errors import MediaError
from avllm.media.container import duration_seconds, tagged_seconds
from avllm.media.pyav import as_fraction
from avllm.media.source import Source

_CHECKED_ENTRIES = 2000


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Frame numbers to timestamps. All timestamps count `time_base` seconds.

    Args:
        num_frames: exact, or estimated from length and rate.
        fps: frames per second on average.
        start: timestamp of the first frame.
        step: distance of two frames.
        tolerance: how far a frame may lie from its number's timestamp and still be it.
        is_exact: every frame is known to lie on the grid; else the file is sampled by time.
        is_stated: the length is what the track itself states, so an earlier end means a truncated file.
        time_base: seconds of one count.
    """

    num_frames: int
    fps: float
    start: int
    step: Fraction
    tolerance: int
    is_exact: bool
    is_stated: bool
    time_base: Fraction

    @property
    def duration_s(self) -> float:
        return float(self.num_frames * self.step * self.time_base)

    def timestamps(self, indices: Sequence[int], start_s: float = 0.0) -> list[int]:
        """When the frames of these numbers begin; where numbers are estimates, not before `start_s`."""
        earliest = 0 if self.is_exact else round(start_s / self.time_base)
        return [self.start + max(earliest, round(index * self.step)) for index in indices]


def read_timeline(
    container: InputContainer, stream: VideoStream, source: Source, *, by_time: bool = False, by_walk: bool = False
) -> Timeline:
    """Reads what the container says; a file that says nothing is walked through packet by packet, undecoded.

    Args:
        by_time: do not trust the grid of a constant rate.
        by_walk: do not trust the stated length either.

    Raises:
        MediaError: the track has no frame.
    """
    time_base = as_fraction(stream.time_base)
    if time_base is None:
        raise MediaError(f"{source.name}: the video track has no clock; the file is damaged")
    start = stream.start_time if stream.start_time is not None else 0
    step = None if by_time or by_walk else _constant_step(stream)
    if step is not None:
        return Timeline(
            num_frames=stream.frames,
            fps=float(1 / (step * time_base)),
            start=start,
            step=Fraction(step),
            tolerance=(step - 1) // 2,
            is_exact=True,
            is_stated=True,
            time_base=time_base,
        )
    seconds = duration_seconds(container, stream)
    rate = as_fraction(stream.average_rate) or as_fraction(stream.base_rate) or Fraction(25)
    if by_walk or seconds is None or seconds <= 0:
        return _walked(container, stream, source)
    is_stated = bool(stream.duration) or tagged_seconds(stream) is not None
    return estimated(stream, start, seconds, rate, is_stated=is_stated)


def estimated(stream: VideoStream, start: int, seconds: float, rate: Fraction, *, is_stated: bool) -> Timeline:
    """A timeline from length and average rate."""
    time_base = as_fraction(stream.time_base) or Fraction(1, 1000)
    return Timeline(
        num_frames=max(1, round(seconds * rate)),
        fps=float(rate),
        start=start,
        step=1 / (rate * time_base),
        # Matroska rounds times to milliseconds; more than that would show a frame before its time.
        tolerance=round(Fraction(2, 1000) / time_base),
        is_exact=False,
        is_stated=is_stated,
        time_base=time_base,
    )


def _constant_step(stream: VideoStream) -> int | None:
    """Distance of two frames when the index of the file proves that all are alike.

    The index holds decoding times: those of a constant rate are equally far apart whatever the order of the frames.
    """
    entries, count = stream.index_entries, stream.frames
    if count < 2 or len(entries) != count or entries[0].is_discard or entries[count - 1].is_discard:
        return None
    first, step = entries[0].timestamp, entries[1].timestamp - entries[0].timestamp
    stride = max(1, count // _CHECKED_ENTRIES)
    numbers = [*range(0, count, stride), count - 1]
    # The last steps of the index are guesses of the encoder where frames are reordered; the length is none.
    if step < 1 or abs((stream.duration or 0) - count * step) > step:
        return None
    if any(entries[number].timestamp != first + number * step for number in numbers):
        return None
    return step


def _walked(container: InputContainer, stream: VideoStream, source: Source) -> Timeline:
    times = [p.pts if p.pts is not None else p.dts for p in container.demux(stream) if p.size]
    times = [time for time in times if time is not None]
    if not times:
        raise MediaError(f"{source.name}: the video track has 0 frames; the file is empty or truncated")
    container.seek(0)
    time_base = as_fraction(stream.time_base) or Fraction(1, 1000)
    start, span = min(times), (max(times) - min(times)) * time_base
    rate = (len(times) - 1) / span if span else as_fraction(stream.average_rate) or Fraction(25)
    return estimated(stream, start, float(len(times) / rate), rate, is_stated=True)
