"""Exact frames out of a video track, from one wanted moment to the next: by its index, by a walk, or in turn."""

import logging
import os
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence

import av
import numpy as np
from av import VideoCodecContext, VideoFrame, VideoStream
from av.container import InputContainer
from jaxtyping import Int64

from avllm.errors import MediaError
from avllm.media.container import Damage, decoded, packets_of
from avllm.media.source import Source
from avllm.media.timeline import Timeline
from avllm.media.walk import Track, packets_from

logger = logging.getLogger(__name__)

# A keyframe nearer than this ahead is reached by decoding on: a seek empties the decoder's pipeline.
_NEAR_FRAMES = 8
# FFmpeg starts one thread more than there are cores. On few cores more of them keep the pipeline filled while frames
# that nobody wants pass through it: a tenth faster on 2 cores, for 1.4 MB (benchmarks/decode.py).
_NUM_THREADS = 4 if (os.cpu_count() or 1) < 4 else 0


class OffGrid(Exception):
    """The frames do not lie where the index promised."""


class EndsEarly(Exception):
    """The track ends before the length that the container states for the whole file."""


class Miscounted(Exception):
    """What was taken for frames is not what the decoder makes of them: only decoding tells."""


class FrameReader:
    """Walks a video track from one wanted timestamp to the next. This one decodes it in turn and counts its frames.

    Args:
        container: a freshly opened file.
        stream: the track.
        source: for messages.
        timeline: of the track.
        damage: counts what cannot be decoded.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, source: Source, timeline: Timeline, damage: Damage
    ) -> None:
        self.container, self.stream, self.source, self.timeline = container, stream, source, timeline
        self.damage = damage
        self.context = stream.codec_context
        if not self.context.is_open:  # It is where an earlier attempt was made.
            self.context.thread_type = "AUTO"
            self.context.thread_count = _NUM_THREADS
        # Other libraries' decoders take such a wish once, when they are opened.
        self.may_skip = not self.context.name.startswith("lib")
        self.wanted: Sequence[int] = ()
        self.timestamp = timeline.start
        self.num_counted = 0
        self.restart(has_sought=False)

    def frames(self, timestamps: Sequence[int]) -> Iterator[VideoFrame]:
        """For each wanted timestamp, ascending, the frame that is on screen then."""
        self.wanted = timestamps
        for timestamp in timestamps:
            if self.is_far(timestamp):
                self.seek(timestamp)
            yield self._reach(timestamp)

    def restart(self, *, has_sought: bool) -> None:
        """Forgets what was read, after a seek and at the start."""
        self.has_sought = has_sought
        self.current: VideoFrame | None = None
        self.pending: VideoFrame | None = None
        # Frames before the keyframe on which a seek landed need those of the group before it: they come out broken.
        self.key_timestamp: int | None = None
        self.decoded = self.decode()

    def close(self) -> None:
        """Ends reading; the decoder is freed at once, and not when cycles are looked for."""
        self.decoded.close()

    def is_far(self, target: int) -> bool:
        """Whether a keyframe lies between here and the target."""
        return False

    def seek(self, target: int) -> None:
        """Goes to the last keyframe from which the target can be decoded."""

    def seek_back(self, target: int) -> None:
        """Goes further back: the last seek landed behind the target."""
        raise Miscounted

    def decode(self) -> Generator[VideoFrame, None, None]:
        """Frames in the order of showing."""
        return frames_in_turn(self.container, self.stream, self.damage)

    def timestamp_of(self, frame: VideoFrame) -> int:
        """When a frame that was just decoded is shown."""
        self.num_counted += 1
        if self.timeline.moments is not None:
            return int(self.timeline.moments[min(self.num_counted, len(self.timeline.moments)) - 1])
        return self.timeline.start + round((self.num_counted - 1) * self.timeline.step)

    def between(self) -> None:
        """No frame begins at the target. Raises what follows from it."""
        raise Miscounted

    def at_end(self, target: int) -> None:
        """The track ended before the target. Raises what follows from it, or the last frame stays on screen."""
        raise Miscounted

    def _reach(self, target: int) -> VideoFrame:
        tolerance = self.timeline.tolerance
        while self.current is None or self.timestamp < target - tolerance:
            frame = self.pending or next(self.decoded, None)
            self.pending = None
            if frame is not None:
                timestamp = self.timestamp_of(frame)
                if timestamp <= target + tolerance:
                    is_broken = self.key_timestamp is not None and self.has_sought and timestamp < self.key_timestamp
                    if not is_broken:
                        self.current, self.timestamp = frame, timestamp
                    continue
            if self.current is None and self.has_sought:
                self.seek_back(target)
                continue
            if frame is None:
                self.at_end(target)
                if self.current is None:
                    raise self.truncated()
                return self.current
            self.between()
            # The frame before is still on screen; before the first, the first is it.
            if self.current is not None:
                self.pending = frame
                return self.current
            self.current, self.timestamp = frame, timestamp
        return self.current

    def is_wanted(self, timestamp: int) -> bool:
        """Whether the frame at this timestamp is asked for."""
        place = bisect_left(self.wanted, timestamp - self.timeline.tolerance)
        return place < len(self.wanted) and self.wanted[place] <= timestamp + self.timeline.tolerance

    def truncated(self) -> MediaError:
        """The error of a file that holds less than it states."""
        if self.current is None and self.damage.reason:
            return MediaError(
                f"{self.source.name}: no frame could be decoded ({self.damage.reason}); the file is damaged or"
                f" truncated; make or download it again"
            )
        at_s, length_s = (self.timestamp - self.timeline.start) * self.timeline.tick, self.timeline.duration_s
        return MediaError(
            f"{self.source.name}: truncated: frames end after {float(at_s):.2f} s of the {length_s:.2f} s that the file"
            f" states; make or download it again"
        )


class IndexedReader(FrameReader):
    """Reads a file that has an index by seeking to timestamps; only groups with a wanted frame are decoded."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, source: Source, timeline: Timeline, damage: Damage
    ) -> None:
        # Decoding times run ahead of showing times by a constant where frames are reordered.
        entries = stream.index_entries
        self.delay = timeline.start - entries[0].timestamp if len(entries) else 0
        self.near = round(_NEAR_FRAMES * timeline.step)
        self.longest_gop = self.back = 0
        self.can_seek = True
        self.has_no_times = container.format.name == "avi"  # but decodes in the order of showing if it comes here
        super().__init__(container, stream, source, timeline, damage)

    def restart(self, *, has_sought: bool) -> None:
        self.last_dts: int | None = None
        super().restart(has_sought=has_sought)

    def is_far(self, target: int) -> bool:
        self.back = 0
        if self.key_timestamp is not None:
            self.longest_gop = max(self.longest_gop, self.timestamp - self.key_timestamp)
        if not self.can_seek or target - self.timestamp <= self.near:
            return False
        entries = self.stream.index_entries
        count = len(entries)
        if not count or entries[count - 1].timestamp < target - self.delay:
            # No index, or (Matroska) none before the first seek: learn how far apart keyframes are.
            return target - self.timestamp > self.longest_gop
        key = entries.search_timestamp(target - self.delay, backward=True, any_frame=False)
        here = self.last_dts if self.last_dts is not None else entries[0].timestamp
        return key >= 0 and entries[key].timestamp > here

    def seek(self, target: int) -> None:
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except av.FFmpegError as error:
            logger.debug("%s: cannot seek (%s), decoding on", self.source.name, error.strerror)
            self.can_seek = False
        else:
            self.restart(has_sought=True)

    def seek_back(self, target: int) -> None:
        if not self.can_seek:
            raise Miscounted
        self.back = max(2 * self.back, self.longest_gop, round(1 / self.timeline.tick))
        entries = self.stream.index_entries
        first = min(self.timeline.start, entries[0].timestamp) if len(entries) else self.timeline.start
        self.seek(max(target - self.back, first))
        self.has_sought = target - self.back > first

    def between(self) -> None:
        if self.timeline.is_exact:
            raise OffGrid

    def at_end(self, target: int) -> None:
        entries, missing = self.stream.index_entries, target - self.timestamp
        if self.stream.frames and len(entries):
            ends_early = self.last_dts is None or self.last_dts < entries[len(entries) - 1].timestamp
            if ends_early and not self.has_no_times:
                raise self.truncated()
            if self.timeline.is_exact and not self.damage.count:
                raise Miscounted
        elif not self.timeline.is_stated and (self.current is None or missing > 2 * self.timeline.step):
            raise EndsEarly
        elif missing * self.timeline.tick > 2 and missing > 10 * self.timeline.step:
            raise self.truncated()

    def decode(self) -> Generator[VideoFrame, None, None]:
        """Frames in the order of showing. Frames that no other needs and nobody wants are not decoded at all."""
        may_skip, skipping = self.may_skip and self.timeline.is_exact and self.can_seek, False
        self.context.skip_frame = "DEFAULT"
        for packet in packets_of(self.container, self.stream, self.damage):
            if packet.size:
                self.last_dts = packet.dts if packet.dts is not None else self.last_dts
                if self.has_no_times:
                    packet.pts = packet.dts
                if self.key_timestamp is None and packet.is_keyframe:
                    self.key_timestamp = packet.pts if packet.pts is not None else packet.dts
                if self.has_sought and self.key_timestamp is None:
                    continue
                skip = may_skip and packet.pts is not None and not self.is_wanted(packet.pts)
                if skip != skipping:
                    self.context.skip_frame, skipping = ("NONREF" if skip else "DEFAULT"), skip
            yield from decoded(packet, self.damage)
        yield from _left_over(self.context, self.damage)

    def timestamp_of(self, frame: VideoFrame) -> int:
        time = frame.pts if frame.pts is not None else frame.dts
        if time is None:
            raise Miscounted
        return time


class WalkedReader(FrameReader):
    """Reads a file that was walked through: every keyframe is known by its bytes.

    Args:
        container: the file.
        stream: the track in it.
        source: for messages.
        timeline: of the walk.
        damage: counts what cannot be decoded.
        track: what was met on the walk.
        is_fresh: the container was opened anew; it is read from its start on, without a seek.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        source: Source,
        timeline: Timeline,
        damage: Damage,
        *,
        track: Track,
        is_fresh: bool,
    ) -> None:
        self.track, self.is_fresh = track, is_fresh
        self.order: Int64[np.ndarray, " n"] = np.argsort(track.times, kind="stable")
        # The first packet starts the decoder, whatever it is.
        self.keys = sorted({0, *track.keys})
        self.key = self.here = 0
        super().__init__(container, stream, source, timeline, damage)

    def is_far(self, target: int) -> bool:
        key = self._key_of(target)
        is_unread = self.here == 0 and not self.is_fresh
        return (is_unread or self.keys[key] > self.here) and not self.is_fresh

    def seek(self, target: int) -> None:
        self.key = self._key_of(target)
        self.restart(has_sought=self.key > 0)

    def seek_back(self, target: int) -> None:
        self.key = max(0, self.key - max(1, self._key_of(target) - self.key))
        self.restart(has_sought=self.key > 0)

    def decode(self) -> Generator[VideoFrame, None, None]:
        """Frames in the order of showing. Frames that no other needs and nobody wants are not decoded at all."""
        first, skipping = self.keys[self.key], False
        if first > 0:
            self.key_timestamp = int(self.track.times[first])
        self.context.skip_frame = "DEFAULT"
        packets = packets_from(self.container, self.stream, self.track, first, self.damage, is_fresh=self.is_fresh)
        for self.here, packet in packets:
            if packet.size:
                skip = self.may_skip and packet.pts is not None and not self.is_wanted(packet.pts)
                if skip != skipping:
                    self.context.skip_frame, skipping = ("NONREF" if skip else "DEFAULT"), skip
            yield from decoded(packet, self.damage)
        yield from _left_over(self.context, self.damage)

    def timestamp_of(self, frame: VideoFrame) -> int:
        if frame.pts is None:
            raise Miscounted
        return frame.pts

    def _key_of(self, target: int) -> int:
        """Place among the keyframes of the last one from which the frame of this timestamp can be decoded."""
        packet = int(self.order[np.searchsorted(self.track.times, target, sorter=self.order)])
        place = bisect_left(self.keys, packet + 1) - 1
        while place > 0 and self.track.times[self.keys[place]] > target:
            place -= 1
        return place


def frames_in_turn(container: InputContainer, stream: VideoStream, damage: Damage) -> Generator[VideoFrame, None, None]:
    """All frames that come out of the decoder of a freshly opened file."""
    for packet in packets_of(container, stream, damage):
        yield from decoded(packet, damage)
    yield from _left_over(stream.codec_context, damage)


def _left_over(context: VideoCodecContext, damage: Damage) -> list[VideoFrame]:
    """What the decoder still holds where a file breaks off; at its proper end it is drained already."""
    if not damage.count:
        return []
    try:
        return context.decode(None)
    except av.FFmpegError:
        return []
