"""Files without an index, walked through once, undecoded: where each packet lies, in the file and in time.

Seeking by time is guesswork in such files. After a walk a packet is found by its bytes, and told by what it holds.
"""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from zlib import crc32

import av
import numpy as np
from av import AudioStream, Packet, VideoStream
from av.container import InputContainer

from avllm.media.container import Damage, codec_name, demuxed, is_cover, seconds_per_tick, until_fault

NO_TIME = -(2**63)
# Clocks that go back, or in broadcast formats far ahead, belong to another recording that was joined.
_BACK_S, _AHEAD_S = Fraction(1, 10), 10
# Elsewhere (Matroska, ASF) FFmpeg reads on from a place in the file with what it remembers of another.
_SOUGHT_BY_BYTES = frozenset(
    {"mpegts", "mpeg", "flv", "ogg", "h264", "hevc", "mpegvideo", "m4v", "vc1", "obu", "ivf", "dv"}
)
_HASHED_BYTES = 4096
_MOST_PACKETS = 5_000_000  # of a track, of which 40 bytes each are remembered
_MOST_TICKS = 1 << 56  # a thousand years in nanoseconds; sums of such times still are numbers of 64 bits
_LOOK_BEHIND, _LOOK_AHEAD = 4, 64  # packets, around where a seek should have landed
_VP8_IS_SHOWN, _THEORA_IS_HEADER = 0x10, 0x80


class Unseekable(Exception):
    """A packet is not found by seeking: the file has to be read from its start."""


@dataclass(kw_only=True)
class Part:
    """One of the recordings that were joined, in ticks of its own clock.

    Args:
        first: number of its first packet.
        start: earliest time.
        end: when its last packet is over.
        num_packets: how many it has.
        shift: what takes its times to the common clock.
    """

    first: int
    start: int
    end: int
    num_packets: int = 0
    shift: int = 0


@dataclass(kw_only=True, eq=False)
class Track:
    """The packets of one track, in the order of the file.

    Args:
        tick: seconds of one count of its clock.
        num_packets: how many hold something.
        parts: the recordings it is joined from.
        times: when each is shown or heard, on a clock that goes on through all parts; NO_TIME where unknown.
        keys: numbers of those that can be decoded without an earlier one.
        hidden: numbers of those that are never shown: VP8 has frames that only others refer to.
        headers: numbers of those that describe a recording which was joined, and are no frames.
        num_stumbles: how often a clock goes back where nothing was joined.
        total: durations of all packets together, in ticks.
    """

    tick: Fraction
    num_packets: int = 0
    parts: list[Part] = field(default_factory=list)
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    keys: array = field(default_factory=lambda: array("q"))
    hidden: set[int] = field(default_factory=set)
    headers: set[int] = field(default_factory=set)
    num_stumbles: int = 0
    total: int = 0
    raw: array = field(default_factory=lambda: array("q"))
    places: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("q"))
    sums: array = field(default_factory=lambda: array("q"))
    _last: int | None = None

    def __post_init__(self) -> None:
        self.back = math.ceil(-_BACK_S / self.tick)

    @property
    def start_s(self) -> Fraction | None:
        """When it begins; None without times."""
        return self.parts[0].start * self.tick if self.parts else None

    @property
    def length_s(self) -> Fraction:
        """From its begin to its end, all parts together."""
        if not self.parts:
            return self.total * self.tick
        return (self.parts[-1].end + self.parts[-1].shift - self.parts[0].start) * self.tick

    def add(self, packet: Packet, *, is_kept: bool, is_reordered: bool, codec: str, ahead: int | None) -> None:
        """Takes the next packet; only of a kept track more than its edges is remembered."""
        pts, dts = _possible(packet.pts), _possible(packet.dts)
        clock = pts if dts is None and not is_reordered else dts
        time = pts if pts is not None or is_reordered else dts
        if clock is not None or (not self.parts and time is not None):
            passed = 0 if clock is None or self._last is None else clock - self._last
            if not self.parts or passed < self.back or (ahead is not None and passed > ahead):
                start = time if time is not None else clock or 0
                self.parts.append(Part(first=self.num_packets, start=start, end=start))
            elif passed < 0:
                self.num_stumbles += 1
            self._last = clock
        duration = max(0, _possible(packet.duration) or 0)
        if time is not None and self.parts:
            part = self.parts[-1]
            part.start, part.end = min(part.start, time), max(part.end, time + duration)
        if is_kept:
            if self.num_packets >= _MOST_PACKETS:
                raise OverflowError(f"more than {_MOST_PACKETS} packets")
            if packet.is_keyframe:
                self.keys.append(self.num_packets)
            first = memoryview(packet)[0]
            if "vp8" in codec and not first & _VP8_IS_SHOWN:
                self.hidden.add(self.num_packets)
            elif codec == "theora" and first & _THEORA_IS_HEADER:
                self.headers.add(self.num_packets)
            self.raw.append(NO_TIME if time is None else time)
            self.places.append(-1 if packet.pos is None else packet.pos)
            self.sizes.append(packet.size)
            self.sums.append(crc32(memoryview(packet)[:_HASHED_BYTES]))
        if self.parts:
            self.parts[-1].num_packets += 1
        self.num_packets += 1
        self.total += duration


@dataclass(frozen=True, kw_only=True)
class Walk:
    """All tracks of pictures and sound of a file, by their index."""

    tracks: dict[int, Track]

    @property
    def num_parts(self) -> int:
        """How many recordings were joined."""
        return max((len(track.parts) for track in self.tracks.values()), default=1)


class Walker:
    """Collects packets, of all tracks, from the start of a file to its end.

    Args:
        container: the file.
        kept: tracks of which every packet is remembered.
    """

    def __init__(self, container: InputContainer, kept: Iterable[VideoStream | AudioStream]) -> None:
        self.streams = [s for s in container.streams.video if not is_cover(s)] + list(container.streams.audio)
        self.kept = {stream.index for stream in kept}
        self.tracks = {s.index: Track(tick=seconds_per_tick(s)) for s in self.streams}
        self.reordered = {s.index for s in container.streams.video if s.codec_context and s.codec_context.has_b_frames}
        self.codecs = {stream.index: codec_name(stream) for stream in self.streams}
        self.has_no_times = container.format.name == "avi"
        may_jump = container.format.name in ("mpegts", "mpeg")
        self.ahead = {n: math.floor(_AHEAD_S / track.tick) if may_jump else None for n, track in self.tracks.items()}

    def add(self, packet: Packet) -> None:
        """Takes the next packet."""
        number = packet.stream_index
        if self.has_no_times:
            packet.pts = None if number in self.reordered else packet.dts
        if packet.size and number in self.tracks:
            is_kept, is_reordered, codec = number in self.kept, number in self.reordered, self.codecs[number]
            self.tracks[number].add(
                packet, is_kept=is_kept, is_reordered=is_reordered, codec=codec, ahead=self.ahead[number]
            )

    def finish(self) -> Walk:
        """All that was met, on one clock."""
        heard = [track for track in self.tracks.values() if track.parts]
        for track in heard:
            _close(track)
        if len({len(track.parts) for track in heard}) == 1:
            _join(heard)
        else:
            for track in heard:  # Not all tracks go on after a join: each follows its own clock.
                _join([track])
        for number in self.kept & self.tracks.keys():
            track = self.tracks[number]
            track.times = np.array(track.raw, np.int64)
            for part in track.parts:
                times = track.times[part.first : part.first + part.num_packets]
                times[times != NO_TIME] += part.shift
        return Walk(tracks=self.tracks)


def walk(container: InputContainer, kept: VideoStream | AudioStream) -> Walk:
    """Reads a freshly opened file from its start to its end, or to where it cannot be read any further."""
    walker = Walker(container, [kept])
    try:
        for packet in demuxed(container, walker.streams):
            walker.add(packet)
    except av.FFmpegError:
        if not walker.tracks[kept.index].num_packets:
            raise
    return walker.finish()


def packets_from(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    track: Track,
    number: int,
    damage: Damage,
    *,
    is_fresh: bool = False,
) -> Iterator[tuple[int, Packet]]:
    """The packets of a walked track from one of them on, with their numbers, and with their times of the common clock.

    Args:
        container: where they are read.
        stream: the track in it.
        track: what was met on the walk.
        number: of the first packet.
        damage: counts a fault that ends the file.
        is_fresh: nothing was read yet, so the file is read from its start.

    Raises:
        Unseekable: what is read is not what was met.
    """
    if not is_fresh and number >= track.num_packets:
        return  # The walk met none.
    here, packets = (0, demuxed(container, stream)) if is_fresh else _found(container, stream, track, number)
    for packet in until_fault(packets, damage):
        if not packet.size:
            if here < track.num_packets and not is_fresh:  # After a seek FFmpeg ends a joined Matroska file too early.
                raise Unseekable
            yield track.num_packets, packet
            continue
        if here >= track.num_packets or track.sizes[here] != packet.size:
            raise Unseekable
        if here >= number and here not in track.headers:
            time = int(track.times[here])
            packet.pts, packet.dts = (None if time == NO_TIME else time), None
            yield here, packet
        here += 1


def chained(packet: Packet, packets: Iterator[Packet]) -> Iterator[Packet]:
    """A packet, and those after it."""
    yield packet
    yield from packets


def _possible(time: int | None) -> int | None:
    """A time in ticks; None where it is missing or cannot be."""
    return time if time is not None and abs(time) < _MOST_TICKS else None


def _close(track: Track) -> None:
    """The last packet of a part lasts as long as the others do on average, where the file does not say how long."""
    for part in track.parts:
        if not track.total and part.num_packets > 1:
            part.end += round((part.end - part.start) / (part.num_packets - 1))


def _join(tracks: list[Track]) -> None:
    """Each part begins where the longest track of the one before it ends."""
    shift_s = Fraction(0)
    for number in range(1, len(tracks[0].parts) if tracks else 0):
        before_s = max(track.parts[number - 1].end * track.tick for track in tracks)
        start_s = min(track.parts[number].start * track.tick for track in tracks)
        shift_s += before_s - start_s
        for track in tracks:
            track.parts[number].shift = round(shift_s / track.tick)


def _found(
    container: InputContainer, stream: VideoStream | AudioStream, track: Track, number: int
) -> tuple[int, Iterator[Packet]]:
    """Seeks until a packet is met that is known, at `number` or before it; its number, and it with all that follow."""
    for offset, is_byte, first in _landings(track, number):
        if is_byte and container.format.name not in _SOUGHT_BY_BYTES:
            continue
        try:
            container.seek(offset, stream=stream, unsupported_byte_offset=is_byte)
            packets = demuxed(container, stream)
            for packet, _ in zip(packets, range(number - first + _LOOK_AHEAD), strict=False):
                here = _number_of(packet, track, max(0, first - _LOOK_BEHIND), number + 1)
                if here is not None:
                    return here, chained(packet, packets)
        except av.FFmpegError:  # A way that this format does not know; or the bytes there make no sense to it.
            continue
    raise Unseekable


def _landings(track: Track, number: int) -> Iterator[tuple[int, bool, int]]:
    """Where to seek to: bytes or a time, which of the two, and the number of the packet that should come first."""
    last, num_places = -1, 0
    for at in range(number, -1, -1):
        place = track.places[at]
        if place >= 0 and place != last:
            # A packet may begin inside the unit at whose start one has to land: try the units before it, too.
            if num_places in (0, 1, 3):
                yield place, True, at
            last, num_places = place, num_places + 1
            if num_places > 3:
                break
    time = track.raw[number]
    if time != NO_TIME:
        second = round(1 / track.tick)
        for back in (0, second, 4 * second):
            yield time - back, False, 0
        yield track.raw[0], False, 0
    yield 0, True, 0


def _number_of(packet: Packet, track: Track, low: int, high: int) -> int | None:
    """Which packet of the walk this one is; None if that is not certain."""
    if not packet.size:
        return None
    sizes, sums, raw = (np.frombuffer(values, np.int64)[low:high] for values in (track.sizes, track.sums, track.raw))
    same = np.flatnonzero((sizes == packet.size) & (sums == crc32(memoryview(packet)[:_HASHED_BYTES])))
    if len(same) > 1:
        time = packet.pts if packet.pts is not None else packet.dts
        same = same[raw[same] == time] if time is not None else same[:0]
    return low + int(same[0]) if len(same) == 1 else None
