"""What is in a media file, without decoding it."""

import io
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from av import AudioStream, VideoStream
from av.container import InputContainer
from av.stream import Stream

from avllm.errors import MediaError
from avllm.media.container import (
    Damage,
    codec_name,
    decoded,
    demuxed,
    duration_seconds,
    goes_on_after_segment,
    is_cover,
    is_trusted,
    open_container,
    origin_seconds,
    rate_of,
    seconds_per_tick,
    tagged_seconds,
    until_fault,
)
from avllm.media.fit import Fit
from avllm.media.frames import read_folder, read_frames
from avllm.media.limits import Limits
from avllm.media.pictures import read_picture
from avllm.media.resize import Display, display_of
from avllm.media.sampling import Sampling
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.walk import Track, Walker
from avllm.media.waveforms import MOST_CHANNELS

# Formats whose header or index tells how long each track is.
_STATE_LENGTHS = frozenset({"avi", "wav", "flac", "w64", "aiff", "au", "caf", "gif"})
_MOST_PACKETS = 500  # of pictures, before the first frame


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One track. What does not apply, or what the file does not say, is None.

    Args:
        index: place in the file.
        kind: `video`, `audio`, `subtitle`, `cover` (the picture of a song), ...
        codec: name of the decoder.
        duration_s: length in seconds.
        start_s: when it begins after playing starts, in seconds.
        frames: how many frames the file counts.
        fps: average frames per second.
        width: of a frame as shown, so after rotation, in pixels.
        height: likewise.
        rotation: by how many degrees players turn the frames, counter-clockwise: 90, 180 or -90.
        mirrored: true where players mirror the frames left to right before they turn them.
        channels: of sound.
        sample_rate: of sound, in Hz.
        language: ISO 639 code.
    """

    index: int
    kind: str
    codec: str
    duration_s: float | None = None
    start_s: float | None = None
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    mirrored: bool | None = None
    channels: int | None = None
    sample_rate: int | None = None
    language: str | None = None


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """A file and its tracks.

    Args:
        name: of the file.
        format: of the container, or `image`, `folder of frames`, `frames`, `sound`.
        size_bytes: None for a folder, and for frames and sounds in memory.
        duration_s: of the longest track; None where the file does not say.
        streams: the tracks.
    """

    name: str
    format: str
    size_bytes: int | None
    duration_s: float | None
    streams: tuple[StreamInfo, ...]

    @property
    def has_video(self) -> bool:
        return any(stream.kind == "video" for stream in self.streams)

    @property
    def has_audio(self) -> bool:
        return any(stream.kind == "audio" for stream in self.streams)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"streams": [asdict(stream) for stream in self.streams]}

    def to_table(self) -> str:
        """Lines for a person: the file, then one row per track."""
        size = "" if self.size_bytes is None else f", {_bytes(self.size_bytes)}"
        length = "" if self.duration_s is None else f", {self.duration_s:.2f} s"
        heads = "# kind codec seconds start frames fps size turn mirror channels Hz lang"
        rows: list[tuple[str, ...]] = [tuple(heads.split())]
        for s in self.streams:
            shape = f"{s.width}x{s.height}" if s.width else None
            numbers = (_short(s.duration_s), _short(s.start_s), s.frames, _short(s.fps), shape, s.rotation)
            mirror = "yes" if s.mirrored else None
            cells = (s.index, s.kind, s.codec, *numbers, mirror, s.channels, s.sample_rate, s.language)
            rows.append(tuple(_cell(cell) for cell in cells))
        shown = [column for column in zip(*rows, strict=True) if any(cell != "-" for cell in column[1:])]
        widths = [max(map(len, column)) for column in shown]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in zip(*shown, strict=True)]
        return "\n".join([f"{self.name}: {self.format}{length}{size}", *(line.rstrip() for line in lines)])


# What was found out about each source that is still in use, under which limits.
_PROBED: WeakKeyDictionary[Source, dict[Limits, MediaInfo]] = WeakKeyDictionary()


def probe(source: MediaSource, *, limits: Limits | None = None) -> MediaInfo:
    """Reads what a file holds; of a `Source` once, however often it is asked.

    Raises:
        MediaError: no media file, damaged, or over a limit of bytes or pixels.
    """
    limits = limits or Limits()
    what = resolve(source, limits)
    known = _PROBED.setdefault(what, {})
    if limits not in known:
        known[limits] = _probe(what, limits)
    return known[limits]


def _probe(what: Source, limits: Limits) -> MediaInfo:
    if what.kind == "container":
        return _probe_container(what, limits)
    channels = _channels(what)
    if channels:
        return _probe_sound(what, channels)
    sampling = Sampling(num_frames=1)
    if what.kind == "picture":
        video = read_picture(what, sampling, how=Fit(), limits=limits)
    else:
        read = read_folder if what.kind == "folder" else read_frames
        video = read(what, sampling, fps=1.0, how=Fit(), limits=limits)
    height, width = video.frames.shape[1:3]
    count = round(video.duration_s * (video.fps or 0)) or 1
    is_moving = what.kind == "picture" and count > 1
    stream = StreamInfo(
        index=0,
        kind="video" if count > 1 else "image",
        codec="images" if count > 1 and what.kind != "picture" else "image",
        duration_s=video.duration_s if is_moving else None,
        frames=count,
        fps=video.fps if is_moving else None,
        width=width,
        height=height,
    )
    name = {"folder": "folder of frames", "frames": "frames" if count > 1 else "image"}.get(what.kind, "image")
    return MediaInfo(
        name=what.name, format=name, size_bytes=_size(what), duration_s=stream.duration_s, streams=(stream,)
    )


def _channels(source: Source) -> int:
    """Of a sound in memory; 0 of everything else, also of an array [h w] of more rows than a sound has channels."""
    if source.audio is not None:
        return len(source.audio.waveform)
    channels = min(np.atleast_2d(np.asarray(source.frames)).shape) if source.kind == "samples" else 0
    return channels if channels <= MOST_CHANNELS else 0


def _probe_sound(source: Source, channels: int) -> MediaInfo:
    """Of samples in memory, which have no rate of their own where they are an array alone."""
    audio = source.audio
    stream = StreamInfo(
        index=0,
        kind="audio",
        codec="samples",
        duration_s=audio.duration_s if audio else None,
        channels=channels,
        sample_rate=audio.sample_rate if audio else None,
    )
    return MediaInfo(name=source.name, format="sound", size_bytes=None, duration_s=stream.duration_s, streams=(stream,))


def _probe_container(source: Source, limits: Limits) -> MediaInfo:
    with open_container(source, limits) as container:
        origin_s, name = origin_seconds(container), container.format.name
        # Other tracks are named, and nothing of them is decoded.
        pictures = [s for s in container.streams.video if is_trusted(s) and not is_cover(s)]
        for stream in pictures:
            limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
        table = [_fields(container, stream, origin_s) for stream in container.streams]
        if not table:
            raise MediaError(f"{source.name}: holds no tracks; the file is empty or damaged")
        walker = None if _states_lengths(container, source) else Walker(container, [])
        for index, display in _displays(container, pictures, walker, limits).items():
            height, width = display.size_of((table[index]["height"], table[index]["width"]))
            turned = {"rotation": display.degrees or None, "mirrored": display.is_mirrored or None}
            table[index] |= {"width": width, "height": height, **turned}
        if walker is not None:
            for index, track in walker.finish().tracks.items():
                table[index] |= _met(track, table[index], origin_s)
        streams = tuple(StreamInfo(**fields) for fields in table)
        lengths = [stream.duration_s for stream in streams if stream.duration_s is not None]
        return MediaInfo(
            name=source.name,
            format=name,
            size_bytes=_size(source),
            duration_s=max(lengths, default=None),
            streams=streams,
        )


def _fields(container: InputContainer, stream: Stream, origin_s: float) -> dict[str, Any]:
    """What the file states about a track."""
    fields: dict[str, Any] = {"index": stream.index, "kind": stream.type, "codec": codec_name(stream)}
    fields["language"] = stream.language if stream.language not in (None, "und") else None
    if isinstance(stream, VideoStream | AudioStream):
        fields["duration_s"] = duration_seconds(container, stream)
        if stream.start_time is not None and stream.time_base:
            fields["start_s"] = round(float(stream.start_time * seconds_per_tick(stream)) - origin_s, 6) + 0.0
    if stream.codec_context is None:  # No decoder for it is at hand.
        return fields
    if isinstance(stream, VideoStream):
        context = stream.codec_context
        rate = rate_of(stream)
        fields |= {
            "width": context.width or None,
            "height": context.height or None,
            "fps": float(rate) if rate else None,
        }
        fields["frames"] = stream.frames or None
        if is_cover(stream):
            fields |= {"kind": "cover", "duration_s": None, "start_s": None, "fps": None, "frames": None}
    elif isinstance(stream, AudioStream):
        fields |= {"channels": stream.codec_context.channels, "sample_rate": stream.codec_context.sample_rate}
    return fields


def _states_lengths(container: InputContainer, source: Source) -> bool:
    """Whether every track of pictures or sound has a length of its own: by an index, not by a guess from bit rates."""
    name = container.format.name
    if name not in ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"):
        return name in _STATE_LENGTHS
    if name == "matroska,webm" and goes_on_after_segment(source):
        return False
    tracks = [*(s for s in container.streams.video if not is_cover(s)), *container.streams.audio]
    are_stated = all(track.duration or tagged_seconds(track) is not None for track in tracks)
    return are_stated or (len(tracks) == 1 and bool(container.duration))


def _displays(
    container: InputContainer, pictures: list[VideoStream], walker: Walker | None, limits: Limits
) -> dict[int, Display]:
    """How the pictures of each track are shown; only a decoded frame tells. Reads on to the end for a walker."""
    missing, shown = {stream.index for stream in pictures}, {}
    for stream in pictures:
        stream.codec_context.thread_count = 1  # One frame is wanted of each; threads cost memory, track by track.
    wanted = pictures if walker is None else walker.streams
    packets = until_fault(demuxed(container, wanted), Damage()) if wanted else ()
    for num_read, packet in enumerate(packets):
        if walker is None and (not missing or num_read >= _MOST_PACKETS):
            break
        if packet.stream_index in missing:
            for frame in decoded(packet, Damage(limits=limits)):
                missing.discard(packet.stream_index)
                shown.setdefault(packet.stream_index, display_of(frame))
        if walker is not None:
            walker.add(packet)
    return shown


def _met(track: Track, stated: dict[str, Any], origin_s: float) -> dict[str, Any]:
    """What a walk through all packets tells better than the container: lengths, counts, and when a track begins."""
    if not track.num_packets:
        return {"duration_s": None, "start_s": None}
    fields: dict[str, Any] = {"duration_s": float(track.length_s) or stated["duration_s"]}
    if track.start_s is not None:
        early_s = max(0.0, origin_s - float(track.start_s))  # a decoder's delay, which is not heard
        fields["start_s"] = round(max(0.0, float(track.start_s) - origin_s), 6)
        if fields["duration_s"] is not None:
            fields["duration_s"] = max(0.0, fields["duration_s"] - early_s)
    if stated["kind"] == "video":
        fields["frames"] = track.num_packets
    return fields


def _size(source: Source) -> int | None:
    if source.kind not in ("container", "picture"):
        return None
    with source.open() as file:
        return file.seek(0, io.SEEK_END)


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
