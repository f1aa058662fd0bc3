"""What an mp4 states about its samples, checked against its size: FFmpeg takes memory for as many as it is told of.

A file of some kilobytes that states 10^8 samples costs gigabytes there, long before any of them is read.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from avllm.errors import MediaError
from avllm.media.source import Source
from avllm.media.tag_counts import MOST_TAGS

MOST_SAMPLES = 8_000_000  # of all tracks: six hours of 120 frames and 50 packets of sound in a second are 4 million
_MOST_EDITED = 20_000_000  # each edit may list the samples of its track once more
_MOST_PER_BYTE = 8  # samples of sound without compression, or with a simple one
_MOST_PLACES = 4_000_000  # fragments, of which each track keeps something
_MOST_HEADER_BYTES, _MOST_UNPACKED_BYTES = 1 << 28, 1 << 25
_MOST_BOXES, _MOST_DEPTH = 1_000_000, 16
_READ_BYTES = 1 << 20
_LISTS = frozenset(
    b"moov hoov trak mdia minf stbl edts dinf mvex moof mfra traf tref sinf schi wave udta ilst gmhd iprp".split()
)
_TABLES = frozenset({b"stsz", b"stz2", b"stts", b"stsc", b"stco", b"co64", b"elst", b"hdlr"})


@dataclass(kw_only=True)
class _Track:
    """What is stated about one track.

    Args:
        is_sound: whether it is called sound, and nothing else.
        num_samples: how many it has.
        is_fixed: whether all of them have one size, so that a large number of them costs no bytes.
        step: their duration, if it is stated once for all of them.
        runs: first chunk, and samples in it and in those after it.
        num_chunks: how many it has.
        num_edits: how many parts of it are shown.
    """

    is_sound: bool = False
    num_samples: int = 0
    is_fixed: bool = False
    step: int | None = None
    runs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    num_chunks: int = 0
    num_edits: int = 0

    @property
    def is_plain_sound(self) -> bool:
        """Whether FFmpeg lists chunks of it, not samples."""
        return self.is_sound and self.is_fixed and self.step == 1

    @property
    def num_in_chunks(self) -> float:
        """How many samples its chunks hold."""
        firsts = np.append(self.runs[:, 0], self.num_chunks + 1.0)
        return float((np.maximum(np.diff(firsts), 0) * self.runs[:, 1]).sum())


def check_tables(source: Source) -> None:
    """Looks at the header of a file that is made of boxes (mp4, mov); any other is left alone.

    Raises:
        MediaError: it states more samples than it has room for, or than are read.
    """
    with source.open() as file:
        _Checker(file, source.name).check()


class _Checker:
    """Adds up what a file states.

    Args:
        file: open for reading.
        name: for messages.
    """

    def __init__(self, file: io.BytesIO | io.BufferedReader, name: str) -> None:
        self.file, self.name = file, name
        self.size = file.seek(0, io.SEEK_END)
        self.tracks: list[_Track] = []
        self.num_in_fragments = self.num_places = 0
        self.is_fragmented = False

    def check(self) -> None:
        """Raises MediaError when the sums are beyond the limits."""
        self._take_last_index()
        for kind, start, length in self._top():
            if kind == b"moof":
                self.is_fragmented = True
            elif kind in _LISTS | _TABLES or kind in (b"cmov", b"meta", b"sidx"):
                self._take(kind, self._read(start, length), 0)
            elif kind == b"free" and self._read(start, min(length, 8))[4:] in (b"mvhd", b"cmov"):
                self._take(b"moov", self._read(start, length), 0)  # FFmpeg looks into it when it finds no other
        if self.is_fragmented:
            self._find_fragments()
        total = self.num_in_fragments
        for track in self.tracks:
            if track.is_plain_sound:
                most = _MOST_PER_BYTE * self.size
                self._check(track.num_samples <= most and track.num_in_chunks <= most)
            else:
                total += track.num_samples
                self._check(track.num_edits < 2 or track.num_edits * track.num_samples <= _MOST_EDITED)
        self._check(total <= MOST_SAMPLES and self.num_places * len(self.tracks) <= _MOST_PLACES)

    def _check(self, can_be: bool) -> None:
        if not can_be:
            raise MediaError(
                f"{self.name}: states more samples than it has room for, or than the {MOST_SAMPLES} that are read;"
                f" it is damaged, or cut it into parts"
            )

    def _top(self) -> Iterator[tuple[bytes, int, int]]:
        """Kind, place and length of the boxes of the file, as far as they make sense."""
        at = 0
        for _ in range(_MOST_BOXES):
            self.file.seek(at)
            head = _head(self.file.read(16), self.size - at)
            if head is None:
                return
            kind, header, length = head
            yield kind, at + header, length
            at += header + length
        raise MediaError(f"{self.name}: made of more than {_MOST_BOXES} pieces; join them with another program")

    def _read(self, start: int, length: int) -> memoryview:
        if length > _MOST_HEADER_BYTES:
            raise MediaError(f"{self.name}: a header of {length} bytes; the file is damaged")
        self.file.seek(start)
        return memoryview(self.file.read(length))

    def _take_last_index(self) -> None:
        """The file may end with an index of fragments, wherever that lies."""
        self.file.seek(max(0, self.size - 4))
        length = int.from_bytes(self.file.read(4))
        if 8 <= length <= self.size:
            self.file.seek(self.size - length)
            if self.file.read(8)[4:] == b"mfra":
                self.is_fragmented = True
                self._take(b"mfra", self._read(self.size - length + 8, length - 8), 0)

    def _find_fragments(self) -> None:
        """An index of fragments may lead anywhere: each place is looked at where one could begin."""
        at, rest = 0, b""
        while True:
            self.file.seek(at)
            part = self.file.read(_READ_BYTES)
            if not part:
                return
            found, here = rest + part, at - len(rest)
            place = found.find(b"moof")
            while place >= 0:
                start = here + place - 4
                if start >= 0:
                    self.file.seek(start)
                    head = _head(self.file.read(16), self.size - start)
                    if head is not None:
                        length = min(head[2], _MOST_HEADER_BYTES)
                        self._take(b"moof", self._read(start + head[1], length), 0)
                        self.num_places += 1
                place = found.find(b"moof", place + 1)
            at, rest = at + len(part), found[-3:]

    def _take(self, kind: bytes, body: memoryview, depth: int) -> None:
        """Takes a box, and those in it."""
        if kind == b"trak":
            self.tracks.append(_Track())
        if kind in _LISTS and depth < _MOST_DEPTH:
            for inner, part in _boxes(body):
                self._take(inner, part, depth + 1)
        elif kind in (b"meta", b"stsd"):
            if kind == b"meta" and bytes(body).count(b"data") > 2 * MOST_TAGS:
                raise MediaError(f"{self.name}: holds more than {MOST_TAGS} tags; write it again without them")
            # Their fields come before their boxes, of which there should be no tables at all.
            for table in (b"stsz", b"stz2", b"trun"):
                place = bytes(body).find(table)
                while place >= 0:
                    self._take(table, body[place + 4 :], depth + 1)
                    place = bytes(body).find(table, place + 1)
        elif kind == b"cmov":
            self._take(b"moov", self._unpacked(body), depth + 1)
        elif kind == b"trun":
            self._take_run(body)
        elif kind in (b"sidx", b"tfra"):
            self.is_fragmented = True
            self.num_places += len(body) // 11  # the smallest entry
        elif kind in _TABLES and self.tracks:
            self._take_table(kind, body, self.tracks[-1])

    def _take_run(self, body: memoryview) -> None:
        self.num_in_fragments += _first(body)[1]
        self._check(self.num_in_fragments <= MOST_SAMPLES)

    def _take_table(self, kind: bytes, body: memoryview, track: _Track) -> None:
        _, second, third = _first(body)
        if kind == b"stsz":
            track.is_fixed = track.is_fixed or second > 0
            # The sizes of the others have to be there.
            track.num_samples = max(track.num_samples, third if second else min(third, self.size // 4))
        elif kind == b"stz2":
            track.num_samples = max(track.num_samples, min(third, 2 * self.size))
        elif kind == b"stts":
            track.step = int.from_bytes(body[12:16]) if second == 1 and track.step in (None, 1) else -1
        elif kind == b"stsc":
            count = min(second, (len(body) - 8) // 12)
            rows = np.frombuffer(body[8 : 8 + 12 * count], ">u4").reshape(count, 3)[:, :2]
            track.runs = np.concatenate([track.runs, rows.astype(np.float64)])
        elif kind in (b"stco", b"co64"):
            track.num_chunks = max(track.num_chunks, min(second, self.size // 4))
        elif kind == b"elst":
            track.num_edits = max(track.num_edits, min(second, self.size // 12))
        elif body[8:12] in (b"soun", b"vide"):
            track.is_sound = body[8:12] == b"soun"

    def _unpacked(self, body: memoryview) -> memoryview:
        """The header of an old QuickTime film, which is packed."""
        packed = dict(_boxes(body)).get(b"cmvd", memoryview(b""))[4:]
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(packed, _MOST_UNPACKED_BYTES)
        except zlib.error as error:
            raise MediaError(f"{self.name}: its packed header cannot be unpacked; the file is damaged") from error
        if unpacker.unconsumed_tail:
            raise MediaError(f"{self.name}: its packed header holds more than {_MOST_UNPACKED_BYTES} bytes")
        return dict(_boxes(memoryview(data))).get(b"moov", memoryview(b""))


def _boxes(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while (head := _head(bytes(body[at : at + 16]), len(body) - at)) is not None:
        kind, header, length = head
        yield kind, body[at + header : at + header + length]
        at += header + length


def _head(head: bytes, left: int) -> tuple[bytes, int, int] | None:
    """Kind, length of the header, and of the body that fits, of a box; None where there is none."""
    if len(head) < 8:
        return None
    size, kind, header = int.from_bytes(head[:4]), head[4:8], 8
    if size == 1 and len(head) == 16:
        size, header = int.from_bytes(head[8:], signed=True), 16
    size = size or left
    return (kind, header, min(size, left) - header) if size >= header <= left else None


def _first(body: memoryview) -> tuple[int, int, int]:
    """The first three numbers of a table: its version and flags, and two more; 0 where it ends."""
    first, second, third = (int.from_bytes(body[at : at + 4]) for at in (0, 4, 8))
    return first, second, third
