"""The door for sound: any container to a waveform at one rate, all channels kept."""

import logging
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av import AudioFrame, AudioResampler, AudioStream
from jaxtyping import Float32

from avllm.errors import MediaError, NoAudioStream
from avllm.media.clips import Audio
from avllm.media.container import Damage, audio_stream, decoded, open_container, seconds_per_tick
from avllm.media.limits import Limits
from avllm.media.resample import SincResampler, resample
from avllm.media.soundtrack import Soundtrack
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.walk import Unseekable
from avllm.media.waveforms import HIGHEST_RATE, MOST_CHANNELS, as_audio

logger = logging.getLogger(__name__)

_PREROLL_S = Fraction(1, 2)  # Decoders of overlapping frames (AAC, MP3, Opus) need some sound before they are right.
_GAP_S, _ROUNDING_S = Fraction(1, 20), Fraction(1, 500)
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_LARGEST_BLOCK = 1 << 16


def open_audio(
    source: MediaSource,
    *,
    sample_rate: int = 16000,
    start_s: float | None = None,
    end_s: float | None = None,
    source_rate: int | None = None,
    limits: Limits | None = None,
) -> Audio:
    """Reads the sound of a file.

    Args:
        source: a path, a `file:` or `data:` URL, bytes or an open binary file; samples in memory: an array or a tensor
            [c s], [s c] or [s], (rate, samples), `{"array", "sampling_rate"}`, an `Audio`; a `Source`. Floats are in
            [-1, 1], integers use the range of their type; of two axes the shorter is that of the channels.
        sample_rate: of the result, in Hz.
        start_s: where to begin, on the file's timeline.
        end_s: where to end, exclusive.
        source_rate: of an array without a rate (default: `sample_rate`).
        limits: what the medium may cost.

    Raises:
        NoAudioStream: the source is readable but silent by nature: a film without a track, an image, frames, or a part
            that begins after the end of the track.
        MediaError: cannot be read, is damaged or truncated, is over a limit, or has no sound between start_s and end_s.
    """
    limits = limits or Limits()
    first_s, last_s = start_s or 0.0, float("inf") if end_s is None else end_s
    if not 0 <= first_s < last_s or sample_rate < 1:
        raise MediaError(f"expected 0 <= start_s < end_s and a sample rate, got {start_s}, {end_s} and {sample_rate}")
    what = resolve(source, limits)
    if (
        source_rate is not None
        and what.kind != "samples"
        and (what.audio is None or what.audio.sample_rate != source_rate)
    ):
        raise MediaError(f"{what.name}: source_rate={source_rate} is for an array alone; this has a rate of its own")
    if what.kind in ("sound", "samples"):
        audio = what.audio or as_audio(np.asarray(what.frames), source_rate or sample_rate, limits)
        return _from_audio(audio, sample_rate, first_s, last_s, limits)
    if what.kind != "container":
        raise NoAudioStream(f"{what.name}: a {what.kind.removesuffix('s')} has no sound")
    track = None
    for _ in range(2):
        with open_container(what, limits) as container:
            stream = audio_stream(container, what)
            _check_stream(stream, what)
            soundtrack = Soundtrack(container, stream, what, track)
            try:
                return _read(soundtrack, what, sample_rate, Fraction(first_s), last_s, limits)
            except Unseekable:
                track = soundtrack.track
    raise MediaError(f"{what.name}: reads differently each time; the file is damaged or changing")


def _check_stream(stream: AudioStream, source: Source) -> None:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    if not (1 <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS):
        raise MediaError(f"{source.name}: states {channels} channels of {rate} Hz; the file is damaged")


def _read(
    soundtrack: Soundtrack, source: Source, sample_rate: int, first_s: Fraction, last_s: float, limits: Limits
) -> Audio:
    stated_s = soundtrack.stated_s
    if stated_s is not None:
        limits.check_seconds(stated_s)
        length_s = max(0.0, min(stated_s, last_s) - float(first_s))
        limits.check_audio_bytes(soundtrack.stream.codec_context.channels, int(length_s * sample_rate))
    decoder = _Decoder(soundtrack, source, sample_rate)
    resampler = SincResampler(decoder.rate, sample_rate, decoder.num_channels)
    stride, phases, context = resampler.stride, resampler.phases, 0 if resampler.is_same else resampler.width
    # A part is resampled on the grid of the whole, with the sound around it, so that it is a slice of the whole.
    lowest = max(decoder.lowest, 0)
    begin = lowest + max(0, math.floor((first_s * decoder.rate - context - lowest) / stride) * stride)
    end = None if last_s == float("inf") else math.ceil(Fraction(last_s) * decoder.rate) + context
    parts, num_samples = [], 0
    for block in decoder.blocks(begin, end):
        # Headers lie about lengths; what is decoded is counted before it is kept.
        expected = num_samples + int(block.shape[1] * sample_rate / decoder.rate)
        limits.check_seconds(expected / sample_rate)
        limits.check_audio_bytes(decoder.num_channels, expected)
        parts.append(resampler.push(block))
        num_samples += parts[-1].shape[1]
    if not resampler.is_same:
        parts.append(resampler.finish())
    none = np.zeros((decoder.num_channels, 0), np.float32)
    waveform = parts[0] if len(parts) == 1 else np.concatenate([none, *parts], axis=1)
    begin, per_sample = decoder.begin, Fraction(phases, stride)
    skipped = max(0, round((first_s * decoder.rate - begin) * per_sample))
    until = None if last_s == float("inf") else max(0, round((Fraction(last_s) * decoder.rate - begin) * per_sample))
    waveform = waveform[:, skipped:until]
    if not waveform.shape[1]:
        where = "" if first_s == 0 and last_s == float("inf") else f" between {float(first_s):g} and {last_s:g} s"
        if not decoder.damage.count and stated_s is not None and 0 < stated_s <= first_s:
            raise NoAudioStream(f"{source.name}: no sound{where}, its audio track ends at {stated_s:.2f} s")
        reason = f" ({decoder.damage.first.strerror})" if decoder.damage.first else ""
        raise MediaError(
            f"{source.name}: the audio track holds no sound{where}{reason}; it is empty, damaged or shorter"
        )
    if decoder.damage.count:
        logger.warning("%s: %d packets of the sound are damaged", source.name, decoder.damage.count)
    return Audio(
        waveform=np.ascontiguousarray(waveform),
        sample_rate=sample_rate,
        start_s=float((begin + skipped / per_sample) / decoder.rate),
        num_damaged=decoder.damage.count,
    )


class _Decoder:
    """The samples of one track, counted since playing starts, silence put where the track has a gap.

    Args:
        soundtrack: its packets.
        source: for messages.
        sample_rate: that is wanted in the end.

    Raises:
        MediaError: there is no sound in it.
    """

    def __init__(self, soundtrack: Soundtrack, source: Source, sample_rate: int) -> None:
        self.soundtrack, self.source = soundtrack, source
        self.damage = Damage()
        self.last_dts: int | None = None
        self.has_failed, self.heard_s = False, Fraction(0)
        self.frames = self._decoded(None)
        self.first = next(self.frames, None)
        if self.first is None:
            reason = f" ({self.damage.first.strerror})" if self.damage.first else ""
            raise MediaError(f"{source.name}: no sound could be decoded{reason}; the track is empty or damaged")
        self.rate, self.layout = self.first.sample_rate, self.first.layout
        self.num_channels = len(self.layout.channels)
        # Rates without a common divisor would need a huge table; FFmpeg's resampler takes them to 48 kHz first.
        if not SincResampler.fits(self.rate, sample_rate):
            self.rate = 48000
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
            samples = to_float(frame)
            if excess is not None and excess.shape[1]:
                yield excess  # There is more sound than stated, so that was no padding.
            excess, at = None, self._placed(frame, position, end)
            self.has_failed = False
            if has_begun and position is not None:
                for start in range(position, at, _LARGEST_BLOCK):
                    yield np.zeros((self.num_channels, min(at - start, _LARGEST_BLOCK)), np.float32)
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


def to_float(frame: AudioFrame) -> Float32[np.ndarray, "c s"]:
    """Samples of any format to float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    return np.ascontiguousarray(samples, np.float32)


def _from_audio(audio: Audio, sample_rate: int, first_s: float, last_s: float, limits: Limits) -> Audio:
    limits.check_seconds(audio.duration_s)
    limits.check_audio_bytes(len(audio.waveform), int(audio.duration_s * sample_rate))
    begin = max(0, round((first_s - audio.start_s) * audio.sample_rate))
    end = None if last_s == float("inf") else max(0, round((last_s - audio.start_s) * audio.sample_rate))
    waveform = audio.waveform[:, begin:end]
    if waveform.shape[1] == 0:
        raise MediaError(f"no sound between {first_s:g} and {last_s:g} s; it is {audio.duration_s:.2f} s long")
    start_s = audio.start_s + begin / audio.sample_rate
    return Audio(waveform=resample(waveform, audio.sample_rate, sample_rate), sample_rate=sample_rate, start_s=start_s)
