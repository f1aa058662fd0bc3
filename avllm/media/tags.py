"""Tables of tags in TIFF and Exif: a megabyte of them can state gigabytes, which a reader would take."""

import io
import struct
from dataclasses import dataclass, field

from avllm.errors import MediaError

EXIF_HEAD = b"Exif\0\0"
# Bytes of one value by its type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTE_LIKE = frozenset({1, 2, 6, 7})
_MOST_VALUES = 1 << 20  # of one tag: each becomes an object; a large picture has some thousand strips
_SHARED = 1 << 20  # writers let equal values share their place, which are few and small
_TABLES = (34665, 34853, 40965)  # tags whose value is the place of a table: Exif, GPS, interoperability


@dataclass
class _Budget:
    size: int
    total: int = 0
    seen: set[int] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What the first table says.

    Args:
        names: numbers of its tags.
        values: of those that have one whole number.
        has_next: whether another picture follows.
    """

    names: frozenset[int]
    values: dict[int, int]
    has_next: bool


def check_tags(file: io.BytesIO | io.BufferedReader, name: str) -> Tags:
    """Reads the tables, not their values.

    Source: TIFF 6.0, section 2.

    Raises:
        MediaError: the values would take much more than the file has, in which they lie over one another.
    """
    size = file.seek(0, io.SEEK_END)
    start = 0
    while _read(file, start, len(EXIF_HEAD)) == EXIF_HEAD:
        start += len(EXIF_HEAD)
    head = _read(file, start, 8)
    order = "<" if head[:2] == b"II" else ">"
    if len(head) < 8 or 43 in head[2:4]:  # too short for any, or a BigTIFF, which no camera writes
        return Tags(names=frozenset(), values={}, has_next=False)
    budget = _Budget(size=size - start)
    place = struct.unpack(order + "I", head[4:])[0]
    return _table(file, start, place, order, name, budget)


def _table(
    file: io.BytesIO | io.BufferedReader, start: int, place: int, order: str, name: str, budget: _Budget
) -> Tags:
    budget.seen.add(place)
    body = _read(file, start + place, 2)
    count = struct.unpack(order + "H", body)[0] if len(body) == 2 else 0
    body = _read(file, start + place + 2, 12 * count + 4)
    names, values = set(), {}
    for at in range(0, min(12 * count, len(body) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", body, at)
        length = number * _SIZES.get(kind, 0)
        offset = struct.unpack_from(order + "I", body, at + 8)[0]
        names.add(tag)
        if length > 4 and offset + length <= budget.size:  # what is not there is not read
            budget.total += length
            if budget.total > budget.size + _SHARED or (number > _MOST_VALUES and kind not in _BYTE_LIKE):
                raise MediaError(f"{name}: its tags state more data than the file holds; it is damaged")
        if number == 1 and kind in (3, 4, 13):
            values[tag] = offset if kind != 3 else struct.unpack_from(order + "H", body, at + 8)[0]
    for tag in _TABLES:
        if tag in values and values[tag] not in budget.seen and len(budget.seen) < len(_TABLES) + 1:
            _table(file, start, values[tag], order, name, budget)
    follows = struct.unpack_from(order + "I", body, 12 * count)[0] if len(body) == 12 * count + 4 else 0
    return Tags(names=frozenset(names), values=values, has_next=follows not in (0, place))


def _read(file: io.BytesIO | io.BufferedReader, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
