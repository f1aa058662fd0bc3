"""What the media layer hands out: frames with their times, and waveforms with their rate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from avllm.errors import MediaError


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """Frames of a video (or the one frame of an image) and when they are shown.

    Args:
        frames: RGB in [0, 255]; floats where resampling was asked to neither round nor clamp them (`fit.Resample`).
        times_s: when each frame is shown, in seconds on the file's own timeline (0 is where playing starts).
        duration_s: length of the whole video, not of the part that was sampled; 0 for an image.
        fps: average frame rate of the file; None for an image.
        has_audio: whether the file also holds a track of sound.
        indices: place of each frame among the file's frames; estimated where a file does not count its frames.
        num_damaged: packets that were skipped, and frames among these that came out damaged.
    """

    frames: UInt8[np.ndarray, "t h w 3"] | Float32[np.ndarray, "t h w 3"]
    times_s: Float64[np.ndarray, " t"]
    duration_s: float
    fps: float | None
    has_audio: bool
    indices: tuple[int, ...] = ()
    num_damaged: int = 0

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, kw_only=True, eq=False)
class Audio:
    """A waveform with all its channels.

    Args:
        waveform: samples in [-1, 1].
        sample_rate: in Hz.
        start_s: when the first sample is heard, on the timeline of the file (see `Video.times_s`).
        num_damaged: packets that were skipped because they could not be decoded.
    """

    waveform: Float32[np.ndarray, "c s"]
    sample_rate: int
    start_s: float = 0.0
    num_damaged: int = 0

    def __post_init__(self) -> None:
        rate = self.sample_rate
        if isinstance(rate, bool) or not 1 <= rate < float("inf") or rate != int(rate):
            raise MediaError(f"a sound of {self.sample_rate} Hz; expected a whole number of samples in a second")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[1] / self.sample_rate
