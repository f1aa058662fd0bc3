"""HEIC files for the tests: coded pictures, put together by boxes of our own."""

import struct
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

BRAND = b"heic"


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(picture: np.ndarray) -> tuple[bytes, bytes]:
    """HEVC of a picture [h w 3]: its configuration (a whole `hvcC` box) and its data."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv444p", Fraction(1, 1)
    encoder.options = {"x265-params": "log-level=none:info=0", "crf": "4"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")
    stream = b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")[1:]]
    heads = {kind: [unit for unit in units if unit[0] >> 1 == kind] for kind in (32, 33, 34)}
    arrays = b""
    for kind, found in heads.items():
        arrays += struct.pack(">BH", 0x80 | kind, len(found))
        arrays += b"".join(struct.pack(">H", len(unit)) + unit for unit in found)
    profile = heads[33][0].replace(b"\0\0\3", b"\0\0")[3:15]
    head = b"\1" + profile + struct.pack(">HBBBBHBB", 0xF000, 0xFC, 0xFF, 0xF8, 0xF8, 0, 0x0F, len(heads))
    slices = [unit for unit in units if unit[0] >> 1 < 32]
    return box(b"hvcC", head, arrays), b"".join(struct.pack(">I", len(unit)) + unit for unit in slices)


class Item:
    """An item of a file.

    Args:
        kind: `hvc1`, `grid`, ...
        data: what is stored of it.
        properties: whole boxes, in the order in which they apply.
        references: kind -> numbers of items.
        hidden: not to be shown on its own.
        in_idat: stored within the list of items.
    """

    def __init__(
        self,
        kind: bytes,
        data: bytes,
        properties: Sequence[bytes],
        references: dict[bytes, list[int]] | None = None,
        *,
        hidden: bool = False,
        in_idat: bool = False,
    ) -> None:
        self.kind, self.data, self.properties = kind, data, list(properties)
        self.references, self.hidden, self.in_idat = references or {}, hidden, in_idat


def size_of(width: int, height: int) -> bytes:
    """`ispe`."""
    return full(b"ispe", 0, 0, struct.pack(">II", width, height))


def picture_item(picture: np.ndarray, *changes: bytes, **options) -> Item:
    """A coded picture as an item."""
    configuration, data = coded(picture)
    return Item(b"hvc1", data, [configuration, size_of(picture.shape[1], picture.shape[0]), *changes], **options)


def grid_item(rows: int, columns: int, size: tuple[int, int], tiles: list[int], *changes: bytes) -> Item:
    """Tiles put together to a picture of `size` (w, h)."""
    recipe = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    return Item(b"grid", recipe, [size_of(*size), *changes], {b"dimg": tiles}, in_idat=True)


def heif(items: Sequence[Item], primary: int) -> bytes:
    """A file of items, numbered from 1."""
    head = box(b"ftyp", BRAND, bytes(4), b"mif1", BRAND)
    length = len(head) + len(_meta(items, primary, 0))
    return head + _meta(items, primary, length + 8) + box(b"mdat", *(i.data for i in items if not i.in_idat))


def _meta(items: Sequence[Item], primary: int, start: int) -> bytes:
    kept: list[bytes] = []
    infos, places, references, associations, inside = [], [], [], [], b""
    for number, item in enumerate(items, 1):
        infos.append(full(b"infe", 2, int(item.hidden), struct.pack(">HH4s", number, 0, item.kind), b"\0"))
        at = len(inside) if item.in_idat else start
        places.append(struct.pack(">HHHHII", number, int(item.in_idat), 0, 1, at, len(item.data)))
        inside, start = (inside + item.data, start) if item.in_idat else (inside, start + len(item.data))
        for kind, others in item.references.items():
            ids = [struct.pack(">H", other) for other in others]
            references.append(box(kind, struct.pack(">HH", number, len(others)), *ids))
        for one in item.properties:
            if one not in kept:
                kept.append(one)
        marks = bytes(0x80 * (one[4:8] != b"ispe") | kept.index(one) + 1 for one in item.properties)
        associations.append(struct.pack(">HB", number, len(marks)) + marks)
    return full(
        b"meta",
        0,
        0,
        full(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"pict"), b"\0"),
        full(b"pitm", 0, 0, struct.pack(">H", primary)),
        full(b"iloc", 1, 0, struct.pack(">BBH", 0x44, 0, len(items)), *places),
        full(b"iinf", 0, 0, struct.pack(">H", len(items)), *infos),
        full(b"iref", 0, 0, *references),
        box(
            b"iprp",
            box(b"ipco", *kept),
            full(b"ipma", 0, 0, struct.pack(">I", len(items)), *associations),
        ),
        box(b"idat", inside),
    )
