"""What a user hands over, told apart by its content: a container, a picture, a folder, frames or sound in memory."""

import base64
import binascii
import io
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media import digests
from avllm.media.clips import Audio
from avllm.media.formats import HEAD_BYTES, sniff
from avllm.media.limits import Limits
from avllm.media.pixels import as_array
from avllm.media.waveforms import as_audio

TAKEN = (
    "a path, a file: or data: URL, bytes, an open binary file, an array or a tensor, a Pillow image, a list of frames"
    " or of their paths, (rate, samples), {'array', 'sampling_rate'}, {'bytes', 'path'}, or an avllm.media.Audio"
)
_READ_BYTES = 1 << 20
_LONGEST_NAME = 255


@runtime_checkable
class Readable(Protocol):
    """An open binary file."""

    def read(self, size: int = ..., /) -> bytes: ...


@runtime_checkable
class ArrayLike(Protocol):
    """An array or a tensor of any library."""

    def __array__(self, *args: Any, **options: Any) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A medium with its kind. It can be opened any number of times, and pickled.

    Args:
        kind: `container` (PyAV reads it), `picture` (see `format`), `folder`, `frames`, `sound`, or `samples`: an array
            of one or two axes, which is sound for `open_audio` and, with two, a grey picture for `open_image`.
        name: for messages; the last part of a path, never all of it.
        format: of a picture: the name that Pillow has for it, or HEIF.
        path: of a container, picture or folder on disk.
        data: of a container or picture in memory.
        frames: for `frames` and `samples`: an array, a Pillow image, or a list of arrays, Pillow images and sources of
            pictures.
        audio: for `sound`.
    """

    kind: Literal["container", "picture", "folder", "frames", "sound", "samples"]
    name: str
    format: str = ""
    path: Path | None = None
    data: bytes | None = None
    frames: np.ndarray | Image.Image | Sequence[Any] | None = None
    audio: Audio | None = None

    @property
    def file(self) -> str | io.BytesIO:
        """What PyAV opens. The `file:` prefix and a whole path keep names such as `concat:a` from being protocols."""
        return io.BytesIO(self.data) if self.data is not None else f"file:{os.path.abspath(str(self.path))}"

    def open(self) -> io.BytesIO | io.BufferedReader:
        """The bytes of a container or picture. Raises MediaError when the file is gone."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        try:
            return self.path.open("rb")
        except OSError as error:
            raise _cannot_open(self.name, error) from error

    def read(self, limits: Limits) -> bytes:
        """All of those bytes. Raises MediaError when they are more than a medium in memory may have."""
        with self.open() as file:
            limits.check_memory_bytes(file.seek(0, io.SEEK_END))
            file.seek(0)
            return file.read()

    def names(self) -> list[str]:
        """Names of what a folder holds."""
        assert self.path is not None
        return os.listdir(self.path)

    def member(self, name: str, limits: Limits) -> "Source":
        """What a folder holds by a name. Raises MediaError, see `resolve`."""
        assert self.path is not None
        return resolve(self.path / name, limits)

    @cached_property
    def digest(self) -> bytes:
        """A digest of the content, computed once: that of its bytes, of the pixels of its frames, or of its samples.

        Of a folder it is that of names, sizes and times of change.

        Raises:
            MediaError: frames that cannot be read.
        """
        if self.data is not None:
            return digests.of_bytes(self.data)
        if self.kind == "folder":
            assert self.path is not None
            return digests.of_folder(self.path)
        if self.audio is not None:
            return digests.of_audio(self.audio)
        if self.frames is not None:
            return digests.of_frames(self.frames, self.name)
        with self.open() as file:
            return digests.of_file(file)


MediaSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | ArrayLike
    | Image.Image
    | Audio
    | Readable
    | Mapping[str, Any]
    | Sequence[Any]
    | Source
)


def resolve(source: MediaSource, limits: Limits | None = None) -> Source:
    """Tells what `source` is, without decoding any of it. What is resolved already comes back as it is.

    A file object is read from its start, wherever it stands, and stands there again afterwards; one that cannot be
    moved is read from where it stands.

    Raises:
        MediaError: no such file, an empty or too large one, a URL that is not allowed, a type that is not known.
    """
    limits = limits or Limits()
    if isinstance(source, Source):
        return _checked(source, limits)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_bytes(_decode_data_url(source, limits), "data URL", limits)
    if isinstance(source, str | os.PathLike):
        return _from_path(_local_path(os.fsdecode(source)), limits)
    if isinstance(source, bytes | bytearray | memoryview):
        limits.check_memory_bytes(memoryview(source).nbytes)  # before they are copied
        return _from_bytes(bytes(source), "bytes", limits)
    if isinstance(source, Audio):
        limits.check_seconds(source.duration_s)
        limits.check_audio_bytes(*source.waveform.shape)
        return Source(kind="sound", name="sound", audio=source)
    if isinstance(source, Image.Image):
        limits.check_pixels(*source.size)
        return Source(kind="frames", name="Pillow image", frames=source)
    array = as_array(source, limits)
    if array is not None:
        return Source(kind="frames" if array.ndim > 2 else "samples", name="array", frames=array)
    if isinstance(source, Mapping):
        return _from_mapping(source, limits)
    if hasattr(source, "read"):
        return _from_file(source, limits)
    if isinstance(source, Sequence):
        return _from_list(source, limits)
    raise MediaError(f"cannot read a {type(source).__name__}; expected {TAKEN}")


def _checked(source: Source, limits: Limits) -> Source:
    if source.data is not None:
        limits.check_memory_bytes(len(source.data))
    elif source.path is not None and source.kind != "folder":
        try:
            limits.check_file_bytes(source.path.stat().st_size)
        except OSError as error:
            raise _cannot_open(source.name, error) from error
    return source


def _from_bytes(data: bytes, name: str, limits: Limits) -> Source:
    limits.check_memory_bytes(len(data))
    if not data:
        raise MediaError(f"{name}: empty, 0 bytes; expected a media file")
    kind, format = sniff(data[:HEAD_BYTES], name)
    return Source(kind=kind, format=format, name=name, data=data)


def _from_mapping(source: Mapping[str, Any], limits: Limits) -> Source:
    """The forms of Hugging Face `datasets`: decoded sound, and media that are not decoded."""
    keys = set(source)
    if keys >= {"array", "sampling_rate"} and keys <= {"array", "sampling_rate", "path"}:
        return _from_samples(source["sampling_rate"], source["array"], limits)
    if keys and keys <= {"bytes", "path"}:
        data, path = source.get("bytes"), source.get("path")
        if isinstance(data, bytes | bytearray | memoryview):
            limits.check_memory_bytes(memoryview(data).nbytes)
            return _from_bytes(bytes(data), Path(path).name if path else "bytes", limits)
        if data is None and isinstance(path, str | os.PathLike):
            return resolve(path, limits)
    raise MediaError(f"cannot read a mapping with the keys {sorted(map(str, source))}; expected {TAKEN}")


def _from_file(file: Any, limits: Limits) -> Source:
    path = _path_behind(file)
    if path is not None:
        return _from_path(path, limits)
    name = Path(file.name).name if isinstance(getattr(file, "name", None), str) else "file object"
    parts, total = [], 0
    try:
        stood = file.tell() if not hasattr(file, "seekable") or file.seekable() else None
        if stood is not None:
            file.seek(0)
        while part := file.read(_READ_BYTES):
            if not isinstance(part, bytes | bytearray | memoryview):
                raise MediaError(f"{name}: gives text; open the file with 'rb'")
            total += len(part)
            limits.check_memory_bytes(total)
            parts.append(bytes(part))
        if stood is not None:
            file.seek(stood)
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # closed, or not opened for reading
        raise MediaError(f"{name}: cannot be read ({error}); expected a binary file opened for reading") from error
    return _from_bytes(b"".join(parts), name, limits)


def _path_behind(file: Any) -> Path | None:
    """Of a file that was opened on disk for reading alone: it need not be held in memory."""
    name = getattr(file, "name", None)
    if getattr(file, "mode", None) != "rb" or not isinstance(name, str):
        return None
    try:
        there = os.stat(name)
        return Path(name) if os.path.samestat(os.fstat(file.fileno()), there) and stat.S_ISREG(there.st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None


def _from_list(source: Sequence[Any], limits: Limits) -> Source:
    if not source:
        raise MediaError("the list of frames is empty; expected at least one frame")
    numbers = [isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in source[:3]]
    if sorted(numbers) == [False, True]:
        rate, samples = source if numbers[0] else reversed(source)
        return _from_samples(rate, samples, limits)
    if numbers[0]:
        raise MediaError(f"cannot read a list of numbers; pass them as an array, or as (rate, samples): {TAKEN}")
    frames = [_frame(item, f"frame {number}", limits) for number, item in enumerate(source)]
    return Source(kind="frames", name="list of frames", frames=frames)


def _frame(item: Any, name: str, limits: Limits) -> Any:
    """One of a list: an array, a Pillow image, or the source of a picture."""
    if isinstance(item, Image.Image):
        limits.check_pixels(*item.size)
        return item
    array = as_array(item, limits)
    if array is not None:
        return array
    try:
        found = resolve(item, limits)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    if found.kind != "picture":
        raise MediaError(f"{name}: expected one picture, got {found.name} ({found.kind}); pass that alone")
    return found


def _from_samples(rate: Any, samples: Any, limits: Limits) -> Source:
    array = as_array(samples, limits)
    if isinstance(samples, list | tuple):
        try:
            array = as_array(np.asarray(samples), limits)
        except ValueError as error:  # rows of different lengths
            raise MediaError(f"a sound of lists that make no array ({error})") from error
    if array is None or not isinstance(rate, int | float | np.number):
        raise MediaError(f"a sound of {type(samples).__name__} at {rate!r} Hz; expected an array of samples and a rate")
    return Source(kind="sound", name="sound", audio=as_audio(array, float(rate), limits, name="sound"))


def _local_path(text: str) -> Path:
    scheme = text.split(":", 1)[0].lower() if "://" in text else ""
    if text[:5].lower() == "file:":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise MediaError(f"file URL names the host {parts.netloc!r}; expected file:///path on this machine")
        return Path(unquote(parts.path))
    if scheme:
        raise MediaError(f"{scheme}: URLs are off; download the file and pass its path")
    if "\0" in text:
        raise MediaError("the path holds a NUL character; check where it comes from")
    return Path(text)


def _from_path(path: Path, limits: Limits) -> Source:
    name = path.name or str(path)
    name = name if len(name) <= _LONGEST_NAME else f"{name[:40]}... ({len(name)} characters)"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Source(kind="folder", name=name, path=path)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{name}: not a regular file; expected a media file or a folder of frames")
        limits.check_file_bytes(status.st_size)
        if status.st_size == 0:
            raise MediaError(f"{name}: empty, 0 bytes; expected a media file")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise _cannot_open(name, error) from error
    kind, format = sniff(head, name)
    return Source(kind=kind, format=format, name=name, path=path)


def _cannot_open(name: str, error: OSError) -> MediaError:
    return MediaError(f"{name}: cannot be opened ({error.strerror}); check the path")


def _decode_data_url(url: str, limits: Limits) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise MediaError("data URL without a comma; expected data:video/mp4;base64,AAAA")
    if not head.lower().endswith(";base64"):
        limits.check_memory_bytes(len(body))
        return unquote_to_bytes(body)
    limits.check_memory_bytes(len(body) * 3 // 4 - 2)
    try:
        return base64.b64decode(body.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"data URL is not valid base64 ({error}); encode it again") from error
