"""Resampling by a windowed sinc, chunk by chunk, so that a long sound needs no more memory than its result.

A short sound can be resampled through its spectrum instead.
"""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

_HALF_WIDTH = 6  # zero crossings of the sinc on each side
_ROLLOFF = 0.99  # of the lower Nyquist frequency
_LARGEST_KERNEL = 8_000_000


class SincResampler:
    """Resamples a stream. The chunks may be of any length; their borders leave no trace.

    Source: the band-limited interpolation of torchaudio (`sinc_interp_hann`), which the published preprocessing uses.

    Args:
        from_rate: of the input, in Hz.
        to_rate: of the output, in Hz.
        num_channels: of both.
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        divisor = math.gcd(from_rate, to_rate)
        self.stride, self.phases = from_rate // divisor, to_rate // divisor
        self.is_same = from_rate == to_rate
        self.num_in = self.num_out = 0
        if not self.is_same:
            self.width, self.kernel = _kernel(self.stride, self.phases)
            self.rest = np.zeros((num_channels, self.width), np.float32)

    @staticmethod
    def fits(from_rate: int, to_rate: int) -> bool:
        """Whether the two rates have a common divisor large enough for a table of reasonable size."""
        divisor = math.gcd(from_rate, to_rate)
        return (from_rate // divisor + 64) * (to_rate // divisor) <= _LARGEST_KERNEL

    def push(self, chunk: Float32[np.ndarray, "c s"]) -> Float32[np.ndarray, "c s2"]:
        """Takes input, returns what of the output is certain by now."""
        self.num_in += chunk.shape[1]
        if self.is_same:
            return chunk
        samples = np.concatenate([self.rest, chunk], axis=1)
        blocks = max(0, (samples.shape[1] - self.kernel.shape[1]) // self.stride + 1)
        self.rest = samples[:, blocks * self.stride :]
        result = self._convolve(samples, blocks)
        self.num_out += result.shape[1]
        return result

    def finish(self) -> Float32[np.ndarray, "c s2"]:
        """The rest of the output; in all ceil(samples * to_rate / from_rate) have come out then."""
        if self.is_same:
            return np.zeros((1, 0), np.float32)
        total, already = math.ceil(self.phases * self.num_in / self.stride), self.num_out
        tail = np.zeros((len(self.rest), self.width + self.stride), np.float32)
        samples = np.concatenate([self.rest, tail], axis=1)
        blocks = max(0, (samples.shape[1] - self.kernel.shape[1]) // self.stride + 1)
        return self._convolve(samples, blocks)[:, : max(0, total - already)]

    def _convolve(self, samples: np.ndarray, blocks: int) -> np.ndarray:
        if blocks == 0:
            return np.zeros((len(samples), 0), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.kernel.shape[1], axis=1)
        windows = windows[:, : blocks * self.stride : self.stride]
        # Bounded work space: a block of output is windows x taps x 4 bytes.
        step = max(1, 4_000_000 // self.kernel.shape[1])
        parts = [windows[:, i : i + step] @ self.kernel.T for i in range(0, blocks, step)]
        return np.concatenate(parts, axis=1).reshape(len(samples), -1)


def resample(waveform: Float32[np.ndarray, "c s"], from_rate: int, to_rate: int) -> Float32[np.ndarray, "c s2"]:
    """Resamples a whole waveform."""
    resampler = SincResampler(from_rate, to_rate, len(waveform))
    head = resampler.push(waveform)
    return head if resampler.is_same else np.concatenate([head, resampler.finish()], axis=1)


def resample_fft(waveform: Float32[np.ndarray, "*c s"], from_rate: int, to_rate: int) -> Float32[np.ndarray, "*c s2"]:
    """Resamples a whole waveform by cutting or filling its spectrum; the sound is taken to go round in a circle.

    Source: `scipy.signal.resample`, which published preprocessing of sound uses; ceil(samples * to_rate / from_rate)
    samples come out.
    """
    num_in = waveform.shape[-1]
    num_out = math.ceil(num_in * to_rate / from_rate)
    if num_out == num_in:
        return waveform
    shorter = min(num_in, num_out)
    given = np.fft.rfft(waveform.astype(np.float64, copy=False))[..., : shorter // 2 + 1].copy()
    if shorter % 2 == 0:  # the highest frequency of the shorter one stands for itself and its mirror image
        given[..., -1] *= 2.0 if num_out < num_in else 0.5
    spectrum = np.zeros((*waveform.shape[:-1], num_out // 2 + 1), np.complex128)
    spectrum[..., : given.shape[-1]] = given
    return (np.fft.irfft(spectrum, num_out) * (num_out / num_in)).astype(np.float32)


@lru_cache(maxsize=8)
def _kernel(stride: int, phases: int) -> tuple[int, np.ndarray]:
    """Half-width in samples and the table [phases taps], built in float64."""
    base = min(stride, phases) * _ROLLOFF
    width = math.ceil(_HALF_WIDTH * stride / base)
    taps = np.arange(-width, width + stride) / stride
    offsets = np.arange(phases) / phases
    t = np.clip((taps[None, :] - offsets[:, None]) * base, -_HALF_WIDTH, _HALF_WIDTH)
    window = np.cos(np.pi * t / (2 * _HALF_WIDTH)) ** 2
    return width, (np.sinc(t) * window * base / stride).astype(np.float32)
