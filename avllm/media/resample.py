"""Resampling by a windowed sinc, chunk by chunk, so that a long sound needs no more memory than its result.

A short sound can be resampled through its spectrum instead.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from avllm.media.growing import GrowingWaveform

_HALF_WIDTH = 6  # zero crossings of the sinc on each side
_ROLLOFF = 0.99  # of the lower Nyquist frequency
_LARGEST_TABLE = 1_000_000  # weights; rates with a smaller common divisor have theirs computed sample by sample
_WORK = 4_000_000  # numbers at a time
_MOST_OUTPUT = 1 << 20  # samples at a time


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
        self.width = math.ceil(_HALF_WIDTH * self.stride / _base(self.stride, self.phases))
        self.table: np.ndarray | None = None
        self.rest = np.zeros((num_channels, 0 if self.is_same else self.width), np.float32)
        if not self.is_same and (self.stride + 2 * self.width) * self.phases <= _LARGEST_TABLE:
            self.table = _table(self.stride, self.phases, self.width)

    def stream(self, blocks: Iterable[Float32[np.ndarray, "c s"]]) -> Iterator[Float32[np.ndarray, "c s2"]]:
        """All of the output of all of the input, in pieces of bounded size."""
        most = max(1, _MOST_OUTPUT * self.stride // self.phases)
        for block in blocks:
            for start in range(0, block.shape[1], most):
                yield self.push(block[:, start : start + most])
        if not self.is_same:
            yield self.finish()

    def push(self, chunk: Float32[np.ndarray, "c s"]) -> Float32[np.ndarray, "c s2"]:
        """Takes input, returns what of the output is certain by now."""
        self.num_in += chunk.shape[1]
        return chunk if self.is_same else self._pushed(chunk)

    def finish(self) -> Float32[np.ndarray, "c s2"]:
        """The rest of the output; in all ceil(samples * to_rate / from_rate) have come out then."""
        if self.is_same:
            return np.zeros((1, 0), np.float32)
        total, already = math.ceil(self.phases * self.num_in / self.stride), self.num_out
        tail = np.zeros((len(self.rest), self.width + self.stride), np.float32)
        return self._pushed(tail)[:, : max(0, total - already)]

    def _pushed(self, chunk: np.ndarray) -> np.ndarray:
        samples = np.concatenate([self.rest, chunk], axis=1)
        if self.table is None:
            return self._weighed(samples)
        blocks = max(0, (samples.shape[1] - self.table.shape[1]) // self.stride + 1)
        self.rest = samples[:, blocks * self.stride :].copy()
        result = self._convolved(samples, blocks, self.table)
        self.num_out += result.shape[1]
        return result

    def _convolved(self, samples: np.ndarray, blocks: int, table: np.ndarray) -> np.ndarray:
        if blocks == 0:
            return np.zeros((len(samples), 0), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, table.shape[1], axis=1)
        windows = windows[:, : blocks * self.stride : self.stride]
        # Bounded work space: a block of output is windows x taps x 4 bytes.
        step = max(1, _WORK // table.shape[1])
        parts = [windows[:, i : i + step] @ table.T for i in range(0, blocks, step)]
        return np.concatenate(parts, axis=1).reshape(len(samples), -1)

    def _weighed(self, samples: np.ndarray) -> np.ndarray:
        """Each output by the weights of its own place between two inputs."""
        num_taps, stride, phases = 2 * self.width + 2, self.stride, self.phases
        first = self.num_out * stride // phases  # the input from which samples[:, width] comes
        room = samples.shape[1] - num_taps  # how far the window may move
        last = self.num_out if room < 0 else ((first + room + 1) * phases - 1) // stride + 1
        result = np.zeros((len(samples), max(0, last - self.num_out)), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, num_taps, axis=1) if result.size else None
        step = max(1, _WORK // num_taps // (1 + len(samples)))
        for start in range(0, result.shape[1], step):
            assert windows is not None
            places = (self.num_out + np.arange(start, min(start + step, result.shape[1]))) * stride
            inputs, phase = places // phases, (places % phases) / phases
            weights = _weights_at(phase, self.width, stride, phases)
            result[:, start : start + step] = np.einsum("cst,st->cs", windows[:, inputs - first], weights)
        self.num_out += result.shape[1]
        self.rest = samples[:, self.num_out * stride // phases - first :].copy()
        return result


def resample(waveform: Float32[np.ndarray, "c s"], from_rate: int, to_rate: int) -> Float32[np.ndarray, "c s2"]:
    """Resamples a whole waveform."""
    if from_rate == to_rate:
        return waveform
    result = GrowingWaveform(len(waveform), math.ceil(waveform.shape[1] * to_rate / from_rate))
    for part in SincResampler(from_rate, to_rate, len(waveform)).stream([waveform]):
        result.append(part)
    return result.take()


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
def _table(stride: int, phases: int, width: int) -> np.ndarray:
    """The weights of each phase [phases taps], for rates that repeat themselves soon."""
    taps = np.arange(-width, width + stride) / stride
    offsets = np.arange(phases) / phases
    return _weights(taps[None, :] - offsets[:, None], stride, phases)


def _weights(distance: np.ndarray, stride: int, phases: int) -> np.ndarray:
    """The windowed sinc at a distance from its middle, in units of the common divisor; built in float64."""
    base = _base(stride, phases)
    t = np.clip(distance * base, -_HALF_WIDTH, _HALF_WIDTH)
    window = np.cos(np.pi * t / (2 * _HALF_WIDTH)) ** 2
    return (np.sinc(t) * window * base / stride).astype(np.float32)


def _weights_at(phase: np.ndarray, width: int, stride: int, phases: int) -> np.ndarray:
    """The same, one row for each place between two inputs: two sines for a row, not for each weight in it."""
    step = _base(stride, phases) / stride
    begin, steps = -phase * step, np.arange(-width, width + 2) * step

    def turned(scale: float) -> tuple[np.ndarray, np.ndarray]:
        (sin_a, sin_b), (cos_a, cos_b) = ([f(scale * x) for x in (begin, steps)] for f in (np.sin, np.cos))
        return np.outer(sin_a, cos_b) + np.outer(cos_a, sin_b), np.outer(cos_a, cos_b) - np.outer(sin_a, sin_b)

    t = begin[:, None] + steps
    sine, _ = turned(np.pi)
    _, window = turned(np.pi / _HALF_WIDTH)
    sinc = np.divide(sine, np.pi * t, out=np.ones_like(t), where=np.abs(t) > 1e-9)
    weights = sinc * (window + 1) * (step / 2)
    weights[np.abs(t) >= _HALF_WIDTH] = 0
    return weights.astype(np.float32)


def _base(stride: int, phases: int) -> float:
    return min(stride, phases) * _ROLLOFF
