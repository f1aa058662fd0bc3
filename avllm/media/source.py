"""What a user hands over, told apart by its content: a container, a picture, a folder of frames, frames in memory."""

import base64
import binascii
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np

from avllm.errors import MediaError
from avllm.media.limits import Limits

MediaSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Sequence[object]

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A medium with its kind.

    Args:
        kind: `container` (PyAV reads it), `picture` (Pillow reads it), `folder` or `frames`.
        name: for messages; the last part of a path, never all of it.
        path: of a container, picture or folder on disk.
        data: of a container or picture in memory.
        frames: for `frames`.
    """

    kind: Literal["container", "picture", "folder", "frames"]
    name: str
    path: Path | None = None
    data: bytes | None = None
    frames: np.ndarray | Sequence[object] | None = None

    @property
    def file(self) -> str | io.BytesIO:
        """What PyAV opens. The `file:` prefix and a whole path keep names such as `concat:a` from being protocols."""
        return io.BytesIO(self.data) if self.data is not None else f"file:{os.path.abspath(str(self.path))}"


def resolve(source: MediaSource, limits: Limits) -> Source:
    """Tells what `source` is, without decoding any of it.

    Raises:
        MediaError: no such file, an empty or too large one, a URL that is not allowed, a type that is not known.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), "bytes", limits)
    if isinstance(source, np.ndarray):
        return Source(kind="frames", name="array", frames=source)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_bytes(_decode_data_url(source, limits), "data URL", limits)
    if isinstance(source, str | os.PathLike):
        return _from_path(_local_path(os.fspath(source)), limits)
    if isinstance(source, Sequence):
        if not source:
            raise MediaError("the list of frames is empty; expected at least one frame")
        return Source(kind="frames", name="list of frames", frames=source)
    raise MediaError(f"cannot read a {type(source).__name__}; pass a path, bytes, an array or a list of frames")


def _from_bytes(data: bytes, name: str, limits: Limits) -> Source:
    limits.check_memory_bytes(len(data))
    if not data:
        raise MediaError(f"{name}: empty, 0 bytes; expected a media file")
    return Source(kind=_sniff(data[:16]), name=name, data=data)


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
            head = file.read(16)
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror}); check the path") from error
    return Source(kind=_sniff(head), name=name, path=path)


def _sniff(head: bytes) -> Literal["container", "picture"]:
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return "picture" if is_webp or head.startswith(_PICTURES) else "container"


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
