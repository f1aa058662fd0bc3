"""Writing media: mp4 (H.264 + AAC) and what else the bundled encoders make. FFmpeg need not be installed."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av import AudioStream, VideoStream
from av.container import OutputContainer
from jaxtyping import Float, UInt8

from avllm.errors import MediaError

# Container by suffix: video codec, audio codec. Opus takes only some sample rates; the encoder resamples.
_CODECS = {
    ".mp4": ("h264", "aac"),
    ".mov": ("h264", "aac"),
    ".mkv": ("h264", "aac"),
    ".webm": ("vp9", "libopus"),
    ".m4a": (None, "aac"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".ogg": (None, "libopus"),
}


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    fps: float | Fraction,
    *,
    waveform: Float[np.ndarray, "c s"] | Float[np.ndarray, " s"] | None = None,
    sample_rate: int = 16000,
    crf: int = 23,
    audio_bit_rate: int = 64000,
    codec: str | None = None,
    audio_codec: str | None = None,
    gop: int | None = None,
    preset: str = "veryfast",
    threads: int = 1,
) -> Path:
    """Encodes frames, and sound if given, into one file. The suffix chooses the container and the codecs.

    One thread and the same input give the same bytes.

    Args:
        path: `.mp4`, `.mov`, `.mkv` or `.webm`; an existing file is replaced.
        frames: RGB, all of one size with even sides; read one at a time.
        fps: frame rate.
        waveform: in [-1, 1]; 1 or 2 channels.
        sample_rate: of the waveform, in Hz.
        crf: quality of the picture, lower is better (H.264: 0 to 51).
        audio_bit_rate: in bit/s.
        codec: video codec in place of the suffix's.
        audio_codec: audio codec in place of the suffix's.
        gop: longest distance between keyframes, in frames (default: the encoder's).
        preset: speed of H.264 encoding against size.
        threads: of the video encoder.

    Raises:
        MediaError: no frame, an odd or changing size, an unknown suffix, or the encoder refuses.
    """
    path = Path(path)
    video_codec, default_audio = _codecs(path)
    codec, audio_codec = codec or video_codec, audio_codec or default_audio
    if codec is None:
        raise MediaError(f"{path.name}: {path.suffix} holds no video; write it with write_audio or choose .mp4")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise MediaError(f"{path.name}: no frames to write; expected at least one")
    rate = _rate(fps)
    with _writing(path, f"{codec}/{audio_codec}") as container:
        picture = _Picture(container, codec, first.shape, rate, crf=crf, gop=gop, preset=preset, threads=threads)
        sound = None
        if waveform is not None:
            sound = _Sound(container, audio_codec, waveform, sample_rate, audio_bit_rate)
        for pixels in itertools.chain([first], iterator):
            picture.write(pixels)
            if sound is not None:
                sound.write_until(float(picture.num_frames / rate))
        picture.finish()
        if sound is not None:
            sound.finish()
    return path


def write_audio(
    path: str | Path,
    waveform: Float[np.ndarray, "c s"] | Float[np.ndarray, " s"],
    sample_rate: int,
    *,
    bit_rate: int = 64000,
    codec: str | None = None,
) -> Path:
    """Encodes a waveform: `.wav` (16 bit), `.flac`, `.m4a` (AAC) or `.ogg` (Opus).

    Raises:
        MediaError: an unknown suffix, or the encoder refuses.
    """
    path = Path(path)
    codec = codec or _codecs(path)[1]
    with _writing(path, codec) as container:
        _Sound(container, codec, waveform, sample_rate, bit_rate).finish()
    return path


@contextmanager
def _writing(path: Path, codecs: str) -> Iterator[OutputContainer]:
    """An open container; a failed write leaves no half a file behind, and what stood there before as it was."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with av.open(f"file:{part.absolute()}", "w") as container:
            yield container
        part.replace(path)
    except av.FFmpegError as error:
        part.unlink(missing_ok=True)
        raise MediaError(f"{path.name}: cannot be written with {codecs}: {error.strerror}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _rate(fps: float | Fraction) -> Fraction:
    rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) else Fraction(0)
    if rate <= 0:
        raise MediaError(f"fps: expected a rate above 0, got {fps}")
    return rate


def _codecs(path: Path) -> tuple[str | None, str]:
    if path.suffix.lower() not in _CODECS:
        raise MediaError(f"{path.name}: cannot write {path.suffix!r}, known are: {', '.join(_CODECS)}")
    return _CODECS[path.suffix.lower()]


class _Picture:
    """Encodes frames of one size."""

    def __init__(
        self,
        container: OutputContainer,
        codec: str,
        shape: tuple[int, ...],
        rate: Fraction,
        *,
        crf: int,
        gop: int | None,
        preset: str,
        threads: int,
    ) -> None:
        height, width = shape[:2]
        if height % 2 or width % 2:
            raise MediaError(f"frames are {width}x{height}; video codecs need even sides, crop or pad by one pixel")
        options = {"crf": str(crf)}
        if codec in ("h264", "hevc", "libx264", "libx265"):
            options["preset"] = preset
        if codec in ("vp9", "libvpx-vp9"):
            options |= {"b": "0", "cpu-used": "5", "deadline": "realtime"}
        self.stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.thread_count = threads
        if gop is not None:
            context.gop_size = gop
        self.container, self.shape, self.rate = container, shape, rate
        self.num_frames = 0

    def write(self, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        if pixels.shape != self.shape:
            raise MediaError(
                f"frame {self.num_frames} is {pixels.shape}, the first was {self.shape}; resize them alike"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = self.num_frames, 1 / self.rate
        self.container.mux(self.stream.encode(frame))
        self.num_frames += 1

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))


class _Sound:
    """Encodes a waveform in step with the video, so that the muxer need not hold one of them back."""

    def __init__(self, container: OutputContainer, codec: str, waveform: np.ndarray, rate: int, bit_rate: int) -> None:
        waveform = np.atleast_2d(waveform)
        if len(waveform) not in (1, 2):
            raise MediaError(f"waveform has {len(waveform)} channels; expected 1 or 2, as [c s]")
        self.container, self.rate = container, rate
        layout = "mono" if len(waveform) == 1 else "stereo"
        stream_rate = 48000 if codec == "libopus" else rate  # Opus knows no 44.1 kHz
        self.stream = cast(AudioStream, container.add_stream(codec, rate=stream_rate, layout=layout))
        if not codec.startswith("pcm"):
            self.stream.bit_rate = bit_rate
        self.chunks = self._chunks(np.clip(waveform, -1.0, 1.0).astype(np.float32), layout)
        self.time_s = 0.0

    def _chunks(self, waveform: np.ndarray, layout: str) -> Iterator[av.AudioFrame]:
        size = max(1, self.rate // 4)
        for start in range(0, waveform.shape[1], size):
            part = np.ascontiguousarray(waveform[:, start : start + size])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = self.rate, start, Fraction(1, self.rate)
            yield frame

    def write_until(self, time_s: float) -> None:
        while self.time_s < time_s and (frame := next(self.chunks, None)) is not None:
            self.container.mux(self.stream.encode(frame))
            self.time_s += frame.samples / self.rate

    def finish(self) -> None:
        self.write_until(float("inf"))
        self.container.mux(self.stream.encode(None))
