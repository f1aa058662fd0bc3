"""Exact frames out of a container: only the groups of pictures that hold a wanted frame are decoded."""

import logging
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av import VideoFrame, VideoStream
from av.container import InputContainer

from avllm.errors import MediaError
from avllm.media.clips import Video
from avllm.media.container import open_container, origin_seconds, video_stream
from avllm.media.fit import Fit
from avllm.media.limits import Limits
from avllm.media.resize import Shaper
from avllm.media.sampling import Sampling
from avllm.media.source import Source
from avllm.media.timeline import Timeline, read_timeline

logger = logging.getLogger(__name__)

# A keyframe nearer than this ahead is reached by decoding on: a seek empties the decoder's pipeline.
_NEAR_FRAMES = 8
# FFmpeg starts one thread more than there are cores. On few cores more of them keep the pipeline filled while frames
# that nobody wants pass through it: a tenth faster on 2 cores, for 1.4 MB (benchmarks/decode.py).
_NUM_THREADS = 4 if (os.cpu_count() or 1) < 4 else 0


class _OffGrid(Exception):
    """The frames do not lie where the index promised."""


class _EndsEarly(Exception):
    """The track ends before the length that the container states for the whole file."""


def read_container(source: Source, sampling: Sampling, *, how: Fit, limits: Limits) -> Video:
    """Samples the video track of a container; memory does not grow with its length.

    Raises:
        MediaError: no video track, no frame, damaged, truncated, or over a limit.
    """
    by_time, by_walk = False, False
    for _ in range(3):
        with open_container(source, limits) as container:
            stream = video_stream(container, source)
            timeline = read_timeline(container, stream, source, by_time=by_time, by_walk=by_walk)
            try:
                return _sample(container, stream, source, timeline, sampling, how, limits)
            except _OffGrid:
                by_time = True
            except _EndsEarly:
                by_walk = True
            logger.debug("%s: read again by_time=%s by_walk=%s", source.name, by_time, by_walk)
    raise MediaError(f"{source.name}: its times contradict each other; the file is damaged")


def _sample(
    container: InputContainer,
    stream: VideoStream,
    source: Source,
    timeline: Timeline,
    sampling: Sampling,
    how: Fit,
    limits: Limits,
) -> Video:
    width, height = stream.codec_context.width, stream.codec_context.height
    limits.check_pixels(width, height)
    limits.check_seconds(timeline.duration_s)
    count = sampling.count(timeline.num_frames, timeline.fps)
    limits.check_frames(count)
    limits.check_video_bytes(count, *(how.size or (height, width)), how.item_bytes)
    indices = sampling.indices(timeline.num_frames, timeline.fps)
    reader = _Reader(container, stream, source, timeline)
    shaper = Shaper(how, limits)
    frames, times = None, np.zeros(len(indices))
    origin_s, num_corrupt = origin_seconds(container), 0
    wanted = timeline.timestamps(indices, sampling.start_s or 0.0)
    for place, frame in enumerate(reader.frames(wanted)):
        if frame.width * frame.height != width * height:
            limits.check_pixels(frame.width, frame.height)
        pixels = shaper(frame)
        if frames is None:
            limits.check_video_bytes(len(indices), *pixels.shape[:2], item_bytes=how.item_bytes)
            frames = np.empty((len(indices), *pixels.shape), how.dtype)
        frames[place] = pixels
        times[place] = float(reader.timestamp * timeline.time_base) - origin_s
        num_corrupt += frame.is_corrupt
    if frames is None:
        raise MediaError(f"{source.name}: no frame could be decoded; the file is damaged")
    if num_corrupt:
        logger.warning("%s: %d of %d frames are damaged", source.name, num_corrupt, len(indices))
    return Video(
        frames=frames,
        times_s=times,
        duration_s=timeline.duration_s,
        fps=timeline.fps,
        has_audio=bool(container.streams.audio),
        indices=indices,
    )


class _Reader:
    """Walks a video track from one wanted timestamp to the next."""

    def __init__(self, container: InputContainer, stream: VideoStream, source: Source, timeline: Timeline) -> None:
        self.container, self.stream, self.source, self.timeline = container, stream, source, timeline
        self.context = stream.codec_context
        self.context.thread_type = "AUTO"
        self.context.thread_count = _NUM_THREADS
        # Decoding times run ahead of showing times by a constant where frames are reordered.
        entries = stream.index_entries
        self.delay = timeline.start - entries[0].timestamp if len(entries) else 0
        self.near = round(_NEAR_FRAMES * timeline.step)
        self.wanted: Sequence[int] = ()
        self.timestamp = timeline.start
        self.longest_gop = self.num_counted = 0
        # AVI has no times of showing, and what FFmpeg makes up for reordered frames is wrong: count from the start.
        self.is_counted = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
        self.can_seek = not self.is_counted
        self._restart(has_sought=False)

    def frames(self, timestamps: Sequence[int]) -> Iterator[VideoFrame]:
        """For each wanted timestamp, ascending, the frame that is on screen then."""
        self.wanted = timestamps
        for timestamp in timestamps:
            if self._is_far(timestamp):
                self._seek(timestamp)
            yield self._reach(timestamp)

    def _restart(self, *, has_sought: bool) -> None:
        self.has_sought = has_sought
        self.current: VideoFrame | None = None
        self.pending: VideoFrame | None = None
        self.last_dts: int | None = None
        self.key_timestamp: int | None = None
        self.decoded = self._decode()

    def _is_far(self, target: int) -> bool:
        """Whether a keyframe lies between here and the target."""
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

    def _seek(self, target: int) -> None:
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except av.FFmpegError as error:
            logger.debug("%s: cannot seek (%s), decoding on", self.source.name, error.strerror)
            self.can_seek = False
        else:
            self._restart(has_sought=True)

    def _reach(self, target: int) -> VideoFrame:
        tolerance, back = self.timeline.tolerance, 0
        while self.current is None or self.timestamp < target - tolerance:
            frame = self.pending or next(self.decoded, None)
            self.pending = None
            if frame is None:
                return self._at_end(target)
            timestamp = self._timestamp(frame)
            if timestamp <= target + tolerance:
                self.current, self.timestamp = frame, timestamp
                continue
            if self.current is not None or not self.has_sought:
                return self._between(frame, timestamp)
            # The seek went by decoding times and landed on a keyframe that is shown after the target.
            back = max(2 * back, self.longest_gop, round(1 / self.timeline.time_base))
            self._seek(max(target - back, self.timeline.start))
            self.has_sought = target - back > self.timeline.start
        if self.key_timestamp is not None:
            self.longest_gop = max(self.longest_gop, target - self.key_timestamp)
        return self.current

    def _between(self, after: VideoFrame, timestamp: int) -> VideoFrame:
        """No frame begins at the target: the one before it is still on screen; before the first, the first is it."""
        if self.timeline.is_exact:
            raise _OffGrid
        if self.current is None:
            self.current, self.timestamp = after, timestamp
        else:
            self.pending = after
        return self.current

    def _at_end(self, target: int) -> VideoFrame:
        """The track ended before the target: an error, unless its last frame simply stays on screen."""
        entries, missing = self.stream.index_entries, target - self.timestamp
        if self.stream.frames and len(entries):
            last = entries[len(entries) - 1].timestamp
            if self.timeline.is_exact or self.last_dts is None or self.last_dts < last:
                raise self._truncated()
        elif not self.timeline.is_stated and (self.current is None or missing > 2 * self.timeline.step):
            raise _EndsEarly
        elif missing * self.timeline.time_base > 2 and missing > 10 * self.timeline.step:
            raise self._truncated()
        if self.current is None:
            raise self._truncated()
        return self.current

    def _truncated(self) -> MediaError:
        at_s, length_s = (self.timestamp - self.timeline.start) * self.timeline.time_base, self.timeline.duration_s
        return MediaError(
            f"{self.source.name}: truncated: frames end after {float(at_s):.2f} s of the {length_s:.2f} s that the file"
            f" states; make or download it again"
        )

    def _decode(self) -> Iterator[VideoFrame]:
        """Frames in the order of showing. Frames that no other needs and nobody wants are not decoded at all."""
        may_skip, skipping = self.timeline.is_exact and self.can_seek, False
        self.context.skip_frame = "DEFAULT"
        for packet in self.container.demux(self.stream):
            if packet.size:
                self.last_dts = packet.dts if packet.dts is not None else self.last_dts
                if self.key_timestamp is None and packet.is_keyframe:
                    self.key_timestamp = packet.pts if packet.pts is not None else packet.dts
                if self.has_sought and self.key_timestamp is None:
                    continue
                skip = may_skip and packet.pts is not None and not self._is_wanted(packet.pts)
                if skip != skipping:
                    self.context.skip_frame, skipping = ("NONREF" if skip else "DEFAULT"), skip
            yield from packet.decode()

    def _is_wanted(self, timestamp: int) -> bool:
        place = bisect_left(self.wanted, timestamp - self.timeline.tolerance)
        return place < len(self.wanted) and self.wanted[place] <= timestamp + self.timeline.tolerance

    def _timestamp(self, frame: VideoFrame) -> int:
        time = frame.pts if frame.pts is not None else frame.dts
        if time is not None and not self.is_counted:
            return time
        self.can_seek = False  # Without times only counting from the start is left.
        self.num_counted += 1
        return self.timeline.start + round((self.num_counted - 1) * self.timeline.step)
