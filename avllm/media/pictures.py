"""Images, animated images, folders of frames, and frames that are in memory already."""

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from avllm.errors import MediaError, was_raised_in
from avllm.media.clips import Video
from avllm.media.fit import Fit, Picture, fit_picture
from avllm.media.limits import Limits
from avllm.media.sampling import Sampling
from avllm.media.source import Source

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
# What Pillow's readers raise on damaged files, found by changing bytes of good ones.
_PILLOW_FAULTS = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError),
    *(struct.error, Image.DecompressionBombError),
)
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def read_picture(source: Source, sampling: Sampling, *, how: Fit, limits: Limits) -> Video:
    """An image as a video of one frame; an animated one (GIF, WebP, PNG) is sampled by time.

    Raises:
        MediaError: not an image, damaged, or over a limit (told from its header).
    """
    file = source.path if source.data is None else io.BytesIO(source.data)
    with _open_image(file, source.name, limits) as image:
        num_frames = getattr(image, "n_frames", 1)
        if num_frames == 1:
            pixels = _to_rgb(image, how, limits)[None]
            return Video(frames=pixels, times_s=np.zeros(1), duration_s=0.0, fps=None, has_audio=False, indices=(0,))
        limits.check_frames(num_frames)
        return _animation(image, num_frames, sampling, how, limits)


def read_folder(
    source: Source,
    sampling: Sampling,
    *,
    fps: float,
    how: Fit,
    limits: Limits,
) -> Video:
    """The images of a folder in the natural order of their names (2 before 10), as frames of a video.

    Raises:
        MediaError: no image in it, one is damaged, or sizes differ and no size was asked for.
    """
    if source.path is None:
        raise MediaError(f"{source.name}: not a folder")
    files = sorted((p for p in source.path.iterdir() if p.suffix.lower() in _SUFFIXES), key=_natural)
    if not files:
        raise MediaError(f"{source.name}: no frames in the folder; expected images ({', '.join(sorted(_SUFFIXES))})")

    def read(path: Path) -> Picture:
        with _open_image(path, f"{source.name}/{path.name}", limits) as image:
            return _to_rgb(image, how, limits)

    return _collect(files, read, source.name, sampling, fps, how, limits)


def read_frames(
    source: Source,
    sampling: Sampling,
    *,
    fps: float,
    how: Fit,
    limits: Limits,
) -> Video:
    """Frames in memory: an array [t h w 3] (or one [h w 3]), or a list of arrays or Pillow images.

    Raises:
        MediaError: values or shapes that are not frames.
    """
    frames: Any = source.frames
    is_one = isinstance(frames, np.ndarray) and frames.ndim == 3
    if is_one:
        frames = frames[None]
    if frames is None or len(frames) == 0:
        raise MediaError(f"{source.name}: 0 frames; expected at least one")

    def read(frame: object) -> Picture:
        image = _as_image(frame, source.name)
        limits.check_pixels(*image.size)
        return _to_rgb(image, how, limits)

    if is_one:
        pixels = read(frames[0])[None]
        return Video(frames=pixels, times_s=np.zeros(1), duration_s=0.0, fps=None, has_audio=False, indices=(0,))
    return _collect(frames, read, source.name, sampling, fps, how, limits)


def _collect(
    items: Any, read: Callable[[Any], np.ndarray], name: str, sampling: Sampling, fps: float, how: Fit, limits: Limits
) -> Video:
    limits.check_frames(sampling.count(len(items), fps))
    indices = sampling.indices(len(items), fps)
    first = read(items[indices[0]])
    limits.check_video_bytes(len(indices), *first.shape[:2], item_bytes=how.item_bytes)
    frames = np.empty((len(indices), *first.shape), how.dtype)
    for number, index in enumerate(indices):
        pixels = first if index == indices[0] else read(items[index])
        if pixels.shape != first.shape:
            raise MediaError(
                f"{name}: frame {index} is {_wxh(pixels)}, the first is {_wxh(first)}; resize them alike or pass size="
            )
        frames[number] = pixels
    return Video(
        frames=frames,
        times_s=np.array(indices) / fps,
        duration_s=len(items) / fps,
        fps=fps,
        has_audio=False,
        indices=indices,
    )


def _animation(
    image: Image.Image,
    num_frames: int,
    sampling: Sampling,
    how: Fit,
    limits: Limits,
) -> Video:
    # Viewers show a frame without a length, or of less than 20 ms, for 0.1 s.
    lengths = [float(length) if (length := _length_ms(image, i)) >= 20 else 100.0 for i in range(num_frames)]
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) / 1000
    duration_s = sum(lengths) / 1000
    limits.check_seconds(duration_s)
    fps = num_frames / duration_s
    limits.check_frames(sampling.count(num_frames, fps))
    grid = np.array(sampling.indices(num_frames, fps)) / fps
    indices = tuple((np.searchsorted(starts, grid + 1e-6, side="right") - 1).tolist())
    height, width = how.size or (image.height, image.width)
    limits.check_video_bytes(len(indices), height, width, how.item_bytes)
    frames = np.empty((len(indices), height, width, 3), how.dtype)
    for number, index in enumerate(indices):
        image.seek(index)
        frames[number] = _to_rgb(image, how, limits)
    return Video(
        frames=frames, times_s=starts[list(indices)], duration_s=duration_s, fps=fps, has_audio=False, indices=indices
    )


def _length_ms(image: Image.Image, index: int) -> float:
    image.seek(index)
    return image.info.get("duration", 0)


@contextmanager
def _open_image(file: Path | io.BytesIO | None, name: str, limits: Limits) -> Iterator[Image.Image]:
    if file is None:
        raise MediaError(f"{name}: nothing to read")
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its own limit on; `limits` decides here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                limits.check_pixels(*image.size)
                yield image
    except MediaError:
        raise
    except _PILLOW_FAULTS as error:
        if not was_raised_in(error, "PIL"):
            raise  # a fault of ours, or of a library that changed, not of the file
        raise MediaError(f"{name}: not an image that can be read ({error}); expected a whole {_FORMATS}") from error


def _as_image(frame: object, name: str) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame
    if isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8:
        return Image.fromarray(frame)
    shape = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise MediaError(f"{name}: a frame is {shape}; expected uint8 [h w 3] (RGB) or a Pillow image")


def _to_rgb(image: Image.Image, how: Fit, limits: Limits) -> Picture:
    """Upright RGB, as `how` wants it."""
    return fit_picture(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), how, limits)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    parts: Iterable[str] = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _wxh(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
