"""Sound as pictures: Kaldi's log-mel filter bank, and the segments of it that ImageBind looks at."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from avllm.errors import ConfigError, MediaError
from avllm.media.clips import Audio

FRAME_SECONDS, SHIFT_SECONDS = 0.025, 0.010
_PRE_EMPHASIS = np.float32(0.97)
_LOWEST_HZ = 20.0
_FRAMES_AT_ONCE = 8192  # of a long sound: frames overlap, and take several times its memory
_FLOOR = np.float32(1.1920929e-07)  # machine epsilon of float32, below which Kaldi takes no logarithm


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How a sound is cut into segments. The defaults are those of ImageBind in Video-LLaMA.

    Args:
        num_segments: how many, evenly spread; they overlap in short sounds.
        segment_seconds: length of each.
        sample_rate: that the sound must have, in Hz.
        num_mel_bins: height of a segment's picture.
        num_frames: width of it; shorter ones are filled with log-mel 0 before normalization, as published.
        mean: of log-mel values, for normalization.
        std: likewise.
        channels: `first` takes the first channel, as published; `mean` mixes all.
        timing: segment i starts at i * (duration - length) / n in `pytorchvideo-0.1.5`, which Video-LLaMA pins, so the
            end is never reached; in `git`, ImageBind's own pin, at i * (duration - length) / (n - 1).
    """

    num_segments: int = 8
    segment_seconds: float = 2.0
    sample_rate: int = 16000
    num_mel_bins: int = 128
    num_frames: int = 204
    mean: float = -4.268
    std: float = 9.138
    channels: Literal["first", "mean"] = "first"
    timing: Literal["pytorchvideo-0.1.5", "git"] = "pytorchvideo-0.1.5"

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(c, f, n) of a segment."""
        return 1, self.num_mel_bins, self.num_frames

    def __post_init__(self) -> None:
        for name in ("num_segments", "segment_seconds", "sample_rate", "num_mel_bins", "num_frames", "std"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")


def log_mel(
    waveform: Float[np.ndarray, " s"],
    sample_rate: int = 16000,
    num_mel_bins: int = 128,
    *,
    window: Literal["hann", "povey"] = "hann",
) -> Float32[np.ndarray, "n f"]:
    """Log-mel energies, one row per complete frame of 25 ms every 10 ms; none for a shorter sound.

    Source: Kaldi's `compute-fbank-feats`, no dither; the window povey, Hann to the power of 0.85, is its default.
    """
    length, shift = int(sample_rate * FRAME_SECONDS), int(sample_rate * SHIFT_SECONDS)
    if len(waveform) < length:
        return np.zeros((0, num_mel_bins), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float32, copy=False), length)[::shift]
    rows = np.empty((len(frames), num_mel_bins), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        rows[part] = _log_mel_of(frames[part], sample_rate, num_mel_bins, window)
    return rows


def _log_mel_of(
    frames: Float32[np.ndarray, "n s"], sample_rate: int, num_mel_bins: int, window: Literal["hann", "povey"]
) -> Float32[np.ndarray, "n f"]:
    length = frames.shape[1]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # Kaldi repeats the first sample as the one before it.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PRE_EMPHASIS * before) * _window(length, window)
    num_points = 1 << (length - 1).bit_length()
    spectrum = np.fft.rfft(frames, n=num_points, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(np.maximum(power @ _mel_bank(num_points, num_mel_bins, sample_rate), _FLOOR))


def segment_ranges(num_samples: int, config: SegmentConfig) -> list[tuple[int, int]]:
    """First sample and end of every segment; the end may lie past the sound's.

    Source: pytorchvideo's `ConstantClipsPerVideoSampler`, exact fractions of the duration as a float.
    """
    length = Fraction(config.segment_seconds)
    spare = max(Fraction(num_samples / config.sample_rate) - length, Fraction(0))
    parts = config.num_segments if config.timing == "pytorchvideo-0.1.5" else max(config.num_segments - 1, 1)
    starts = [index * spare / parts for index in range(config.num_segments)]
    rate = config.sample_rate
    return [(int(start * rate), int((start + length) * rate)) for start in starts]


def audio_segments(audio: Audio, config: SegmentConfig | None = None) -> Float32[np.ndarray, "t 1 f n"]:
    """Normalized log-mel pictures of evenly spread segments.

    Source: ImageBind's `load_and_transform_audio_data`, but its subtraction of the mean, which leaks from segment to
    overlapping segment, is done on each segment alone; a sound under 25 ms is filled with silence up to one frame.

    Raises:
        MediaError: the sound is empty or has another sample rate.
    """
    config = config or SegmentConfig()
    waveform = audio.waveform
    if audio.sample_rate != config.sample_rate:
        raise MediaError(f"the sound has {audio.sample_rate} Hz, expected {config.sample_rate}; open it at that rate")
    if waveform.shape[1] == 0:
        raise MediaError("the sound is empty; expected at least one sample")
    if config.channels == "mean":
        waveform = waveform.mean(axis=0, keepdims=True)
    shortest = math.ceil(config.sample_rate * FRAME_SECONDS)
    pictures = np.zeros((config.num_segments, 1, config.num_mel_bins, config.num_frames), np.float32)
    done: dict[tuple[int, int], np.ndarray] = {}
    for picture, span in zip(pictures, segment_ranges(waveform.shape[1], config), strict=True):
        if span not in done:  # In short sounds all segments are the same.
            segment = waveform[:, span[0] : span[1]]
            # As published, the mean is over all channels though only the first is looked at.
            segment = segment[0] - segment.mean(dtype=np.float64).astype(np.float32)
            segment = np.pad(segment, (0, max(0, shortest - len(segment))))
            rows = log_mel(segment, config.sample_rate, config.num_mel_bins)[: config.num_frames]
            done[span] = rows.T
        picture[0, :, : done[span].shape[1]] = done[span]
    return (pictures - np.float32(config.mean)) / np.float32(config.std)


@lru_cache(maxsize=8)
def _window(length: int, name: Literal["hann", "povey"]) -> np.ndarray:
    return (np.hanning(length) ** (0.85 if name == "povey" else 1.0)).astype(np.float32)


@lru_cache(maxsize=8)
def _mel_bank(num_points: int, num_mel_bins: int, sample_rate: int) -> np.ndarray:
    """Triangles that are linear in mel, not in Hz, without area normalization: [bins of the spectrum, mel bins]."""
    lowest, highest = _mel(_LOWEST_HZ), _mel(sample_rate / 2)
    edges = np.linspace(lowest, highest, num_mel_bins + 2)
    points = _mel(np.arange(num_points // 2 + 1) * sample_rate / num_points)[:, None]
    rising = (points - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - points) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hertz):
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
