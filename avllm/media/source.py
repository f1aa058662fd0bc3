"""What a user hands over, told apart by its content: a container, a picture, a folder, frames or sound in memory."""

import io
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media import digests
from avllm.media.clips import Audio
from avllm.media.files import cannot_open, disk_faults, frame_files, open_regular, shown, shown_name, state_of
from avllm.media.formats import HEAD_BYTES, sniff
from avllm.media.limits import Limits
from avllm.media.objects import as_array, kind_of_object, object_faults, path_behind, read_object
from avllm.media.urls import decode_data_url, local_path
from avllm.media.waveforms import as_audio, check_audio

TAKEN = (
    "a path, a file: or data: URL, bytes, an open binary file, an array or a tensor, a Pillow image, a list of frames"
    " or of their paths, (rate, samples), {'array', 'sampling_rate'}, {'bytes', 'path'}, or an avllm.media.Audio"
)


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
        """The bytes of a container or picture. Raises MediaError when the file is gone, or is a file no more."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        return open_regular(self.path, self.name)

    def read(self, limits: Limits) -> bytes:
        """All of those bytes. Raises MediaError when they are more than a medium in memory may have."""
        if self.data is not None:
            limits.check_memory_bytes(len(self.data))
            return self.data
        with disk_faults(self.name), self.open() as file:
            size = file.seek(0, io.SEEK_END)
            limits.check_memory_bytes(size)
            file.seek(0)
            return file.read(size)

    def names(self) -> list[str]:
        """Names of the pictures of a folder, in their order. Raises MediaError when it cannot be read."""
        if self.path is None or self.kind != "folder":
            raise MediaError(f"{self.name}: not a folder")
        return [path.name for path in frame_files(self.path, self.name)]

    def member(self, name: str, limits: Limits) -> "Source":
        """What a folder holds by a name. Raises MediaError, see `resolve`."""
        assert self.path is not None
        return resolve(self.path / name, limits)

    @property
    def digest(self) -> bytes:
        """A digest of the content: that of its bytes, of the pixels of its frames, or of its samples.

        It is computed once; of what lies on disk again whenever that has changed.

        Raises:
            MediaError: frames or a file that cannot be read.
        """
        state = self._state()
        known = self.__dict__.get("_known_digest")
        if known is None or known[0] != state:
            known = self.__dict__["_known_digest"] = state, self._digest()
        return known[1]

    def _state(self) -> Any:
        if self.path is None:
            return None
        try:
            if self.kind == "folder":
                return [(path.name, digests.state_or_nothing(path)) for path in frame_files(self.path, self.name)]
            return state_of(self.path)
        except (OSError, ValueError) as error:
            raise cannot_open(self.name, error) from error

    def _digest(self) -> bytes:
        if self.data is not None:
            return digests.of_bytes(self.data)
        if self.path is not None and self.kind == "folder":
            return digests.of_folder(self.path, self.name)
        if self.audio is not None:
            return digests.of_audio(self.audio)
        if self.frames is not None:
            return digests.of_frames(self.frames, self.name)
        with disk_faults(self.name), self.open() as file:
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
        return _from_bytes(decode_data_url(source, limits), "data URL", limits)
    if isinstance(source, str | os.PathLike):
        with object_faults(f"a {kind_of_object(source)} that is no path", "pass a text"):
            text = os.fsdecode(source)
        return _from_path(local_path(text), limits)
    if isinstance(source, bytes | bytearray | memoryview):
        limits.check_memory_bytes(memoryview(source).nbytes)  # before they are copied
        return _from_bytes(bytes(source), "bytes", limits)
    if isinstance(source, Audio):
        return Source(kind="sound", name="sound", audio=check_audio(source, limits))
    if isinstance(source, Image.Image):
        limits.check_pixels(*source.size)
        return Source(kind="frames", name="Pillow image", frames=source)
    array = as_array(source, limits)
    if array is not None:
        return Source(kind="frames" if array.ndim > 2 else "samples", name="array", frames=array)
    if isinstance(source, Mapping):
        return _from_mapping(source, limits)
    with object_faults(f"a {kind_of_object(source)} that cannot be read", f"expected {TAKEN}"):
        is_file = hasattr(source, "read")
    if is_file:
        path = path_behind(source)
        return _from_path(path, limits) if path is not None else _from_bytes(*read_object(source, limits), limits)
    if isinstance(source, Sequence):
        return _from_list(source, limits)
    raise MediaError(f"cannot read a {kind_of_object(source)}; expected {TAKEN}")


def _checked(source: Source, limits: Limits) -> Source:
    if source.data is not None:
        limits.check_memory_bytes(len(source.data))
    elif source.path is not None and source.kind != "folder":
        try:
            limits.check_file_bytes(source.path.stat().st_size)
        except OSError as error:
            raise cannot_open(source.name, error) from error
    return source


def _from_bytes(data: bytes, name: str, limits: Limits) -> Source:
    limits.check_memory_bytes(len(data))
    if not data:
        raise MediaError(f"{name}: empty, 0 bytes; expected a media file")
    kind, format = sniff(data[:HEAD_BYTES], name)
    return Source(kind=kind, format=format, name=name, data=data)


def _from_mapping(source: Mapping[str, Any], limits: Limits) -> Source:
    """The forms of Hugging Face `datasets`: decoded sound, and media that are not decoded."""
    with object_faults(f"a {kind_of_object(source)} that cannot be read", f"expected {TAKEN}"):
        given = {key: source[key] for key in islice(source, 4)}
    keys = set(given)
    if keys >= {"array", "sampling_rate"} and keys <= {"array", "sampling_rate", "path"}:
        return _from_samples(given["sampling_rate"], given["array"], limits)
    if keys and keys <= {"bytes", "path"}:
        data, path = given.get("bytes"), given.get("path")
        is_path = isinstance(path, str | os.PathLike)
        if isinstance(data, bytes | bytearray | memoryview):
            limits.check_memory_bytes(memoryview(data).nbytes)
            name = shown(os.path.basename(path)) if isinstance(path, str) and path else "bytes"
            return _from_bytes(bytes(data), name or "bytes", limits)
        if data is None and is_path:
            return resolve(path, limits)
    named = sorted(key if isinstance(key, str) and key.isidentifier() else kind_of_object(key) for key in keys)
    raise MediaError(f"cannot read a mapping with the keys {[shown(key) for key in named]}; expected {TAKEN}")


def _from_list(source: Sequence[Any], limits: Limits) -> Source:
    with object_faults(f"a {kind_of_object(source)} that cannot be read", f"expected {TAKEN}"):
        first = list(islice(iter(source), 3))
    if not first:
        raise MediaError("the list of frames is empty; expected at least one frame")
    numbers = [isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in first]
    if sorted(numbers) == [False, True]:
        rate, samples = first if numbers[0] else reversed(first)
        return _from_samples(rate, samples, limits)
    if numbers[0]:
        raise MediaError(f"cannot read a list of numbers; pass them as an array, or as (rate, samples): {TAKEN}")
    with object_faults(f"a {kind_of_object(source)} that cannot be read", f"expected {TAKEN}"):
        items = list(source)
    frames, total = [], 0
    for number, item in enumerate(items):
        frames.append(_frame(item, f"frame {number}", limits))
        total += len(frames[-1].data or b"") if isinstance(frames[-1], Source) else 0
        limits.check_memory_bytes(total)
    return Source(kind="frames", name="list of frames", frames=frames)


def _frame(item: Any, name: str, limits: Limits) -> Any:
    """One of a list: an array, a Pillow image, or the source of a picture."""
    if isinstance(item, Image.Image):
        limits.check_pixels(*item.size)
        return item
    if isinstance(item, Sequence) and not isinstance(item, str | bytes | bytearray | memoryview):
        raise MediaError(f"{name}: expected one picture, got a {kind_of_object(item)}; pass it as an array or a path")
    try:
        array = as_array(item, limits)
        if array is not None:
            return array
        found = resolve(item, limits)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    if found.kind != "picture":
        raise MediaError(f"{name}: expected one picture, got {found.name} ({found.kind}); pass that alone")
    return found


def _from_samples(rate: Any, samples: Any, limits: Limits) -> Source:
    array = as_array(samples, limits)
    if isinstance(samples, list | tuple):
        with object_faults("a sound of lists that make no array", "pass it as an array"):
            array = as_array(np.asarray(samples), limits)
    hertz = None
    if isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool):
        hertz = math.inf if abs(rate) > 1e15 else float(rate)  # an int may be beyond any float
    if array is None or hertz is None:
        at = f"a rate of the type {kind_of_object(rate)}" if hertz is None else f"{hertz:g} Hz"
        raise MediaError(f"a sound of {kind_of_object(samples)} at {at}; expected an array of samples and a rate")
    return Source(kind="sound", name="sound", audio=as_audio(array, hertz, limits, name="sound"))


def _from_path(path: Path, limits: Limits) -> Source:
    name = shown_name(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Source(kind="folder", name=name, path=path)
        with open_regular(path, name) as file:
            size = os.fstat(file.fileno()).st_size
            limits.check_file_bytes(size)
            if size == 0:
                raise MediaError(f"{name}: empty, 0 bytes; expected a media file")
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise cannot_open(name, error) from error
    kind, format = sniff(head, name)
    return Source(kind=kind, format=format, name=name, path=path)
