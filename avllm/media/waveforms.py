"""Sound in memory to a waveform: arrays of samples in the forms in which Python libraries hand them over."""

import math

import numpy as np
from jaxtyping import Float32, Shaped

from avllm.errors import MediaError
from avllm.media.clips import Audio
from avllm.media.limits import Limits

HIGHEST_RATE, MOST_CHANNELS = 1_000_000, 64  # beyond what is recorded; a damaged or forged header
LOUDEST = 64.0  # floats louder than that are integers by another name
_SAMPLES = "floats in [-1, 1], int16, int32, int8 or uint8 (silence at 128)"


def as_audio(samples: Shaped[np.ndarray, "..."], sample_rate: float, limits: Limits, *, name: str = "array") -> Audio:
    """Samples as [c s] or [s c] (the shorter axis is that of the channels) or [s].

    Integers are scaled by the range of their type.

    Raises:
        MediaError: another shape, type or rate, values that are no sound, or over a limit.
    """
    rate = int(sample_rate) if math.isfinite(sample_rate) else 0
    if rate != sample_rate or not 1 <= rate <= HIGHEST_RATE:
        raise MediaError(f"{name}: a sample rate of {sample_rate} Hz; expected a whole number up to {HIGHEST_RATE}")
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise MediaError(f"{name}: the waveform is {samples.shape}; expected samples as [c s], [s c] or [s]")
    samples = samples[None] if samples.ndim == 1 else samples
    channels, count = sorted(samples.shape)
    if channels > MOST_CHANNELS or channels == count > 1:
        raise MediaError(
            f"{name}: the waveform is {samples.shape}; expected [c s] or [s c] with at most {MOST_CHANNELS} channels,"
            f" fewer than samples"
        )
    limits.check_seconds(count / rate)
    limits.check_audio_bytes(channels, count)
    return Audio(waveform=_scaled(samples.T if len(samples) == count > 1 else samples, name), sample_rate=rate)


def _scaled(samples: Shaped[np.ndarray, "c s"], name: str) -> Float32[np.ndarray, "c s"]:
    kind, size = samples.dtype.kind, samples.dtype.itemsize
    if kind == "f":
        waveform = np.ascontiguousarray(samples, np.float32)
        if not np.isfinite(waveform).all():
            raise MediaError(f"{name}: the waveform holds NaN or infinity; expected samples in [-1, 1]")
        loudest = max(float(waveform.max()), -float(waveform.min()))
        if loudest > LOUDEST:
            raise MediaError(
                f"{name}: the waveform reaches {loudest:g}; expected {_SAMPLES}: divide it by its full scale"
            )
        return waveform
    if samples.dtype == np.uint8:
        return (np.ascontiguousarray(samples, np.float32) - 128) / 128
    if kind == "i" and size <= 4:
        return np.ascontiguousarray(samples, np.float32) / np.float32(2 ** (8 * size - 1))
    raise MediaError(f"{name}: the waveform is {samples.dtype}; expected {_SAMPLES}")


def check_audio(audio: Audio, limits: Limits) -> Audio:
    """A waveform that somebody else made, as it is.

    Raises:
        MediaError: it holds no samples as `Audio` says they are, or is over a limit.
    """
    wave, rate = audio.waveform, audio.sample_rate
    if not isinstance(wave, np.ndarray) or wave.dtype != np.float32 or wave.ndim != 2 or 0 in wave.shape:
        what = f"{wave.dtype} {wave.shape}" if isinstance(wave, np.ndarray) else type(wave).__name__
        raise MediaError(f"sound: the waveform is {what[:80]}; expected float32 samples as [c s]")
    is_number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not is_number or not 1 <= rate <= HIGHEST_RATE or rate != int(rate):
        what = f"{rate:g} Hz" if is_number and not abs(rate) > HIGHEST_RATE else "another kind or size"
        raise MediaError(f"sound: a sample rate of {what}; expected a whole number up to {HIGHEST_RATE}")
    limits.check_seconds(wave.shape[1] / rate)
    limits.check_audio_bytes(*wave.shape)
    if not np.isfinite(wave).all():
        raise MediaError("sound: the waveform holds NaN or infinity; expected samples in [-1, 1]")
    return audio
