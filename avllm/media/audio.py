"""The door for sound: any container to a waveform at one rate, all channels kept."""

import logging
from collections.abc import Iterator

import av
import av.error
import numpy as np
from av import AudioFrame, AudioResampler, AudioStream
from av.container import InputContainer
from jaxtyping import Float32

from avllm.errors import MediaError, NoAudioStream
from avllm.media.clips import Audio
from avllm.media.container import audio_stream, duration_seconds, open_container, origin_seconds
from avllm.media.limits import Limits
from avllm.media.resample import SincResampler, resample
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.waveforms import HIGHEST_RATE, MOST_CHANNELS, as_audio

logger = logging.getLogger(__name__)

_PREROLL_SECONDS = 0.5  # Decoders of overlapping frames (AAC, MP3, Opus) need some sound before they are right.
_GAP_SECONDS = 0.05
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
        NoAudioStream: the source is readable but silent by nature: a film without a track, an image, frames.
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
    with open_container(what, limits) as container:
        stream = audio_stream(container, what)
        return _read(container, stream, what, sample_rate, first_s, last_s, limits)


def _read(
    container: InputContainer,
    stream: AudioStream,
    source: Source,
    sample_rate: int,
    first_s: float,
    last_s: float,
    limits: Limits,
) -> Audio:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    if not (1 <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS):
        raise MediaError(f"{source.name}: states {channels} channels of {rate} Hz; the file is damaged")
    stated_s = duration_seconds(container, stream)
    if stated_s is not None:
        limits.check_seconds(stated_s)
        length_s = max(0.0, min(stated_s, last_s) - first_s)
        limits.check_audio_bytes(channels, int(length_s * sample_rate))
    decoder = _Decoder(container, stream, source, first_s, last_s, stated_s)
    decoder.convert_for(sample_rate)
    resampler, parts, num_samples, num_channels = None, [], 0, 0
    for block in decoder.blocks():
        if resampler is None:
            num_channels = len(block)
            resampler = SincResampler(decoder.rate, sample_rate, num_channels)
        # Headers lie about lengths; what is decoded is counted before it is kept.
        expected = num_samples + int(block.shape[1] * sample_rate / decoder.rate)
        limits.check_seconds(expected / sample_rate)
        limits.check_audio_bytes(num_channels, expected)
        parts.append(resampler.push(block))
        num_samples += parts[-1].shape[1]
    if resampler is None:
        where = "" if first_s == 0 and last_s == float("inf") else f" between {first_s:g} and {last_s:g} s"
        raise MediaError(f"{source.name}: the audio track holds no sound{where}; it is empty, damaged or shorter")
    if not resampler.is_same:
        parts.append(resampler.finish())
    waveform = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return Audio(waveform=np.ascontiguousarray(waveform), sample_rate=sample_rate, start_s=decoder.start_s)


class _Decoder:
    """The samples of one track from `first_s` to `last_s`, silence put where the track has a gap."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        source: Source,
        first_s: float,
        last_s: float,
        stated_s: float | None,
    ) -> None:
        self.container, self.stream, self.source = container, stream, source
        self.first_s, self.last_s, self.stated_s = first_s, last_s, stated_s
        self.rate = stream.codec_context.sample_rate
        self.origin_s, self.start_s = origin_seconds(container), 0.0
        self.last_dts: int | None = None
        self.converter: AudioResampler | None = None
        # AAC fills its last frame up; an mp4 states how much of it is sound.
        self.stated_end_s = float("inf")
        if stream.frames and stream.duration and stream.time_base:
            self.stated_end_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self.origin_s

    def convert_for(self, sample_rate: int) -> None:
        """Rates without a common divisor would need a huge table; FFmpeg's resampler takes them to 48 kHz first."""
        if not SincResampler.fits(self.rate, sample_rate):
            self.converter, self.rate = AudioResampler(rate=48000), 48000

    def blocks(self) -> Iterator[Float32[np.ndarray, "c s"]]:
        """Pieces of at most some seconds."""
        if self.first_s > _PREROLL_SECONDS:
            target_s = self.first_s - _PREROLL_SECONDS + self.origin_s
            self.container.seek(int(target_s * av.time_base), backward=True)
        num_channels, position_s, excess = 0, None, None
        for frame in self._frames():
            samples = to_float(frame)
            num_channels = num_channels or len(samples)
            if len(samples) != num_channels or frame.sample_rate != self.rate:
                raise MediaError(f"{self.source.name}: the sound changes its channels or rate midway; convert it")
            if excess is not None and excess.shape[1]:
                yield excess  # There is more sound than stated, so that was no padding.
            time_s = frame.time - self.origin_s if frame.time is not None else position_s or 0.0
            if position_s is not None:
                silence = self._gap_samples(position_s, time_s)
                for begin in range(0, silence, _LARGEST_BLOCK):
                    yield np.zeros((num_channels, min(silence - begin, _LARGEST_BLOCK)), np.float32)
                time_s = position_s + silence / self.rate
            begin, end = self._place(self.first_s, time_s, samples), self._place(self.last_s, time_s, samples)
            if end == 0 and self.last_s < time_s:
                break
            if begin < end:
                self.start_s = time_s + begin / self.rate if position_s is None else self.start_s
                padding = max(begin, self._place(self.stated_end_s, time_s, samples))
                excess = samples[:, padding:end]
                position_s = time_s + end / self.rate
                yield samples[:, begin : min(end, padding)]
        else:
            self._check_end(position_s)

    def _place(self, at_s: float, time_s: float, samples: np.ndarray) -> int:
        """Number of the sample at a time, within the block that begins at `time_s`."""
        return samples.shape[1] if at_s == float("inf") else min(samples.shape[1], max(0, self._count(at_s - time_s)))

    def _count(self, seconds: float) -> int:
        return round(seconds * self.rate)

    def _gap_samples(self, position_s: float, time_s: float) -> int:
        is_beyond = self.stated_s is not None and time_s > self.stated_s + 1
        is_gap = time_s - position_s > _GAP_SECONDS and not is_beyond
        return self._count(min(time_s, self.last_s) - position_s) if is_gap else 0

    def _frames(self) -> Iterator[AudioFrame]:
        failed: av.FFmpegError | None = None
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                # Tags after the last frame of an MP3 look like a packet; damage is followed by more sound.
                failed = error
                continue
            if packet.size and packet.dts is not None:
                self.last_dts = packet.dts
            for frame in frames:
                if failed is not None:
                    raise failed
                yield from self.converter.resample(frame) if self.converter else [frame]
        if self.converter is not None:
            yield from self.converter.resample(None)
        if failed is not None:
            logger.warning("%s: the sound ends in something that is none", self.source.name)

    def _check_end(self, position_s: float | None) -> None:
        if position_s is None and self.first_s > 0:
            return  # Nothing was asked for that could be missing.
        entries = self.stream.index_entries
        is_short = self.container.format.name == "flac" and (position_s or 0) + 0.1 < (self.stated_s or 0)
        if self.stream.frames and len(entries) == self.stream.frames:
            is_short = self.last_dts is None or self.last_dts < entries[len(entries) - 1].timestamp
        if is_short:
            raise MediaError(
                f"{self.source.name}: truncated: the sound ends after {position_s or 0:.2f} s of the"
                f" {self.stated_s or 0:.2f} s that the file states; make or download it again"
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
