"""The video track of a container to the frames that are wanted of it, whatever the container says or hides."""

import logging
from array import array
from contextlib import closing
from dataclasses import dataclass

import av
import numpy as np
from av import VideoStream
from av.container import InputContainer
from jaxtyping import Int64

from avllm.errors import MediaError
from avllm.media.clips import Video
from avllm.media.container import Damage, open_container, origin_seconds, seconds_per_tick, video_stream
from avllm.media.fit import Fit
from avllm.media.frame_readers import (
    EndsEarly,
    FrameReader,
    IndexedReader,
    Miscounted,
    OffGrid,
    WalkedReader,
    frames_in_turn,
)
from avllm.media.limits import Limits
from avllm.media.resize import Shaper
from avllm.media.sampling import Sampling
from avllm.media.source import Source
from avllm.media.timeline import (
    Timeline,
    counted,
    is_indexed,
    read_timeline,
    stated_rate,
    timeline_of_moments,
    timeline_of_track,
)
from avllm.media.walk import NO_TIME, Track, Unseekable, walk

logger = logging.getLogger(__name__)


@dataclass
class _Plan:
    """How a file is read, and what was found out about it by trying.

    Args:
        by_time: its index gives a grid on which its frames do not lie.
        by_walk: it has no index, or states a wrong length.
        track: what a walk through it met.
        timeline: of that walk.
        is_in_turn: seeking in it leads nowhere; it is read from its start.
        num_decoded: how many frames come out of the decoder, where nothing else tells; -1 if that is to be found out.
        moments: when they are shown.
    """

    by_time: bool = False
    by_walk: bool = False
    track: Track | None = None
    timeline: Timeline | None = None
    is_in_turn: bool = False
    num_decoded: int | None = None
    moments: Int64[np.ndarray, " n"] | None = None


class _OpenAnew(Exception):
    """Reading goes on, but from a freshly opened container."""


def read_container(source: Source, sampling: Sampling, *, how: Fit, limits: Limits) -> Video:
    """Samples the video track of a container; memory does not grow with its length.

    Raises:
        MediaError: no video track, no frame, damaged, truncated, or over a limit.
    """
    plan = _Plan()
    for _ in range(5):
        with open_container(source, limits) as container:
            stream = video_stream(container, source)
            try:
                return _attempts(container, stream, source, plan, sampling, how, limits)
            except _OpenAnew:
                logger.debug("%s: opened again: %s", source.name, plan)
    raise MediaError(f"{source.name}: its times contradict each other; the file is damaged")


def _attempts(
    container: InputContainer,
    stream: VideoStream,
    source: Source,
    plan: _Plan,
    sampling: Sampling,
    how: Fit,
    limits: Limits,
) -> Video:
    """Reads by the index, by time, or by a walk, whichever comes out first; all of it in one opened container."""
    plan.by_walk = plan.by_walk or not is_indexed(container, stream, source)
    while True:
        try:
            with closing(_reader(container, stream, source, plan, limits)) as reader:
                return _sample(reader, sampling, how, limits)
        except OffGrid:
            plan.by_time = True
        except EndsEarly:
            plan.by_walk = True
        except Unseekable as error:
            plan.is_in_turn = True
            raise _OpenAnew from error
        except Miscounted as error:
            if plan.num_decoded is not None:
                raise MediaError(f"{source.name}: decodes to other frames each time; the file is damaged") from error
            plan.num_decoded = -1
            raise _OpenAnew from error
        try:
            container.seek(0)
        except av.FFmpegError as error:
            raise _OpenAnew from error


def _reader(container: InputContainer, stream: VideoStream, source: Source, plan: _Plan, limits: Limits) -> FrameReader:
    damage = Damage(limits=limits)
    if plan.num_decoded is not None:
        if plan.num_decoded < 0:
            _decode_all(container, stream, source, plan, limits)
            raise _OpenAnew
        return FrameReader(container, stream, source, _decoded_timeline(stream, plan), damage)
    if not plan.by_walk:
        timeline = read_timeline(container, stream, source, by_time=plan.by_time)
        if timeline.is_counted:
            return FrameReader(container, stream, source, timeline, damage)
        return IndexedReader(container, stream, source, timeline, damage)
    if plan.track is None or plan.timeline is None:
        track = walk(container, stream).tracks[stream.index]
        since = _first_shown(source, limits, track) if _begins_midway(track) else None
        plan.track, plan.timeline = track, timeline_of_track(track, stream, source, since=since)
        if track.num_stumbles and not plan.timeline.is_exact:
            raise Miscounted
        if plan.timeline.is_counted:
            plan.is_in_turn = True
            raise _OpenAnew
    if plan.timeline.is_counted:
        return FrameReader(container, stream, source, plan.timeline, damage)
    return WalkedReader(container, stream, source, plan.timeline, damage, track=plan.track, is_fresh=plan.is_in_turn)


def _sample(reader: FrameReader, sampling: Sampling, how: Fit, limits: Limits) -> Video:
    container, stream, timeline = reader.container, reader.stream, reader.timeline
    width, height = stream.codec_context.width, stream.codec_context.height
    limits.check_pixels(width, height)
    limits.check_seconds(timeline.duration_s)
    count = sampling.count(timeline.num_frames, timeline.fps)
    limits.check_frames(count)
    limits.check_video_bytes(count, *(how.size or (height, width)), how.item_bytes)
    indices = sampling.indices(timeline.num_frames, timeline.fps)
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
        times[place] = float(reader.timestamp * timeline.tick) - origin_s
        num_corrupt += frame.is_corrupt
    assert frames is not None
    num_damaged = reader.damage.count + num_corrupt
    if num_damaged:
        logger.warning("%s: %d packets or frames of the picture are damaged", reader.source.name, num_damaged)
    return Video(
        frames=frames,
        times_s=times,
        duration_s=timeline.duration_s,
        fps=timeline.fps,
        has_audio=bool(container.streams.audio),
        indices=indices,
        num_damaged=num_damaged,
    )


def _begins_midway(track: Track) -> bool:
    """Whether there is something before, or shown before, the first keyframe."""
    if not len(track.keys) or (track.times == NO_TIME).any():
        return False
    first = track.keys[0]
    return first > 0 or bool((track.times[1 : track.keys[1] if len(track.keys) > 1 else None] < track.times[0]).any())


def _first_shown(source: Source, limits: Limits, track: Track) -> int | None:
    """When the first frame is shown that can be decoded in a file that begins in the middle of a recording."""
    with open_container(source, limits) as container:
        frame = next(frames_in_turn(container, video_stream(container, source), Damage(limits=limits)), None)
        return None if frame is None or frame.pts is None else frame.pts


def _decode_all(container: InputContainer, stream: VideoStream, source: Source, plan: _Plan, limits: Limits) -> None:
    """Counts the frames of a freshly opened file by decoding it."""
    damage, times, num_fields = Damage(limits=limits), array("q"), 1
    for frame in frames_in_turn(container, stream, damage):
        times.append(NO_TIME if frame.pts is None else frame.pts)
        num_fields = 2 if frame.interlaced_frame else num_fields  # of one frame, may come in as many packets
    if not times:
        reason = f" ({damage.reason})" if damage.reason else ""
        raise MediaError(f"{source.name}: no frame could be decoded{reason}; the file is damaged")
    plan.num_decoded = len(times)
    num_met = plan.track.num_packets if plan.track else 0
    if num_met > len(times) * num_fields:
        logger.warning("%s: %d of %d packets of the picture become frames", source.name, len(times), num_met)
    moments = np.array(times, np.int64)
    if NO_TIME not in times and (np.diff(moments) > 0).all():
        plan.moments = moments


def _decoded_timeline(stream: VideoStream, plan: _Plan) -> Timeline:
    tick, step = seconds_per_tick(stream), 1 / (stated_rate(stream) * seconds_per_tick(stream))
    if plan.moments is not None:
        return timeline_of_moments(plan.moments, tick, [], step)
    return counted(plan.num_decoded or 0, step, tick, stream.start_time or 0)
