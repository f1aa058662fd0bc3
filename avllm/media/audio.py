"""The door for sound: any container to a waveform at one rate, all channels kept."""

import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import SupportsFloat

import numpy as np
from av import AudioStream
from jaxtyping import Float32

from avllm.errors import MediaError, NoAudioStream
from avllm.media.clips import Audio
from avllm.media.container import audio_stream, duration_seconds, open_container
from avllm.media.growing import GrowingWaveform
from avllm.media.limits import Limits
from avllm.media.resample import SincResampler, resample
from avllm.media.sound_decoder import SoundDecoder, check_kind
from avllm.media.soundtrack import Soundtrack
from avllm.media.source import MediaSource, Source, resolve
from avllm.media.walk import Unseekable
from avllm.media.waveforms import HIGHEST_RATE, as_audio

logger = logging.getLogger(__name__)


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
    first_s, last_s, sample_rate = _asked(sample_rate, start_s, end_s)
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
            check_kind(stream.codec_context.sample_rate, stream.codec_context.channels, what)
            if container.format.name == "ogg":  # It is walked through, but its last page tells its length at once.
                _expected(duration_seconds(container, stream), stream, sample_rate, first_s, last_s, limits)
            soundtrack = Soundtrack(container, stream, what, track)
            try:
                return _read(soundtrack, what, sample_rate, Fraction(first_s), last_s, limits)
            except Unseekable:
                track = soundtrack.track
    raise MediaError(f"{what.name}: reads differently each time; the file is damaged or changing")


def _asked(sample_rate: int, start_s: float | None, end_s: float | None) -> tuple[float, float, int]:
    """Begin and end in seconds, and the rate, if they can be."""
    span = [value for value in (start_s, end_s) if value is not None]
    numbers = (sample_rate, *span)
    if any(isinstance(value, bool) or not isinstance(value, SupportsFloat) for value in numbers):
        raise MediaError(
            f"expected numbers for start_s, end_s and sample_rate, got {start_s!r}, {end_s!r}, {sample_rate!r}"
        )
    first_s, last_s = float(start_s or 0.0), float("inf") if end_s is None else float(end_s)
    if not 0 <= first_s < last_s or not 1 <= sample_rate <= HIGHEST_RATE or sample_rate != int(sample_rate):
        raise MediaError(
            f"expected 0 <= start_s < end_s and a sample rate of 1 to {HIGHEST_RATE} Hz, got {start_s}, {end_s} and"
            f" {sample_rate}"
        )
    return first_s, last_s, int(sample_rate)


def _expected(
    stated_s: float | None, stream: AudioStream, sample_rate: int, first_s: float, last_s: float, limits: Limits
) -> int:
    """How many samples will come out if the file states its length truly; 0 if it does not say.

    Raises:
        MediaError: it is over a limit.
    """
    if stated_s is None:
        return 0
    limits.check_seconds(stated_s)
    expected = int(max(0.0, min(stated_s, last_s) - first_s) * sample_rate)
    limits.check_audio_bytes(stream.codec_context.channels, expected)
    return expected


def _read(
    soundtrack: Soundtrack, source: Source, sample_rate: int, first_s: Fraction, last_s: float, limits: Limits
) -> Audio:
    expected = _expected(soundtrack.stated_s, soundtrack.stream, sample_rate, float(first_s), last_s, limits)
    decoder = SoundDecoder(soundtrack, source)
    limits.check_seconds(decoder.lowest / decoder.rate)
    resampler = SincResampler(decoder.rate, sample_rate, decoder.num_channels)
    stride, phases, context = resampler.stride, resampler.phases, 0 if resampler.is_same else resampler.width
    # A part is resampled on the grid of the whole, with the sound around it, so that it is a slice of the whole.
    lowest = max(decoder.lowest, 0)
    begin = lowest + max(0, math.floor((first_s * decoder.rate - context - lowest) / stride) * stride)
    end = None if last_s == float("inf") else math.ceil(Fraction(last_s) * decoder.rate) + context
    waveform, place = GrowingWaveform(decoder.num_channels, expected + 1), 0
    skipped, until, per_sample = 0, None, Fraction(phases, stride)
    for part in resampler.stream(_counted(decoder, begin, end, sample_rate, limits)):
        if not place:  # Where the sound begins is known with the first of it.
            skipped = max(0, round((first_s * decoder.rate - decoder.begin) * per_sample))
            until = _until(last_s, decoder, per_sample)
        kept = part[:, max(0, skipped - place) : None if until is None else max(0, until - place)]
        waveform.append(kept)
        place += part.shape[1]
    if not waveform.num_samples:
        raise _no_sound(decoder, source, float(first_s), last_s)
    if decoder.damage.count:
        logger.warning("%s: %d packets of the sound are damaged, or missing", source.name, decoder.damage.count)
    return Audio(
        waveform=waveform.take(),
        sample_rate=sample_rate,
        start_s=float((decoder.begin + skipped / per_sample) / decoder.rate),
        num_damaged=decoder.damage.count,
    )


def _counted(
    decoder: SoundDecoder, begin: int, end: int | None, sample_rate: int, limits: Limits
) -> Iterator[Float32[np.ndarray, "c s"]]:
    """Headers lie about lengths; what is decoded is counted before it is kept."""
    num_decoded = 0
    for block in decoder.blocks(begin, end):
        num_decoded += block.shape[1]
        limits.check_seconds(num_decoded / decoder.rate)
        limits.check_audio_bytes(decoder.num_channels, num_decoded * sample_rate // decoder.rate)
        yield block


def _until(last_s: float, decoder: SoundDecoder, per_sample: Fraction) -> int | None:
    """How many samples after the first that is decoded the part ends."""
    if last_s == float("inf"):
        return None
    return max(0, round((Fraction(last_s) * decoder.rate - decoder.begin) * per_sample))


def _no_sound(decoder: SoundDecoder, source: Source, first_s: float, last_s: float) -> MediaError:
    """Why there is none."""
    where = "" if first_s == 0 and last_s == float("inf") else f" between {first_s:g} and {last_s:g} s"
    stated_s = decoder.stated_s
    if not decoder.damage.count and stated_s is not None and 0 < stated_s <= first_s:
        return NoAudioStream(f"{source.name}: no sound{where}, its audio track ends at {stated_s:.2f} s")
    reason = f" ({decoder.damage.reason})" if decoder.damage.reason else ""
    return MediaError(f"{source.name}: the audio track holds no sound{where}{reason}; it is empty, damaged or shorter")


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
