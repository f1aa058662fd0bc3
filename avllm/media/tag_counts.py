"""How many tags a file holds, counted before FFmpeg reads them: it compares each with all those before it.

A song of a megabyte with 60,000 tags keeps it busy for a minute, one of 16 MB for hours.
"""

import io
import re
from collections.abc import Iterator

from avllm.errors import MediaError
from avllm.media.source import Source

MOST_TAGS = 5000
_MOST_TAG_BYTES = 1 << 28  # FFmpeg reads no larger ones
_MOST_CHUNKS = 200_000
_HEAD_BYTES = 1 << 20
_FAR = 1 << 40  # file systems refuse places that no file of theirs can have
_OGG_COMMENTS = re.compile(rb"OpusTags|\x03vorbis|\x81theora")
_ID3_FRAMES = re.compile(rb"TXXX|WXXX|COMM|USLT|PRIV|GEOB|CHAP|TXX\0|COM\0")
_SEGMENT, _TAGS, _CHAPTERS = bytes.fromhex("18538067"), bytes.fromhex("1254c367"), bytes.fromhex("1043a770")
_SIMPLE_TAG, _CHAPTER_UID = b"\x67\xc8", b"\x73\xc4"


def check_tags(source: Source) -> None:
    """Raises MediaError when a file holds more tags than `MOST_TAGS`."""
    with source.open() as file:
        count = max(_counts(file), default=0)
    if count > MOST_TAGS:
        raise MediaError(f"{source.name}: holds more than {MOST_TAGS} tags; write it again without them")


def _counts(file: io.BytesIO | io.BufferedReader) -> Iterator[int]:
    """How many tags each list of them holds; at least as many as there are."""
    head = file.read(12)
    if head[:3] == b"ID3" and len(head) >= 10:
        file.seek(0)
        body = file.read(min(_MOST_TAG_BYTES, _synchsafe(head[6:10]) + 10))
        yield len(_ID3_FRAMES.findall(body))
        head = file.read(12)  # FLAC may come after it
    if head[:4] == b"fLaC":
        yield from _of_flac(file, file.tell() - len(head) + 4)
    elif head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        yield from _of_chunks(file, 12, "big" if head[:4] in (b"RIFX", b"FORM") else "little")
    elif head[:4] == b"OggS":
        file.seek(0)
        part = file.read(_HEAD_BYTES)
        for found in _OGG_COMMENTS.finditer(part):
            at = found.end()
            at += 4 + int.from_bytes(part[at : at + 4], "little")  # who wrote it
            yield int.from_bytes(part[at : at + 4], "little") if at + 4 <= len(part) else MOST_TAGS + 1
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        yield from _of_matroska(file)


def _of_flac(file: io.BytesIO | io.BufferedReader, at: int) -> Iterator[int]:
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[1:4])
        if head[0] & 0x7F == 4:
            file.seek(at + 8 + int.from_bytes(head[4:8], "little"))
            yield int.from_bytes(file.read(4), "little")
        if head[0] & 0x80:
            return
        at += 4 + length


def _of_chunks(file: io.BytesIO | io.BufferedReader, at: int, order: str) -> Iterator[int]:
    """Of WAV, AVI and AIFF: each chunk of a list of tags is one."""
    is_big = order == "big"
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:8], "big" if is_big else "little")
        if head[:4] == b"LIST" and head[8:12] == b"INFO":
            yield sum(1 for _ in _sizes(file.read(min(length, _MOST_TAG_BYTES) - 4), is_big=is_big))
        elif head[8:11] == b"ID3":
            yield len(_ID3_FRAMES.findall(file.read(min(length, _MOST_TAG_BYTES))))
        at += 8 + length + length % 2


def _sizes(body: bytes, *, is_big: bool) -> Iterator[int]:
    at = 0
    while at + 8 <= len(body):
        length = int.from_bytes(body[at + 4 : at + 8], "big" if is_big else "little")
        yield length
        at += 8 + length + length % 2


def _of_matroska(file: io.BytesIO | io.BufferedReader) -> Iterator[int]:
    """Tags and chapters lie beside the clusters, of which only the lengths are looked at."""
    file.seek(0)
    for _ in range(_MOST_CHUNKS):
        number, length = element(file)
        if number == _SEGMENT:
            continue  # and into it
        if not number or length is None:
            return
        if number in (_TAGS, _CHAPTERS):
            body = file.read(min(length, _MOST_TAG_BYTES))
            yield body.count(_SIMPLE_TAG if number == _TAGS else _CHAPTER_UID)
        else:
            skip(file, length)


def skip(file: io.BufferedIOBase, length: int) -> None:
    """Passes over so many bytes; a forged length leads behind the end of any file, and no further."""
    file.seek(min(length, _FAR), io.SEEK_CUR)


def element(file: io.BufferedIOBase) -> tuple[bytes, int | None]:
    """Id and length of the EBML element that begins here; the length is None where it is not known."""
    first = file.read(1)
    number = first + file.read(8 - first[0].bit_length()) if first and first[0] else first
    first = file.read(1)
    if not first or not first[0]:
        return number, None
    num_more = 8 - first[0].bit_length()
    bits = 7 * (num_more + 1)
    length = int.from_bytes(first + file.read(num_more)) & ((1 << bits) - 1)
    return number, None if length == (1 << bits) - 1 else length


def _synchsafe(size: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
