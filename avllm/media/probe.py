"""What is in a media file, without decoding it."""

from dataclasses import asdict, dataclass
from typing import Any

import av
import numpy as np
from av import AudioStream, VideoFrame, VideoStream

from avllm.errors import MediaError
from avllm.media.container import codec_name, duration_seconds, is_cover, open_container, origin_seconds
from avllm.media.fit import Fit
from avllm.media.frames import read_folder, read_frames
from avllm.media.limits import Limits
from avllm.media.pictures import read_picture
from avllm.media.pyav import as_fraction
from avllm.media.sampling import Sampling
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.waveforms import MOST_CHANNELS


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
        rotation: by how many degrees players turn the frames, counter-clockwise.
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
        rows: list[tuple[str, ...]] = [
            ("#", "kind", "codec", "seconds", "start", "frames", "fps", "size", "turn", "channels", "Hz", "lang")
        ]
        for s in self.streams:
            shape = f"{s.width}x{s.height}" if s.width else None
            numbers = (_short(s.duration_s), _short(s.start_s), s.frames, _short(s.fps), shape, s.rotation)
            cells = (s.index, s.kind, s.codec, *numbers, s.channels, s.sample_rate, s.language)
            rows.append(tuple(_cell(cell) for cell in cells))
        shown = [column for column in zip(*rows, strict=True) if any(cell != "-" for cell in column[1:])]
        widths = [max(map(len, column)) for column in shown]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in zip(*shown, strict=True)]
        return "\n".join([f"{self.name}: {self.format}{length}{size}", *(line.rstrip() for line in lines)])


def probe(source: MediaSource, *, limits: Limits | None = None) -> MediaInfo:
    """Reads what a file holds.

    Raises:
        MediaError: no media file, damaged, or over a limit of bytes or pixels.
    """
    limits = limits or Limits()
    what = resolve(source, limits)
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
        origin_s, streams = origin_seconds(container), []
        for stream in container.streams:
            fields: dict[str, Any] = {"index": stream.index, "kind": stream.type, "codec": codec_name(stream)}
            fields["language"] = stream.language if stream.language not in (None, "und") else None
            if isinstance(stream, VideoStream | AudioStream):
                fields["duration_s"] = duration_seconds(container, stream)
                if stream.start_time is not None and stream.time_base:
                    fields["start_s"] = round(float(stream.start_time * stream.time_base) - origin_s, 6)
            if isinstance(stream, VideoStream):
                fields |= _video_fields(stream, source, limits)
            elif isinstance(stream, AudioStream) and stream.codec_context is not None:
                context = stream.codec_context
                fields |= {"channels": context.channels, "sample_rate": context.sample_rate}
            streams.append(StreamInfo(**fields))
        lengths = [stream.duration_s for stream in streams if stream.duration_s is not None]
        if not streams:
            raise MediaError(f"{source.name}: holds no tracks; the file is empty or damaged")
        return MediaInfo(
            name=source.name,
            format=container.format.name,
            size_bytes=_size(source),
            duration_s=max(lengths, default=None),
            streams=tuple(streams),
        )


def _video_fields(stream: VideoStream, source: Source, limits: Limits) -> dict[str, Any]:
    context = stream.codec_context
    if context is None:  # No decoder for it is at hand.
        return {}
    limits.check_pixels(context.width, context.height)
    if is_cover(stream):
        return {"kind": "cover", "width": context.width, "height": context.height, "duration_s": None, "start_s": None}
    rotation = _rotation(source, stream.index, limits)
    sides = (context.height, context.width) if rotation % 180 else (context.width, context.height)
    rate = as_fraction(stream.average_rate) or as_fraction(stream.base_rate)
    return {
        "frames": stream.frames or None,
        "fps": float(rate) if rate else None,
        "width": sides[0],
        "height": sides[1],
        "rotation": rotation or None,
    }


def _rotation(source: Source, index: int, limits: Limits) -> int:
    """Only a decoded frame tells it; the file is opened anew so as not to move the reading position."""
    with open_container(source, limits) as container:
        try:
            frame = next(container.decode(container.streams[index]), None)
        except av.FFmpegError:  # Damaged pictures are for the reader to report.
            return 0
        return int(frame.rotation) if isinstance(frame, VideoFrame) else 0


def _size(source: Source) -> int | None:
    if source.data is not None:
        return len(source.data)
    return source.path.stat().st_size if source.path is not None and source.path.is_file() else None


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
