"""Keys of media by what they hold, not by what they are called."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from avllm.media.clips import Audio

MAX_PATH = 4096


def content_key(source: Any, options: Mapping[str, Any]) -> str:
    """A digest of what a source holds and how it is read.

    Args:
        source: path, bytes, URL, array, list of frames, `Audio`; of a folder, names, sizes and times of change.
        options: everything that changes what is read from it.
    """
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, source)
    digest.update(repr(sorted(options.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()


def _add(digest: Any, source: Any) -> None:
    path = _path(source)
    if path is not None and path.is_dir():
        for file in sorted(path.iterdir()):
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        digest.update(str(path.resolve()).encode())
    elif path is not None and path.is_file():
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    elif isinstance(source, bytes | bytearray):
        digest.update(hashlib.blake2b(source, digest_size=16).digest())  # as of a file that holds them
    elif isinstance(source, str | Path):
        digest.update(str(source).encode())
    elif isinstance(source, list | tuple):
        for item in source:
            _add(digest, item)
    elif isinstance(source, Audio):
        digest.update(f"{source.sample_rate} {source.start_s} ".encode())
        _add(digest, source.waveform)
    else:
        array = np.ascontiguousarray(np.asarray(source))
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())


def _path(source: Any) -> Path | None:
    if not isinstance(source, str | Path):
        return None
    text = str(source)
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    elif text.startswith(("data:", "https:", "http:")) or "\0" in text or len(text) > MAX_PATH:
        return None
    return Path(text)
