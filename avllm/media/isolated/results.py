"""What a decoder process sends back: clips, tracks and errors as plain data, and how the parent checks each of them.

The child may have been taken over by a file. A result that holds is one that the module could have returned.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from avllm.errors import AvllmError, ConfigError, InternalError, MediaError, NoAudioStream
from avllm.media.clips import Audio, Video
from avllm.media.isolated.channel import Malformed
from avllm.media.limits import Limits
from avllm.media.probe import MediaInfo, StreamInfo
from avllm.media.waveforms import MOST_CHANNELS

ERRORS: Mapping[str, type[Exception]] = {
    "MediaError": MediaError,
    "NoAudioStream": NoAudioStream,
    "ConfigError": ConfigError,
    "AvllmError": AvllmError,
    "InternalError": InternalError,
}
LONGEST_TEXT, _LONGEST_NOTE, MOST_WARNINGS = 2000, 20000, 20
_MOST = 2**53
# What the fields of a track may be.
_STREAM: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("index", "frames", "width", "height", "rotation", "channels", "sample_rate"), lambda v: is_int(v)),
    **dict.fromkeys(("duration_s", "start_s", "fps"), lambda v: is_number(v)),
    **dict.fromkeys(("kind", "codec", "language"), lambda v: isinstance(v, str)),
    "mirrored": lambda v: isinstance(v, bool),
}
_STREAM_REQUIRED = frozenset({"index", "kind", "codec"})

ReadArray = Callable[[tuple[int, ...], str], np.ndarray]


def packed(result: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A result as a header and the arrays that go behind it."""
    if isinstance(result, Video):
        frames, indices = result.frames, np.array(result.indices, np.int64)
        header = {
            "shape": frames.shape,
            "dtype": frames.dtype.name,
            "num_indices": len(indices),
            "duration_s": result.duration_s,
            "fps": result.fps,
            "has_audio": result.has_audio,
            "num_damaged": result.num_damaged,
        }
        return {"is": "video", **header}, [frames, result.times_s.astype(np.float64), indices]
    if isinstance(result, Audio):
        about = {name: getattr(result, name) for name in ("sample_rate", "start_s", "num_damaged")}
        return {"is": "audio", "shape": result.waveform.shape, **about}, [result.waveform]
    assert isinstance(result, MediaInfo)
    return {"is": "info", **asdict(result)}, []


def described(error: Exception) -> dict[str, Any]:
    """An error as a kind, a text, and where it was met."""
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS), "InternalError")
    note = "\n".join(getattr(error, "__notes__", ()))
    return {"is": "error", "kind": kind, "text": str(error)[:LONGEST_TEXT], "note": note[:_LONGEST_NOTE]}


def read_error(header: Mapping[str, Any]) -> Exception:
    """The error of a header. Raises Malformed when it is none."""
    kind = ERRORS.get(header.get("kind", "")) if isinstance(header.get("kind"), str) else None
    require(kind is not None, "an error of an unknown kind")
    assert kind is not None
    error = kind(plain(header.get("text"), LONGEST_TEXT))
    note = header.get("note")
    if note:
        require(isinstance(note, str), "a note that is no text")
        error.add_note("\n".join(plain(line, LONGEST_TEXT) for line in note[:_LONGEST_NOTE].split("\n")))
    return error


def read_warnings(header: Mapping[str, Any]) -> list[str]:
    """What the child would have logged."""
    warnings = header.get("warnings", [])
    require(isinstance(warnings, list), "warnings that are no list")
    return [plain(text, LONGEST_TEXT) for text in warnings[:MOST_WARNINGS]]


def read_result(
    name: str, header: Mapping[str, Any], options: Mapping[str, Any], limits: Limits, read_array: ReadArray
) -> Video | Audio | MediaInfo:
    """The result of one of the functions of `avllm.media`, checked before any memory is taken for it.

    Args:
        name: of the function.
        header: what came back.
        options: that the function was called with.
        limits: of the medium.
        read_array: reads an array of a shape and type that were checked.

    Raises:
        Malformed: it is none that the function returns.
    """
    kind = {"open_audio": "audio", "probe": "info"}.get(name, "video")
    require(header.get("is") == kind, "another result than was asked for")
    try:
        if kind == "audio":
            return _audio(header, options, limits, read_array)
        return _video(header, options, limits, read_array) if kind == "video" else _info(header)
    except MediaError as error:  # over a limit, which no honest child goes
        raise Malformed(str(error)) from error


def _video(header: Mapping[str, Any], options: Mapping[str, Any], limits: Limits, read_array: ReadArray) -> Video:
    shape, dtype = _shape(header, 4), header.get("dtype")
    count, height, width, channels = shape
    require(dtype in ("uint8", "float32") and count > 0 and channels == 3, "frames of another form")
    limits.check_frames(count)
    limits.check_pixels(width, height)
    limits.check_video_bytes(count, height, width, 4 if dtype == "float32" else 1)
    size = options.get("size")
    if isinstance(size, tuple | list):
        require([height, width] == [*size], "frames of another size")
    num_indices, fps = header.get("num_indices"), header.get("fps")
    require(num_indices in (0, count) and is_int(num_indices), "another number of indices")
    require(fps is None or (is_number(fps) and fps >= 0), "a rate that is none")
    require(is_number(header.get("duration_s")), "a duration that is none")
    require(isinstance(header.get("has_audio"), bool), "no word about sound")
    frames = read_array(shape, str(dtype))
    times_s = read_array((count,), "float64")
    require(bool(np.isfinite(times_s).all()), "times that are not finite")
    indices = read_array((int(num_indices or 0),), "int64")
    return Video(
        frames=frames,
        times_s=times_s,
        duration_s=header["duration_s"],
        fps=fps,
        has_audio=header["has_audio"],
        indices=tuple(indices.tolist()),
        num_damaged=_count(header, "num_damaged"),
    )


def _audio(header: Mapping[str, Any], options: Mapping[str, Any], limits: Limits, read_array: ReadArray) -> Audio:
    shape, rate = _shape(header, 2), header.get("sample_rate")
    channels, samples = shape
    require(is_int(rate) and rate == options.get("sample_rate", 16000), "sound of another rate")
    require(0 < channels <= MOST_CHANNELS, "sound of no channels, or of too many")
    assert isinstance(rate, int)
    whole = max(0, samples - rate)  # limits count what is decoded, whose length resampling changes by a little
    limits.check_seconds(whole / rate)
    limits.check_audio_bytes(channels, whole)
    require(is_number(header.get("start_s")), "a start that is none")
    damaged = _count(header, "num_damaged")
    waveform = read_array(shape, "float32")
    return Audio(waveform=waveform, sample_rate=rate, start_s=header["start_s"], num_damaged=damaged)


def _info(header: Mapping[str, Any]) -> MediaInfo:
    names = {field.name for field in fields(MediaInfo)}
    found = {name: header.get(name) for name in names}
    require(isinstance(found["name"], str) and isinstance(found["format"], str), "a file without name or format")
    require(found["size_bytes"] is None or is_int(found["size_bytes"]), "a size that is none")
    require(found["duration_s"] is None or is_number(found["duration_s"]), "a duration that is none")
    require(isinstance(found["streams"], list), "tracks that are no list")
    streams = tuple(map(_stream, found["streams"]))  # type: ignore[arg-type]
    texts = {name: plain(found[name], LONGEST_TEXT) for name in ("name", "format")}
    return MediaInfo(**{**found, **texts, "streams": streams})  # type: ignore[arg-type]


def _stream(value: Any) -> StreamInfo:
    require(isinstance(value, dict) and set(value) == set(_STREAM), "a track of other fields")
    for name, is_right in _STREAM.items():
        is_absent = value[name] is None and name not in _STREAM_REQUIRED
        require(is_absent or is_right(value[name]), f"a track whose {name} is none")
    texts = {name: plain(text, LONGEST_TEXT) for name, text in value.items() if isinstance(text, str)}
    return StreamInfo(**{**value, **texts})


def _shape(header: Mapping[str, Any], num_axes: int) -> tuple[int, ...]:
    shape = header.get("shape")
    require(isinstance(shape, list) and len(shape) == num_axes, "no shape")
    assert isinstance(shape, list)
    require(all(is_int(value) and value >= 0 for value in shape), "a shape that is none")
    return tuple(shape)


def _count(header: Mapping[str, Any], name: str) -> int:
    value = header.get(name)
    require(is_int(value) and value >= 0, f"{name} that is no count")  # type: ignore[operator]
    return value  # type: ignore[return-value]


def is_int(value: Any) -> bool:
    """Whether it is a whole number that JSON can hold; True is none."""
    return type(value) is int and abs(value) <= _MOST


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return (type(value) is float and math.isfinite(value)) or is_int(value)


def plain(text: Any, longest: int) -> str:
    """A text of the child, without what a terminal would act on. Raises Malformed when it is none."""
    require(isinstance(text, str), "a text that is none")
    return "".join(letter if letter.isprintable() else " " for letter in text[:longest])


def require(is_right: bool, what: str) -> None:
    """Raises Malformed."""
    if not is_right:
        raise Malformed(what)
