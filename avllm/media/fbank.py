"""Sound as one long picture: the filter bank of a whole sound, as BEATs hears it."""

import logging
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from avllm.errors import ConfigError, MediaError
from avllm.media.clips import Audio
from avllm.media.mel import FRAME_SECONDS, SHIFT_SECONDS, SegmentConfig, log_mel, segment_ranges
from avllm.media.resample import resample, resample_fft

logger = logging.getLogger(__name__)

_INT16 = np.float32(32768.0)  # Kaldi's samples are those of 16 bits


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """How a sound becomes one picture. The defaults are those of VideoLLaMA 2.1-AV.

    Args:
        seconds: of sound in the picture; a shorter one is followed by silence, of a longer one clips are taken, spread
            evenly over all of it.
        sample_rate: of the picture, in Hz.
        num_mel_bins: height of the picture.
        num_clips: of the sound of a video, evenly spread; they overlap in short ones.
        clip_seconds: length of a clip; clips follow each other without a gap.
        mean: of log-mel values, for normalization.
        std: likewise; twice the deviation, as in BEATs.
        channels: of a file of sound; `first` takes the first channel, as published; `mean` mixes all, as is done for
            videos.
    """

    seconds: float = 30.0
    sample_rate: int = 16000
    num_mel_bins: int = 128
    num_clips: int = 8
    clip_seconds: float = 2.0
    mean: float = 15.41663
    std: float = 13.11164
    channels: Literal["first", "mean"] = "first"

    @property
    def num_frames(self) -> int:
        """n, frames of 25 ms every 10 ms."""
        length, shift = int(self.sample_rate * FRAME_SECONDS), int(self.sample_rate * SHIFT_SECONDS)
        return 1 + (int(self.seconds * self.sample_rate) - length) // shift

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(c, f, n) of the picture."""
        return 1, self.num_mel_bins, self.num_frames

    def __post_init__(self) -> None:
        for name in ("seconds", "sample_rate", "num_mel_bins", "num_clips", "clip_seconds", "std"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if self.num_clips * self.clip_seconds > self.seconds:
            raise ConfigError(
                f"num_clips: {self.num_clips} clips of {self.clip_seconds:g} s are longer than {self.seconds:g} s"
            )


def fbank_of(
    audio: Audio, config: FbankConfig | None = None, *, is_video: bool = False, crops_at_random: bool = False
) -> Float32[np.ndarray, "1 1 f n"]:
    """The normalized log-mel picture of a sound, as the one segment of its medium.

    Source: the preprocessing of VideoLLaMA 2.1-AV, which rounds the picture to bfloat16; a model in bfloat16 does so.

    Args:
        audio: a sound of up to `seconds` may have any rate; its resampling by Fourier transform is then the published
            one.
        config: the sizes.
        is_video: whether it is the track of a video, of which `num_clips` clips are heard.
        crops_at_random: of a long sound, hears a random part, as published, in place of clips.

    Raises:
        MediaError: the sound is empty.
    """
    config = config or FbankConfig()
    waveform = waveform_of(audio, config, is_video=is_video, crops_at_random=crops_at_random)
    rows = log_mel(waveform * _INT16, config.sample_rate, config.num_mel_bins, window="povey")
    return ((rows.T - np.float32(config.mean)) / np.float32(config.std))[None, None]


def waveform_of(
    audio: Audio, config: FbankConfig, *, is_video: bool = False, crops_at_random: bool = False
) -> Float32[np.ndarray, " s"]:
    """The `seconds` of sound that the picture shows; see `fbank_of`."""
    if audio.waveform.shape[1] == 0:
        raise MediaError("the sound is empty; expected at least one sample")
    rate, heard = audio.sample_rate, audio.waveform
    if is_video:
        heard, rate = resample(heard.mean(axis=0, keepdims=True), rate, config.sample_rate), config.sample_rate
    heard = heard.mean(axis=0) if config.channels == "mean" else heard[0]
    length = int(config.seconds * rate)
    if len(heard) > length and crops_at_random and not is_video:
        start = random.randint(0, len(heard) - length)
        spans = [(start, start + length)]
    else:
        spans = heard_spans(len(heard), rate, config, is_video=is_video)
        if not is_video and len(spans) > 1:
            told = "the sound is %.1f s long; heard are %d clips of %g s all over it (start_s and end_s choose a part)"
            logger.warning(told, len(heard) / rate, len(spans), config.clip_seconds)
    heard = np.concatenate([heard[begin:end] for begin, end in spans])[:length]
    padded = np.pad(heard, (0, length - len(heard)))
    return padded if rate == config.sample_rate else resample_fft(padded, rate, config.sample_rate)


def heard_spans(
    num_samples: int, sample_rate: int, config: FbankConfig, *, is_video: bool = False
) -> list[tuple[int, int]]:
    """First sample and end of every part of a sound that is heard; the end may lie past the sound's.

    Args:
        num_samples: of the sound.
        sample_rate: in Hz.
        config: the sizes.
        is_video: see `fbank_of`. The published sampler of videos never reaches the end; that of long sounds does.
    """
    if not is_video and num_samples <= int(config.seconds * sample_rate):
        return [(0, num_samples)]
    spread = SegmentConfig(
        num_segments=config.num_clips if is_video else int(config.seconds / config.clip_seconds),
        segment_seconds=config.clip_seconds,
        sample_rate=sample_rate,
        timing="pytorchvideo-0.1.5" if is_video else "git",
    )
    return segment_ranges(num_samples, spread)
