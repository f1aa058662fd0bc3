"""Good files made bad: by bits, by the sizes that a format writes, and by the structure of a text. All by a seed."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Literal

from tests.fuzz.mutate_text import change_csv, change_json, change_jsonl, change_request, change_yaml

Form = Literal["media", "safetensors", "binary", "json", "jsonl", "yaml", "csv", "request"]

# Of 8, 16, 32 and 64 bits: zero, one, the largest of either sign and its neighbours.
EDGES = tuple({0, 1, *(2**bits + more for bits in (7, 8, 15, 16, 31, 32, 63) for more in (-1, 0, 1)), 2**64 - 1, 255})
HEAD = 600  # bytes in which most formats write what matters


def mutate(data: bytes, rng: Random, form: Form, other: bytes = b"") -> bytes:
    """A damaged copy, equal for equal seeds.

    Args:
        data: a good file.
        rng: all that is drawn.
        form: what the file is, so that damage can follow its structure.
        other: a file of the same kind, a piece of which may be put in.
    """
    if form in _BY_STRUCTURE and rng.random() < 0.75:
        changed = _BY_STRUCTURE[form](data, rng)
        if changed != data:
            return changed
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(_OPERATIONS)(data, rng, other)
    return data


def _at(data: bytes, rng: Random) -> int:
    """A place, more often near the start."""
    reach = min(len(data), HEAD) if rng.random() < 0.6 else len(data)
    return rng.randrange(reach) if reach else 0


def _flip_bits(data: bytes, rng: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 32)) if data else 0):
        changed[_at(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _swap(data: bytes, rng: Random, other: bytes) -> bytes:
    size = rng.choice((1, 2, 4, 16))
    one, two = _at(data, rng), _at(data, rng)
    changed = bytearray(data)
    changed[one : one + size], changed[two : two + size] = data[two : two + size], data[one : one + size]
    return bytes(changed)


def _truncate(data: bytes, rng: Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: Random, other: bytes) -> bytes:
    at, size = _at(data, rng), rng.choice((1, 2, 4, 64, 1024))
    piece = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:at] + piece + data[at:]


def _repeat(data: bytes, rng: Random, other: bytes) -> bytes:
    start = _at(data, rng)
    piece = data[start : start + rng.choice((4, 32, 512, 4096))]
    return data[:start] + piece * rng.choice((2, 2, 3, 20)) + data[start + len(piece) :]


def _remove(data: bytes, rng: Random, other: bytes) -> bytes:
    start = _at(data, rng)
    return data[:start] + data[start + rng.choice((1, 4, 32, 512, 4096)) :]


def _splice(data: bytes, rng: Random, other: bytes) -> bytes:
    if not other:
        return _repeat(data, rng, other)
    if rng.random() < 0.5:
        return data[: _at(data, rng)] + other[_at(other, rng) :]
    at, start = _at(data, rng), _at(other, rng)
    piece = other[start : start + rng.choice((16, 256, 4096))]
    return data[:at] + piece + data[at + len(piece) :]


def _number(data: bytes, rng: Random, other: bytes) -> bytes:
    """An edge value in place of a field of 1, 2, 4 or 8 bytes."""
    width = rng.choice((1, 2, 4, 4, 8))
    at = _at(data, rng)
    value = rng.choice(EDGES) % 2 ** (8 * width)
    if rng.random() < 0.3 and at + width <= len(data):  # or a neighbour of what stands there
        value = (int.from_bytes(data[at : at + width]) + rng.choice((-1, 1, 7, -8, 256))) % 2 ** (8 * width)
    order: Literal["little", "big"] = rng.choice(("little", "big"))
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


_OPERATIONS = (_flip_bits, _flip_bits, _swap, _truncate, _insert, _repeat, _remove, _splice, _number, _number)


def _change_media(data: bytes, rng: Random) -> bytes:
    """Damage at the boxes or chunks of a format: their sizes, names, order, and numbers in the small ones."""
    found = list(_chunks(data))
    if not found:
        return data
    start, size_at, width, order, end = rng.choice(found)
    how = rng.randrange(6)
    if how == 0:
        value = rng.choice((*EDGES, end - start, end - start - 1, end - start + 1, len(data))) % 2 ** (8 * width)
        return data[:size_at] + value.to_bytes(width, order) + data[size_at + width :]
    if how == 1:
        return data[:start] + data[end:]
    if how == 2:
        return data[:start] + data[start:end] * rng.choice((2, 3, 50)) + data[end:]
    if how == 3:
        other = rng.choice(found)
        return data[:start] + data[other[0] : other[4]] + data[end:]
    inside = start + 8
    if end <= inside:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        field = rng.choice((1, 2, 4, 4))
        at = inside + rng.randrange(max(1, min(end - inside, 256)))
        value = rng.choice(EDGES) if how == 4 else rng.randrange(2 ** (8 * field))
        changed[at : at + field] = (value % 2 ** (8 * field)).to_bytes(field, order)
    return _with_checksum(bytes(changed[: len(data)]), start, end)


def _with_checksum(data: bytes, start: int, end: int) -> bytes:
    """A chunk of PNG with the checksum that it needs to be read at all."""
    if data[:4] != b"\x89PNG" or end - start < 12:
        return data
    return data[: end - 4] + struct.pack(">I", zlib.crc32(data[start + 4 : end - 4])) + data[end:]


def _chunks(data: bytes) -> Iterator[tuple[int, int, int, Literal["little", "big"], int]]:
    """Start, place and width of the size, byte order, and end of every box or chunk that can be made out."""
    if data[4:8] in (b"ftyp", b"moov", b"styp", b"mdat"):
        yield from _boxes(data, 0, len(data), 0)
    elif data[:4] == b"\x89PNG":
        at = 8
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4])
            yield at, at, 4, "big", min(end, len(data))
            at = end
    elif data[:4] in (b"RIFF", b"FORM"):
        order: Literal["little", "big"] = "little" if data[:4] == b"RIFF" else "big"
        at = 12
        while at + 8 <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], order)
            yield at, at + 4, 4, order, min(at + 8 + size, len(data))
            at += 8 + size + size % 2
    elif data[:4] == b"\x1aE\xdf\xa3":
        yield from _elements(data)


_BOXES_OF_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"iprp", b"ipco", b"meta"}


def _boxes(data: bytes, at: int, end: int, depth: int) -> Iterator[tuple[int, int, int, Literal["big"], int]]:
    while at + 8 <= end and depth < 8:
        size = int.from_bytes(data[at : at + 4])
        stop = min(at + size, end) if size >= 8 else end
        yield at, at, 4, "big", stop
        if data[at + 4 : at + 8] in _BOXES_OF_BOXES:
            yield from _boxes(data, at + (12 if data[at + 4 : at + 8] == b"meta" else 8), stop, depth + 1)
        at = stop


_MASTERS = {
    b"\x18\x53\x80\x67",
    b"\x16\x54\xae\x6b",
    b"\xae",
    b"\xe0",
    b"\xe1",
    b"\x15\x49\xa9\x66",
    b"\x1f\x43\xb6\x75",
}


def _elements(data: bytes) -> Iterator[tuple[int, int, int, Literal["big"], int]]:
    """The elements of Matroska; of the large ones their content, too."""
    at = 0
    while at < len(data) and data[at]:
        size_at = at + 9 - data[at].bit_length()
        if size_at >= len(data) or not data[size_at]:
            return
        width = 9 - data[size_at].bit_length()
        size = int.from_bytes(data[size_at : size_at + width]) & (2 ** (7 * width) - 1)
        yield at, size_at, width, "big", min(size_at + width + size, len(data))
        at = size_at + width if data[at:size_at] in _MASTERS else size_at + width + size


def _change_safetensors(data: bytes, rng: Random) -> bytes:
    """Another header before the same weights, whose length is right; or another length."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.2 or length > len(data) - 8:
        return (rng.choice(EDGES) % 2**64).to_bytes(8, "little") + data[8:]
    try:
        header = change_json(data[8 : 8 + length], rng)
    except json.JSONDecodeError:
        return data
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


_BY_STRUCTURE: dict[str, Callable[[bytes, Random], bytes]] = {
    "media": _change_media,
    "safetensors": _change_safetensors,
    "json": change_json,
    "jsonl": change_jsonl,
    "yaml": change_yaml,
    "csv": change_csv,
    "request": change_request,
}
