"""Media that were seen or heard once: their tokens, kept by content within a bound of bytes."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from jaxtyping import Float
from torch import Tensor

from avllm.model import Medium

MAX_PATH = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Perceived:
    """A medium as the decoder gets it.

    Args:
        key: says which content, read how, by which branch; equal keys have equal tokens.
        medium: its place in a prompt.
        tokens: what fills its slots.
        decode_s: seconds it took to open it.
        encode_s: seconds it took to encode it.
    """

    key: str
    medium: Medium
    tokens: Float[Tensor, "m d"]
    decode_s: float = 0.0
    encode_s: float = 0.0


class MediaStore:
    """The media used last, by key. Several threads may use it.

    Args:
        max_bytes: of tokens that are kept.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, Perceived] = OrderedDict()
        self._lock = RLock()

    def get(self, key: str) -> Perceived | None:
        """The medium of this key, if it is still there."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, perceived: Perceived) -> None:
        """Keeps a medium and forgets those unused for longest."""
        with self._lock:
            self._kept[perceived.key] = perceived
            while self.num_bytes() > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)

    def num_bytes(self) -> int:
        """Bytes of all tokens kept."""
        return sum(item.tokens.numel() * item.tokens.element_size() for item in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)


def content_key(source: Any, options: Mapping[str, Any]) -> str:
    """A digest of what a source holds and how it is read.

    Args:
        source: path, bytes, URL, array or list of frames. Of a folder, names, sizes and times of change are taken.
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
        digest.update(source)
    elif isinstance(source, str | Path):
        digest.update(str(source).encode())
    elif isinstance(source, list | tuple):
        for item in source:
            _add(digest, item)
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
