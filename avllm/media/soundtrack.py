"""The packets of a track of sound from any moment on, on one clock, whatever the container makes of seeking."""

from collections.abc import Iterator
from fractions import Fraction

import av
from av import AudioStream, Packet
from av.container import InputContainer

from avllm.media.container import (
    Damage,
    codec_name,
    demuxed,
    duration_seconds,
    goes_on_after_segment,
    origin_seconds,
    packets_of,
    seconds_per_tick,
    until_fault,
)
from avllm.media.source import Source
from avllm.media.walk import NO_TIME, Track, chained, packets_from, walk

_WALKED = frozenset({"mpegts", "mpeg", "flv", "ogg", "asf"})
_INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flac", "caf"})
_INDEXED_PCM = frozenset({"wav", "w64", "aiff", "au"})
_MOST_BACK_S = 64


class Soundtrack:
    """A track of sound. All times are seconds since playing starts.

    Args:
        container: freshly opened.
        stream: the track.
        source: for messages.
        track: of an earlier walk through the file, after which a seek led nowhere: it is read in turn now.
    """

    def __init__(
        self, container: InputContainer, stream: AudioStream, source: Source, track: Track | None = None
    ) -> None:
        self.container, self.stream = container, stream
        self.tick, self.origin_s = seconds_per_tick(stream), Fraction(origin_seconds(container))
        name = container.format.name
        is_joined = name == "matroska,webm" and goes_on_after_segment(source)
        # Of other coded sound FFmpeg guesses where a moment lies; packets that are not decoded cost next to nothing.
        has_index = name in _INDEXED or (name in _INDEXED_PCM and codec_name(stream).startswith("pcm_"))
        self.track, self.in_turn = track, None
        if track is not None:
            numbered = packets_from(container, stream, track, 0, Damage(), is_fresh=True)
            self.in_turn = (packet for _, packet in numbered)
        elif name in _WALKED or is_joined:
            self.track = walk(container, stream).tracks[stream.index]
        elif not has_index:
            self.in_turn = demuxed(container, stream)

    @property
    def stated_s(self) -> float | None:
        """How long it is, as the file says or a walk found out."""
        if self.track is not None and self.track.parts:
            return float(self.track.length_s)
        return duration_seconds(self.container, self.stream)

    @property
    def edges_s(self) -> list[Fraction]:
        """When another recording begins, that was joined."""
        return [self.time_of(part.start + part.shift) for part in self.track.parts[1:]] if self.track else []

    def time_of(self, ticks: int) -> Fraction:
        """Seconds since playing starts."""
        return ticks * self.tick - self.origin_s

    def packets(self, since_s: Fraction | None, damage: Damage) -> Iterator[Packet]:
        """The packets that are heard at a moment and after it.

        Args:
            since_s: the moment; None for all of them, from a freshly opened file.
            damage: counts a fault that ends the file.

        Raises:
            Unseekable: the file has to be opened anew.
        """
        if self.in_turn is not None:
            yield from self._late(until_fault(self.in_turn, damage), since_s)
        elif self.track is not None:
            number = 0 if since_s is None else self._number_at(since_s)
            yield from (p for _, p in packets_from(self.container, self.stream, self.track, number, damage))
        elif since_s is None:
            yield from packets_of(self.container, self.stream, damage)
        else:
            yield from self._sought(since_s, damage)

    def _late(self, packets: Iterator[Packet], since_s: Fraction | None) -> Iterator[Packet]:
        """Leaves out what is over before the moment."""
        for packet in packets:
            if since_s is not None and packet.pts is not None:
                if self.time_of(packet.pts + (packet.duration or 0)) <= since_s:
                    continue
                since_s = None
            yield packet

    def _sought(self, since_s: Fraction, damage: Damage) -> Iterator[Packet]:
        # Matroska knows places of pictures only; elsewhere the sound has an index of its own.
        stream = None if self.container.format.name == "matroska,webm" else self.stream
        unit, back_s = (Fraction(1, av.time_base) if stream is None else self.tick), 0
        while back_s <= _MOST_BACK_S:
            try:
                self.container.seek(int((since_s - back_s + self.origin_s) / unit), stream=stream)
                packets = demuxed(self.container, self.stream)
                first = next(packets, None)
            except av.FFmpegError:
                first, packets = None, iter(())
            at_start = since_s - back_s <= 0
            if first is not None and first.pts is not None and (at_start or self.time_of(first.pts) <= since_s):
                yield from self._late(until_fault(chained(first, packets), damage), since_s)
                return
            back_s = 2 * back_s or 1
        self.container.seek(0)
        yield from self._late(packets_of(self.container, self.stream, damage), since_s)

    def _number_at(self, since_s: Fraction) -> int:
        """The packet that is heard at a moment."""
        assert self.track is not None
        times, target = self.track.times, int((since_s + self.origin_s) / self.tick)
        before = ((times != NO_TIME) & (times <= target)).nonzero()[0]
        return int(before[-1]) if len(before) else 0
