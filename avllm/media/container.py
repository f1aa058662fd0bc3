"""Opening a container with PyAV: which formats and decoders are trusted, which track is meant, faults in words."""

import gc
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from traceback import clear_frames
from typing import cast

import av
from av import AudioStream, Packet, VideoCodecContext, VideoStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream

from avllm.errors import MediaError, NoAudioStream
from avllm.media.limits import Limits
from avllm.media.pyav import OPENING, as_fraction
from avllm.media.source import Source
from avllm.media.tables import check_tables
from avllm.media.tag_counts import check_tags, element, skip

# Demuxers that read one file and open no other. Playlists (hls, concat, dash, sdp) are not among them.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,mp3,flac,ogg,aac,mpegts,mpeg,flv,asf,w64,aiff,au,caf,gif"
    ",h264,hevc,mpegvideo,m4v,vc1,obu,ivf,yuv4mpegpipe,dv,ac3,eac3,dts,amr"
)
# More tracks than a film of many languages has; each costs a decoder, and FFmpeg searches all of them again and again.
MOST_TRACKS = 64
# Decoders whose input is common. JPEG 2000, image formats and game codecs inside a video are refused.
_VIDEO_DECODERS = re.compile(
    r"h264|hevc|h263|(lib)?vp[89]|libvpx(-vp9)?|av1|libdav1d|libaom-av1|mpeg4|mpeg[12]video|msmpeg4(v2)?|wmv[123]|vc1"
    r"|flv|vp6[af]?|mjpeg|theora|prores|dnxhd|ffv1|rawvideo|dvvideo|gif|png"
)
_AUDIO_DECODERS = re.compile(
    r"aac(_fixed|_latm)?|mp[123](float)?|(lib)?opus|(lib)?vorbis|flac|alac|e?ac3|truehd|mlp|dca|wmav[12]|wmapro"
    r"|amr[nw]b|libopencore_amr[nw]b|(lib)?speex|adpcm_(ms|ima_wav|ima_qt|swf)|nellymoser|pcm_\w+"
)


# FFmpeg decodes on its own when a file is opened: the names go to it, so that it opens no other decoder even then.
_TRUSTED = ",".join(
    name for name in sorted(av.codecs_available) if _VIDEO_DECODERS.fullmatch(name) or _AUDIO_DECODERS.fullmatch(name)
)
# Decoders count a row of pixels up to a multiple of 64; what is over the limit by less is refused by us.
_MOST_PADDING = 64 * 65536
_MOST_FRAME_SAMPLES = 1 << 24  # of all channels; a packet of PCM may hold seconds
_CLOCK = re.compile(r"\s*(\d{1,6}):(\d{1,6}):(\d{1,9}(?:\.\d{0,18})?)\s*", re.ASCII)


@dataclass
class Damage:
    """What a decoder could not make sense of.

    Args:
        count: packets that were skipped.
        reason: what the first fault was.
        limits: that the pictures keep to; a track may change its size midway.
    """

    count: int = 0
    reason: str = ""  # and not the error itself: its frames would hold this, the file and its decoders in a cycle
    limits: Limits | None = None

    def add(self, error: av.FFmpegError) -> None:
        """Counts a fault."""
        self.count += 1
        self.reason = self.reason or error.strerror or type(error).__name__


@contextmanager
def open_container(source: Source, limits: Limits) -> Iterator[InputContainer]:
    """An open container; faults of FFmpeg inside the `with` become a MediaError. No other way leads into a file.

    Raises:
        MediaError: not a media file, of a kind that is not read, with too many tracks, or damaged.
    """
    check_tables(source)
    check_tags(source)
    decoding = {
        "codec_whitelist": _TRUSTED,
        "max_pixels": str(min(limits.pixels + _MOST_PADDING, 2**31 - 1)),
        "max_samples": str(_MOST_FRAME_SAMPLES),
    }
    options = decoding | {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": "file",
        "enable_drefs": "0",  # of an mp4: parts that lie in other files
        "max_streams": str(MOST_TRACKS + 1),
    }
    try:
        container = av.open(source.file, "r", options=options, **OPENING)
    except av.FFmpegError as error:  # nothing else: a TypeError would be ours or of a new PyAV, not the file's
        raise MediaError(
            f"{source.name}: not a media file that can be read ({_reason(error)}); expected a video such as mp4, webm,"
            f" mkv, mov or avi, or sound such as wav, mp3, flac or ogg, that is whole"
        ) from error
    try:
        with container:
            _check_tracks(container, source)
            for stream in container.streams:
                if stream.codec_context is not None:
                    stream.codec_context.options = decoding
            yield container
    except MediaError as error:
        _release(error)
        if str(error).startswith(source.name):
            raise
        raise type(error)(f"{source.name}: {error}") from error
    except av.FFmpegError as error:
        _release(error)
        raise MediaError(
            f"{source.name}: damaged or truncated ({_reason(error)}); make or download it again"
        ) from error
    except OverflowError as error:  # of PyAV and NumPy, whose numbers have 64 bits
        _release(error)
        raise MediaError(
            f"{source.name}: holds times or sizes that cannot be, or more of them than are read; the file is damaged"
        ) from error
    finally:
        gc.collect(1)  # A frame whose side data was looked at is part of a cycle of PyAV; it may have 100 MB.


def is_cover(stream: VideoStream) -> bool:
    """Whether the track is none: the picture on the cover of a song, or a still beside an image sequence (HEIF)."""
    is_still = stream.frames == 1 and stream.duration is None and seconds_per_tick(stream) == 1
    return is_still or bool(stream.disposition & Disposition.attached_pic)


def video_stream(container: InputContainer, source: Source) -> VideoStream:
    """The track that a player would show: the default one, else the first; a cover picture is none.

    Raises:
        MediaError: there is no video track, or its decoder is not trusted.
    """
    tracks = [stream for stream in container.streams.video if not is_cover(stream)]
    if not tracks:
        what = "only sound" if container.streams.audio else "no streams"
        raise MediaError(f"{source.name}: no video track, it holds {what}; pass it as audio or choose another file")
    stream = cast(VideoStream, _default(tracks))
    _check_decoder(stream, source)
    return stream


def audio_stream(container: InputContainer, source: Source) -> AudioStream:
    """The track that a player would play: the default one, else the first.

    Raises:
        NoAudioStream: there is none.
        MediaError: its decoder is not trusted.
    """
    if not container.streams.audio:
        raise NoAudioStream(f"{source.name}: no audio track")
    stream = cast(AudioStream, _default(list(container.streams.audio)))
    _check_decoder(stream, source)
    return stream


def seconds_per_tick(of: Stream | Frame) -> Fraction:
    """What one count of the timestamps of a track or a frame lasts; exact, in whatever type PyAV gives it."""
    return as_fraction(of.time_base) or Fraction(1, 1_000_000)


def rate_of(stream: VideoStream) -> Fraction | None:
    """Frames per second as the track states them; None without a rate that can be."""
    stated = (as_fraction(stream.average_rate), as_fraction(stream.base_rate))
    return next((rate for rate in stated if rate is not None and rate > 0), None)


def codec_name(stream: Stream) -> str:
    """Name of the decoder, or `unknown`."""
    context = getattr(stream, "codec_context", None)
    return context.name if context is not None else "unknown"


def duration_seconds(container: InputContainer, stream: VideoStream | AudioStream) -> float | None:
    """Length of a track in seconds as the file states it: by the track, by its Matroska tag, or by the container."""
    if stream.duration and stream.time_base:
        return _length(float(stream.duration * seconds_per_tick(stream)))
    seconds = tagged_seconds(stream) or (container.duration / av.time_base if container.duration else None)
    if seconds and "matroska" in container.format.name and stream.start_time and stream.time_base:
        seconds -= float(stream.start_time * seconds_per_tick(stream))  # Matroska states where a track ends.
    return _length(seconds)


def tagged_seconds(stream: VideoStream | AudioStream) -> float | None:
    """Matroska's DURATION tag of a track, `00:00:10.500000000`; None if there is none, or one that is no time."""
    # Some writers name the language, too: DURATION-eng.
    tags = [value for name, value in stream.metadata.items() if name.upper().split("-")[0] == "DURATION"]
    found = _CLOCK.fullmatch(tags[0]) if tags else None
    if found is None:
        return None
    hours, minutes, seconds = (float(part) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _length(seconds: float | None) -> float | None:
    """A length that can be; None for one that is not above 0."""
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def goes_on_after_segment(source: Source) -> bool:
    """Whether something follows what a Matroska file states as its whole: another file that was joined to it."""
    with source.open() as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        _, head = element(file)
        skip(file, head or 0)
        _, length = element(file)
        return length is not None and file.tell() + length < size


def origin_seconds(container: InputContainer) -> float:
    """Where playing starts, in seconds of the file's clock; 1.4 for the usual MPEG transport stream."""
    return container.start_time / av.time_base if container.start_time is not None else 0.0


def packets_of(container: InputContainer, stream: Stream, damage: Damage) -> Iterator[Packet]:
    """The packets of a track up to its end, or to where the file cannot be read any further."""
    return until_fault(demuxed(container, stream), damage)


def demuxed(container: InputContainer, streams: Stream | Sequence[Stream]) -> Iterator[Packet]:
    """The packets of some tracks, from where the file stands.

    Raises:
        av.FFmpegError: the file cannot be read any further.
    """
    try:
        yield from container.demux(streams)
    except IndexError as error:  # PyAV does not know a track that comes up midway, as broadcasts have them.
        raise av.InvalidDataError(1, "the tracks change midway") from error


def until_fault(packets: Iterator[Packet], damage: Damage) -> Iterator[Packet]:
    """Packets up to where the file cannot be read any further."""
    try:
        yield from packets
    except av.FFmpegError as error:
        damage.add(error)


def decoded(packet: Packet, damage: Damage) -> list:
    """The frames that a packet completes; none of one that is damaged: a player plays on, too.

    Raises:
        MediaError: from here on the pictures are larger than the limits allow.
    """
    try:
        frames = packet.decode()
        damage.count += packet.is_corrupt  # Its container knows that a piece is missing; the decoder got along.
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):  # No fault of the file.
            raise
        damage.add(error)
        frames = []
    context = packet.stream.codec_context
    if damage.limits is not None and isinstance(context, VideoCodecContext) and context.width:
        damage.limits.check_pixels(context.width, context.height)
    return frames


def _default(tracks: list) -> VideoStream | AudioStream:
    return next((stream for stream in tracks if stream.disposition & Disposition.default), tracks[0])


def is_trusted(stream: Stream) -> bool:
    """Whether the decoder of a track of pictures or sound is among those that are used."""
    trusted = _VIDEO_DECODERS if isinstance(stream, VideoStream) else _AUDIO_DECODERS
    return stream.codec_context is not None and trusted.fullmatch(codec_name(stream)) is not None


def _check_decoder(stream: VideoStream | AudioStream, source: Source) -> None:
    if not is_trusted(stream):
        what = f"the {stream.type} codec {codec_name(stream)!r}"
        raise MediaError(f"{source.name}: {what} is not read; convert it to H.264 and AAC")


def _check_tracks(container: InputContainer, source: Source) -> None:
    count = len(container.streams)
    if count > MOST_TRACKS:
        raise MediaError(
            f"{source.name}: holds more than {MOST_TRACKS} tracks; keep those that are meant, in a new file"
        )


def _release(error: BaseException | None) -> None:
    """Lets go of what the code that failed had in hand: frames in cycles would outlive the look for such below."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it holds more than {MOST_TRACKS} tracks, or sizes for which there is no memory"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
