"""What a picture file says before its pixels, looked through before a reader of Pillow keeps all of it."""

import io
import struct
from collections.abc import Iterator

from avllm.errors import MediaError
from avllm.media.boxes import HeifItems, boxes
from avllm.media.cursor import Cursor
from avllm.media.limits import Limits
from avllm.media.tags import EXIF_HEAD, check_tags

_MOST_PARTS = 10_000  # beside those of pixels and frames; a photo has some dozens
_MOST_CHUNKS = 1 << 20  # of a PNG of 8 GB in the usual pieces of 8 kB
_MOST_EXIF_BYTES = 1 << 22  # 64 kB by the standard
_MOST_JUNK_BYTES = 1 << 16
_MOST_SCANS = 200  # each goes over the whole picture; a progressive JPEG has 10, a photo of three pictures 30
_FRAME_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_ALONE = frozenset({0xD8, 0x01, *range(0xD0, 0xD8)})  # markers of JPEG without a length

Readable = io.BytesIO | io.BufferedReader


def check_jpeg(file: Readable, name: str) -> None:
    """Walks to where the pixels begin, and counts the scans in which they come.

    Source: ISO/IEC 10918-1, annex B.

    Raises:
        MediaError: so many parts or scans, or so much Exif, that only a forger writes it.
    """
    file.seek(0)
    exif, num_parts, num_junk, byte = b"", 0, 0, file.read(1)
    while byte:
        mark = file.read(1) if byte == b"\xff" else b"\0"
        if mark == b"\xff":
            continue
        if byte != b"\xff" or mark == b"\0":
            num_junk += 1
        elif mark[:1] == b"\xda":
            break
        elif mark and mark[0] not in _ALONE:
            part = file.read(max(0, int.from_bytes(file.read(2), "big") - 2))
            num_parts += 1
            if mark == b"\xe1" and part.startswith(EXIF_HEAD) and len(exif) <= _MOST_EXIF_BYTES:
                exif += part[len(EXIF_HEAD) :]
            if mark == b"\xe2" and part.startswith(b"MPF\0"):
                check_tags(io.BytesIO(part[4:]), name)
        if max(num_parts, num_junk // (_MOST_JUNK_BYTES // _MOST_PARTS)) > _MOST_PARTS or len(exif) > _MOST_EXIF_BYTES:
            raise _overfull(name)
        byte = file.read(1)
    check_tags(io.BytesIO(exif), name)
    if _num_scans(file) > _MOST_SCANS:
        raise _overfull(name)


def _num_scans(file: Readable) -> int:
    """Behind the first, those of further pictures among them; in coded pixels no such bytes follow each other."""
    count, last = 0, b""
    while piece := file.read(1 << 20):
        count += (last + piece).count(b"\xff\xda")
        last = piece[-1:] if piece[-1:] == b"\xff" else b""
    return count


def check_png(file: Readable, name: str, limits: Limits, *, first_only: bool) -> None:
    """Walks over all parts.

    Raises:
        MediaError: so many parts that only a forger writes them, or a limit of pixels or of frames is passed.
    """
    size = file.seek(0, io.SEEK_END)
    at, num_chunks, num_others = 8, 0, 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if kind == b"IHDR" and len(head) == 16:
            file.seek(at + 8)
            limits.check_pixels(*struct.unpack(">II", file.read(8).ljust(8, b"\0")))
        elif kind == b"acTL" and not first_only:
            limits.check_frames(int.from_bytes(head[8:12], "big"), "the animation")
        num_chunks += 1
        num_others += kind not in _FRAME_CHUNKS
        if num_others > _MOST_PARTS or num_chunks > _MOST_CHUNKS:
            raise _overfull(name)
        if kind == b"IEND":
            break
        at += 12 + length


def read_webp(data: bytes, name: str, limits: Limits) -> list[float]:
    """How long each frame is shown, in milliseconds; nothing of a picture that does not move.

    Source: the WebP container specification, RFC 9649.

    Raises:
        MediaError: truncated, or over a limit of pixels or of frames.
    """
    file = Cursor(data, name, order="little")
    file.skip(12)
    lengths, num_others = [], 0
    while file.left >= 8:
        kind, length = file.take(4), file.uint(4)
        part = Cursor(file.data[file.at : file.at + min(length, 16)], name, order="little")
        if kind == b"VP8X":
            part.skip(4)
            limits.check_pixels(part.uint(3) + 1, part.uint(3) + 1)
        elif kind == b"VP8 ":
            part.skip(6)
            limits.check_pixels(part.uint(2) & 0x3FFF, part.uint(2) & 0x3FFF)
        elif kind == b"VP8L":
            part.skip(1)
            sides = part.uint(4)
            limits.check_pixels((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1)
        elif kind == b"ANMF":
            part.skip(12)
            lengths.append(float(part.uint(3)))
            limits.check_frames(len(lengths), "the animation")
        num_others += kind != b"ANMF"
        if num_others > _MOST_PARTS:
            raise _overfull(name)
        file.skip(min(length + (length & 1), file.left))
    return lengths


def read_avif(data: bytes, name: str, limits: Limits) -> list[float]:
    """How long each frame is shown, in milliseconds; nothing of a picture that does not move.

    Source: ISO/IEC 14496-12 (mdhd, stts, stsz).

    Raises:
        MediaError: more frames than allowed are stated, or its tags are made to fill the memory.
    """
    lengths: list[float] = []
    for kind, box in _top_boxes(Cursor(data, name)):
        if kind == "meta":
            _check_exif(data, name, box)
        elif kind == "moov":
            for track in (body for kind, body in boxes(box) if kind == "trak"):
                lengths = lengths or _track_lengths(track, data, name, limits)
    return lengths


def _track_lengths(track: Cursor, data: bytes, name: str, limits: Limits) -> list[float]:
    found = dict(boxes(track))
    if "meta" in found:
        _check_exif(data, name, found["meta"])
    media = dict(boxes(found["mdia"])) if "mdia" in found else {}
    info = dict(boxes(media["minf"])) if "minf" in media else {}
    table = dict(boxes(info["stbl"])) if "stbl" in info else {}
    if "stsz" in table:
        table["stsz"].skip(8)
        limits.check_frames(table["stsz"].uint(4), "the animation")
    if "stsc" in table:
        table["stsc"].skip(4)
        for _ in range(table["stsc"].uint(4)):
            table["stsc"].skip(4)
            limits.check_frames(table["stsc"].uint(4), "the animation")
            table["stsc"].skip(4)
    if not {"mdhd", "hdlr"} <= media.keys() or "stts" not in table:
        return []
    media["hdlr"].skip(8)
    if media["hdlr"].take(4) != b"pict":
        return []
    version = media["mdhd"].uint(1)
    media["mdhd"].skip(3 + (16 if version == 1 else 8))
    return _milliseconds(table["stts"], media["mdhd"].uint(4) or 1, limits)


def _milliseconds(box: Cursor, ticks_per_second: int, limits: Limits) -> list[float]:
    """As libavif and Pillow tell them: begins rounded, one by one."""
    box.skip(4)
    begins, ticks, last = [], 0, 0
    for _ in range(box.uint(4)):
        count, last = box.uint(4), box.uint(4)
        limits.check_frames(len(begins) + count, "the animation")
        begins += [ticks + last * i for i in range(count)]
        ticks += last * count
    begins_ms = [round(1000 * (begin / ticks_per_second)) for begin in begins]
    ends_ms = [*begins_ms[1:], begins_ms[-1] + round(1000 * (last / ticks_per_second))] if begins else []
    return [float(end - begin) for begin, end in zip(begins_ms, ends_ms, strict=True)]


def _check_exif(data: bytes, name: str, meta: Cursor) -> None:
    items = HeifItems(io.BytesIO(data), name, meta=meta)
    for item in items.items.values():
        if item.kind == "Exif":
            body = items.data(item, _MOST_EXIF_BYTES)
            check_tags(io.BytesIO(body[4:]), name)


def _top_boxes(file: Cursor) -> Iterator[tuple[str, Cursor]]:
    """Those that tell of the pictures; what holds the pictures is passed over."""
    for _ in range(_MOST_PARTS):
        if file.left < 8:
            return
        start, size, kind = file.at, file.uint(4), file.take(4)
        size = file.uint(8) if size == 1 else size or len(file.data) - start
        if size < file.at - start:
            return
        body = size - (file.at - start)
        if kind in (b"meta", b"moov"):
            yield kind.decode(), file.sub(min(body, file.left))
        else:
            file.skip(min(body, file.left))


def _overfull(name: str) -> MediaError:
    return MediaError(f"{name}: holds more about the picture than any writer puts there; it is damaged or forged")
