"""The items of a HEIF file: pictures, the tiles of which they are made, and what is to be done with them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from avllm.errors import MediaError
from avllm.media.cursor import Cursor

_MOST_META_BYTES = 1 << 22  # of a photo of 48 tiles there are 5000
_MOST_BOXES = 10_000  # beside one another in a file
_MOST_PARTS = 1 << 14  # items, pieces of them, or what is said of them
_MOST_PROPERTIES = 255  # of one item
_IN_FILE, _IN_IDAT = 0, 1


@dataclass(frozen=True, kw_only=True)
class Property:
    """What is said of an item.

    Args:
        kind: four characters, such as `irot`.
        body: without the header.
        is_essential: whoever does not know it must not show the item.
    """

    kind: str
    body: bytes
    is_essential: bool


@dataclass(kw_only=True)
class Item:
    """A picture, a tile or a recipe for putting others together.

    Args:
        id: its number in the file.
        kind: four characters: a codec (`hvc1`, `av01`), or a recipe (`grid`).
        properties: in the order in which they apply.
        extents: (construction method, offset, length) of its parts; a length of 0 goes to the end.
        references: kind of reference -> numbers of items.
    """

    id: int
    kind: str
    properties: list[Property] = field(default_factory=list)
    extents: list[tuple[int, int, int]] = field(default_factory=list)
    references: dict[str, list[int]] = field(default_factory=dict)

    def find(self, kind: str) -> bytes | None:
        """Body of its first property of a kind."""
        return next((p.body for p in self.properties if p.kind == kind), None)


class HeifItems:
    """The items of one file.

    Source: ISO/IEC 14496-12 (meta, iloc, iinf, iref) and 23008-12 (properties, derived pictures).

    Args:
        file: positioned anywhere.
        name: for messages.
        meta: the box that lists them; that of the whole file if None.

    Raises:
        MediaError: no such file, or damaged.
    """

    def __init__(self, file: io.BytesIO | io.BufferedReader, name: str, *, meta: Cursor | None = None) -> None:
        self.file, self.name, self.num_parts = file, name, 0
        self.size = file.seek(0, io.SEEK_END)
        self.items: dict[int, Item] = {}
        self.primary_id: int | None = None
        self.idat = b""
        meta = meta or self._find_meta()
        meta.take(4)
        found = dict(boxes(meta))
        for kind, parse in (("iinf", self._infos), ("iloc", self._locations), ("iref", self._references)):
            if kind in found:
                parse(found[kind])
        if "iprp" in found:
            self._properties(found["iprp"])
        if "pitm" in found:
            self.primary_id = found["pitm"].uint(2 if _version(found["pitm"]) == 0 else 4)
        if "idat" in found:
            self.idat = found["idat"].take(found["idat"].left)

    @property
    def primary(self) -> Item:
        """The picture that is meant to be shown."""
        if self.primary_id is None:
            raise MediaError(f"{self.name}: names no picture to be shown; the file is damaged")
        return self.item(self.primary_id)

    def item(self, number: int) -> Item:
        """Raises MediaError when there is none of that number."""
        if number not in self.items:
            raise MediaError(f"{self.name}: picture item {number} is missing; the file is damaged")
        return self.items[number]

    def data(self, item: Item, most_bytes: int) -> bytes:
        """What is stored of an item.

        Raises:
            MediaError: it lies outside of the file, or is more than `most_bytes`.
        """
        parts, total = [], 0
        for method, offset, length in item.extents:
            end = self.size if method == _IN_FILE else len(self.idat)
            length = length or end - offset
            total += length
            if not 0 <= offset <= offset + length <= end or total > most_bytes:
                raise MediaError(f"{self.name}: picture item {item.id} lies outside of the file; it is truncated")
            if method == _IN_FILE:
                self.file.seek(offset)
                parts.append(self.file.read(length))
            elif method == _IN_IDAT:
                parts.append(self.idat[offset : offset + length])
            else:
                raise MediaError(f"{self.name}: picture item {item.id} is cut out of another one, which is not read")
        return b"".join(parts)

    def _find_meta(self) -> Cursor:
        at = 0
        for _ in range(_MOST_BOXES):
            if at + 8 > self.size:
                break
            self.file.seek(at)
            head = Cursor(self.file.read(16), self.name)
            size, kind, header = head.uint(4), head.take(4), 8
            if size == 1:
                size, header = head.uint(8), 16
            size = size or self.size - at
            if size < header:
                break
            if kind == b"meta":
                if size > _MOST_META_BYTES:
                    break
                self.file.seek(at + header)
                return Cursor(self.file.read(size - header), self.name)
            at += size
        raise MediaError(f"{self.name}: holds no list of its pictures; the file is truncated or damaged")

    def _infos(self, box: Cursor) -> None:
        box.uint(2 if _version(box) == 0 else 4)
        for kind, info in boxes(box):
            version = _version(info)
            if kind == "infe" and version >= 2:
                number = info.uint(2 if version == 2 else 4)
                if info.uint(2):
                    raise MediaError(f"{self.name}: holds encrypted pictures, which are not read")
                self._count()
                self.items[number] = Item(id=number, kind=_text(info.take(4)))

    def _locations(self, box: Cursor) -> None:
        version = _version(box)
        sizes = box.uint(1), box.uint(1)
        offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
        index_size = sizes[1] & 15 if version else 0
        for _ in range(box.uint(2 if version < 2 else 4)):
            number = box.uint(2 if version < 2 else 4)
            method = box.uint(2) & 15 if version else _IN_FILE
            is_elsewhere, base = box.uint(2), box.uint(base_size)
            count = box.uint(2)
            if is_elsewhere or (count > 1 and not offset_size + length_size):
                raise MediaError(f"{self.name}: picture item {number} lies in another file or nowhere")
            for _ in range(count):
                box.uint(index_size)
                self._count()
                extent = method, base + box.uint(offset_size), box.uint(length_size)
                if number in self.items:
                    self.items[number].extents.append(extent)

    def _references(self, box: Cursor) -> None:
        size = 2 if _version(box) == 0 else 4
        for kind, body in boxes(box):
            number = body.uint(size)
            others = [body.uint(size) for _ in range(body.uint(2))]
            if number in self.items:
                self.items[number].references.setdefault(kind, []).extend(others)

    def _properties(self, box: Cursor) -> None:
        known: list[tuple[str, bytes]] = []
        for kind, body in boxes(box):
            if kind == "ipco":
                known = [(name, part.take(part.left)) for name, part in boxes(body)]
            elif kind == "ipma":
                self._associate(body, known)

    def _associate(self, box: Cursor, known: list[tuple[str, bytes]]) -> None:
        version, is_wide = box.uint(1), bool(box.uint(3) & 1)
        for _ in range(box.uint(4)):
            number = box.uint(2 if version < 1 else 4)
            for _ in range(box.uint(1)):
                entry = box.uint(2 if is_wide else 1)
                essential = 1 << (15 if is_wide else 7)
                place = entry & (essential - 1)
                if number not in self.items or not place:
                    continue
                if place > len(known):
                    raise MediaError(f"{self.name}: picture item {number} has properties that are not there")
                self._count()
                kind, body = known[place - 1]
                found = Property(kind=kind, body=body, is_essential=bool(entry & essential))
                self.items[number].properties.append(found)
                if len(self.items[number].properties) > _MOST_PROPERTIES:
                    raise MediaError(f"{self.name}: picture item {number} has too many properties; it is damaged")

    def _count(self) -> None:
        self.num_parts += 1
        if self.num_parts > _MOST_PARTS:
            raise MediaError(f"{self.name}: lists more pictures and parts than any camera writes; it is damaged")


def boxes(box: Cursor) -> Iterator[tuple[str, Cursor]]:
    """Kind and body of each box in a box."""
    while box.left >= 8:
        size, kind, header = box.uint(4), _text(box.take(4)), 8
        if size == 1:
            size, header = box.uint(8), 16
        length = size - header if size else box.left
        if length < 0:
            raise MediaError(f"{box.name}: a box of {size} bytes; the file is damaged")
        yield kind, box.sub(length)


def _version(box: Cursor) -> int:
    version = box.uint(1)
    box.take(3)
    return version


def _text(code: bytes) -> str:
    return code.decode("latin-1")
