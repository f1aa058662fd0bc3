"""Texts that stand for media: paths, `file:` and `data:` URLs; nothing is fetched from anywhere."""

import binascii
import re
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from avllm.errors import MediaError
from avllm.media.limits import Limits

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,19})://", re.IGNORECASE)
_PIECE = 1 << 16


def local_path(text: str) -> Path:
    """The path that a text or a `file:` URL names.

    Raises:
        MediaError: it names nothing, another machine, or cannot be the name of a file.
    """
    if text[:5].lower() == "file:":
        try:
            parts = urlsplit(text)
            text = unquote(parts.path) if parts.netloc in ("", "localhost") else ""
        except ValueError:
            text = ""
        if not text:
            raise MediaError("a file URL of another host, or of no file; expected file:///path on this machine")
    elif scheme := _SCHEME.match(text):
        raise MediaError(f"{scheme[1].lower()}: URLs are off; download the file and pass its path")
    if "\0" in text:
        raise MediaError("the path holds a NUL character; check where it comes from")
    if not text:
        raise MediaError("the path is empty; expected a media file or a folder of frames")
    return Path(text)


def decode_data_url(url: str, limits: Limits) -> bytes:
    """The bytes in a `data:` URL.

    Raises:
        MediaError: it is none, holds several pictures, or more bytes than a medium in memory may have.
    """
    start = url.find(",") + 1
    if not start:
        raise MediaError("data URL without a comma; expected data:video/mp4;base64,AAAA")
    if url[:start].lower().endswith(";base64,"):
        limits.check_memory_bytes((len(url) - start) * 3 // 4 - 2)
        if url.find(",", start) >= 0:
            raise MediaError("data URL with several parts; expected one file in it: pass the frames as a list")
        try:
            return binascii.a2b_base64(url[start:].strip(), strict_mode=True)
        except ValueError as error:
            raise MediaError("data URL is not valid base64; encode it again") from error
    limits.check_memory_bytes(len(url) - start)
    data = bytearray()
    while start < len(url):
        # Piece by piece: each escape is an object of its own for a moment.
        end = start + _PIECE
        cut = url.find("%", max(start, end - 2), end)
        end = end if cut < 0 else cut
        try:
            data += unquote_to_bytes(url[start:end] if end > start else url[start : start + 3])
        except ValueError as error:
            raise MediaError("data URL holds characters that are no bytes; encode it again") from error
        start = end if end > start else start + 3
    return bytes(data)
