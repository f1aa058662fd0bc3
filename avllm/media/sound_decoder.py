"""The track of sound of a container to samples, in their order, silence where the track has a gap."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import numpy as np
from av import AudioFrame, AudioResampler
from jaxtyping import Float32

from avllm.errors import MediaError
from avllm.media.container import Damage, decoded, seconds_per_tick
from avllm.media.soundtrack import Soundtrack
from avllm.media.source import Source
from avllm.media.waveforms import HIGHEST_RATE, LOUDEST, MOST_CHANNELS

logger = logging.getLogger(__name__)

_PREROLL_S = Fraction(1, 2)  # Decoders of overlapping frames (AAC, MP3, Opus) need some sound before they are right.
_GAP_S, _ROUNDING_S = Fraction(1, 20), Fraction(1, 500)
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_LARGEST_BLOCK = 1 << 16
_NOTED_GAP_S, _LONGEST_GAP_S = 5, 120  # of silence where the file has no sound
_LARGEST_CHANGE = 16  # of the rate midway, up or down


class SoundDecoder:
    """The samples of one track, counted since playing starts, silence put where the track has a gap.

    Args:
        soundtrack: its packets.
        source: for messages.

    Raises:
        MediaError: there is no sound in it.
    """

    def __init__(self, soundtrack: Soundtrack, source: Source) -> None:
        self.soundtrack, self.source = soundtrack, source
        self.damage = Damage()
        self.last_dts: int | None = None
        self.has_failed, self.heard_s = False, Fraction(0)
        self.frames = self._decoded(None)
        self.first = next(self.frames, None)
        if self.first is None:
            reason = f" ({self.damage.reason})" if self.damage.reason else ""
            raise MediaError(f"{source.name}: no sound could be decoded{reason}; the track is empty or damaged")
        self.rate, self.layout = self.first.sample_rate, self.first.layout
        self.num_channels = len(self.layout.channels)
        check_kind(self.rate, self.num_channels, source)
        self.lowest = self._position(self.first) or 0
        self.begin = self.lowest
        self.grid = self.lowest + round(Fraction(self.first.samples * self.rate, self.first.sample_rate))
        self.stated_s = soundtrack.stated_s
        self.edges = [edge_s * self.rate for edge_s in soundtrack.edges_s]
        # AAC fills its last frame up; an mp4 states how much of it is sound.
        stream, self.stated_end = soundtrack.stream, None
        if stream.frames and stream.duration and stream.time_base:
            end_s = soundtrack.time_of((stream.start_time or 0) + stream.duration)
            self.stated_end = round(end_s * self.rate)

    def blocks(self, begin: int, end: int | None) -> Iterator[Float32[np.ndarray, "c s"]]:
        """Pieces of at most some seconds, from sample `begin`, or where the sound begins, to before sample `end`."""
        position: int | None = None
        excess: np.ndarray | None = None
        has_begun = False
        for frame in self._converted(self._frames_at(begin)):
            samples = self._audible(to_float(frame))
            if excess is not None and excess.shape[1]:
                yield excess  # There is more sound than stated, so that was no padding.
            excess, at = None, self._placed(frame, position, end)
            self.has_failed = False
            if has_begun and position is not None:
                yield from self._silence(position, at)
            low, high = max(0, begin - at), samples.shape[1] if end is None else min(samples.shape[1], end - at)
            position = until = at + samples.shape[1]
            if low < high:
                self.begin = self.begin if has_begun else at + low
                has_begun = True
                padding = high if self.stated_end is None else min(high, max(low, self.stated_end - at))
                excess = samples[:, padding:high]
                yield samples[:, low:padding]
            if end is not None and until >= end:
                break
        else:
            self._check_end(position if has_begun else None, begin)

    def _audible(self, samples: Float32[np.ndarray, "c s"]) -> Float32[np.ndarray, "c s"]:
        """Samples without those that are no sound: a file of floats may hold anything."""
        if (np.abs(samples) <= LOUDEST).all():
            return samples
        self.damage.count += 1
        return np.clip(np.nan_to_num(samples, nan=0.0), -LOUDEST, LOUDEST)

    def _silence(self, start: int, end: int) -> Iterator[Float32[np.ndarray, "c s"]]:
        """What is heard where the track has a gap.

        Raises:
            MediaError: the gap is so long that the times of the file are wrong, or of another recording.
        """
        gap_s, start_s = (end - start) / self.rate, start / self.rate
        if gap_s > _LONGEST_GAP_S:
            raise MediaError(
                f"{self.source.name}: has no sound for {gap_s:.0f} s after {start_s:.2f} s, more than the"
                f" {_LONGEST_GAP_S} s that are filled with silence; choose a part without the gap by start_s and end_s"
            )
        if gap_s > _NOTED_GAP_S:
            logger.warning("%s: has no sound for %.1f s after %.2f s; silence", self.source.name, gap_s, start_s)
            self.damage.count += 1
        for place in range(start, end, _LARGEST_BLOCK):
            yield np.zeros((self.num_channels, min(end - place, _LARGEST_BLOCK)), np.float32)

    def _frames_at(self, begin: int) -> Iterator[AudioFrame]:
        """Decoded frames from a little before a sample on: decoders of overlapping frames need some to be right."""
        since_s = Fraction(begin, self.rate) - _PREROLL_S
        if self.first is not None and since_s <= Fraction(self.lowest, self.rate):
            yield self.first
            yield from self.frames
            return
        self.heard_s = Fraction(begin, self.rate)
        yield from self._decoded(since_s)

    def _decoded(self, since_s: Fraction | None) -> Iterator[AudioFrame]:
        num_trailing = 0
        for packet in self.soundtrack.packets(since_s, self.damage):
            is_heard = packet.pts is None or self.soundtrack.time_of(packet.pts) >= self.heard_s
            damage = self.damage if is_heard else Damage()  # A seek may cut a packet, or what it leans on.
            before = damage.count
            frames = decoded(packet, damage)
            if packet.size and packet.dts is not None:
                self.last_dts = packet.dts
            self.has_failed = self.has_failed or damage.count > before
            num_trailing = 0 if frames else num_trailing + damage.count - before
            yield from frames
        if self.soundtrack.container.format.name == "mp3":
            self.damage.count -= num_trailing  # Tags after the last frame look like packets.

    def _converted(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """Frames with the rate and the number of channels of the first; broadcasts change both midway."""
        converter, of = None, None
        for frame in frames:
            kind = (frame.sample_rate, len(frame.layout.channels))
            if converter is not None and kind != of:
                yield from converter.resample(None)
                converter = None
            of = kind
            if not 1 / _LARGEST_CHANGE <= kind[0] / self.rate <= _LARGEST_CHANGE:
                raise MediaError(f"{self.source.name}: changes from {self.rate} to {kind[0]} Hz; the file is damaged")
            if kind == (self.rate, self.num_channels):
                yield frame
                continue
            converter = converter or AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
            yield from converter.resample(frame)
        if converter is not None:
            yield from converter.resample(None)

    def _position(self, frame: AudioFrame) -> int | None:
        """Number of a frame's first sample as its timestamp tells it."""
        if frame.pts is None:
            return None
        return round((frame.pts * seconds_per_tick(frame) - self.soundtrack.origin_s) * self.rate)

    def _snapped(self, frame: AudioFrame) -> int | None:
        """The same, exact where frames are alike: Matroska and FLV round times to milliseconds."""
        at = self._position(frame)
        if at is None or not frame.samples:
            return at
        nearest = self.grid + round((at - self.grid) / frame.samples) * frame.samples
        return nearest if abs(nearest - at) <= self.soundtrack.tick * self.rate + 1 else at

    def _placed(self, frame: AudioFrame, position: int | None, end: int | None) -> int:
        """Where a frame begins: right after the one before it, unless the track has a gap there."""
        at = self._snapped(frame)
        if at is None or position is None:
            return position or 0 if at is None else at
        is_beyond = self.stated_s is not None and at > (self.stated_s + 1) * self.rate
        # Clocks stumble a little; where sound was lost or another recording begins, they are all that is known.
        ignored = (_ROUNDING_S if self.has_failed else _GAP_S) * self.rate
        if any(abs(at - edge) <= _ROUNDING_S * self.rate for edge in self.edges):
            ignored = 1
        if is_beyond or at - position <= ignored:
            return position
        return at if end is None else max(position, min(at, end))

    def _check_end(self, position: int | None, begin: int) -> None:
        if position is None and begin > max(self.lowest, 0):
            return  # Nothing was asked for that could be missing.
        stream, stated_s = self.soundtrack.stream, self.stated_s or 0
        entries, ended_s = stream.index_entries, (position or 0) / self.rate
        is_short = self.soundtrack.container.format.name == "flac" and ended_s + 0.1 < stated_s
        if self.soundtrack.container.format.name == _MP4 and stream.frames and len(entries) == stream.frames:
            is_short = self.last_dts is None or self.last_dts < entries[len(entries) - 1].timestamp
        if is_short:
            raise MediaError(
                f"{self.source.name}: truncated: the sound ends after {ended_s:.2f} s of the {stated_s:.2f} s that the"
                f" file states; make or download it again"
            )


_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}


def to_float(frame: AudioFrame) -> Float32[np.ndarray, "c s"]:
    """Samples of any format to float32 in [-1, 1]."""
    if frame.format.name.startswith("s64"):  # PyAV has no array for it
        frame = AudioResampler(format="dblp").resample(frame)[0]
    if frame.format.is_planar:  # PyAV counts a ninth plane of eight channels, which lies outside of the sound
        planes, dtype = frame.planes[: frame.layout.nb_channels], _DTYPES[frame.format.name.removesuffix("p")]
        samples = np.stack([np.frombuffer(cast(Any, plane), dtype)[: frame.samples] for plane in planes])
    else:
        samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    with np.errstate(over="ignore"):  # of 64 bits; it is noted where it is heard
        return np.ascontiguousarray(samples, np.float32)


def check_kind(rate: int, channels: int, source: Source) -> None:
    """Raises MediaError for a rate or a number of channels that no sound has."""
    if not (1 <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS):
        raise MediaError(f"{source.name}: states {channels} channels of {rate} Hz; the file is damaged")
