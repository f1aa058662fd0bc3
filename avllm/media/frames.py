"""Frames of a video one by one: the images of a folder, and lists and arrays in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media.clips import Video
from avllm.media.files import SUFFIXES, shown_name
from avllm.media.fit import Fit, Picture
from avllm.media.limits import Limits, size_text
from avllm.media.pictures import read_picture, shown, still
from avllm.media.pillow import pillow_faults
from avllm.media.pixels import as_frames, eight_bits, oriented
from avllm.media.sampling import Sampling
from avllm.media.source import Source


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
    names = source.names()
    if not names:
        raise MediaError(f"{source.name}: no frames in the folder; expected images ({', '.join(sorted(SUFFIXES))})")

    def read(name: str) -> Picture:
        return _of_file(source.member(name, limits), f"{source.name}/{shown_name(Path(name))}", how, limits)

    return _collect(names, read, source.name, sampling, fps, how, limits)


def read_frames(
    source: Source,
    sampling: Sampling,
    *,
    fps: float,
    how: Fit,
    limits: Limits,
) -> Video:
    """Frames in memory: one picture, or several as a video; see `avllm.media.source.Source.frames`.

    Raises:
        MediaError: values or shapes that are not frames.
    """
    frames: Any = source.frames
    if isinstance(frames, Image.Image):
        return still(read_frame(frames, source.name, how, limits))
    is_one = False
    if isinstance(frames, np.ndarray):
        frames, is_one = as_frames(frames, source.name)
    if len(frames) == 0:
        raise MediaError(f"{source.name}: 0 frames; expected at least one")
    if is_one:
        return still(read_frame(frames[0], source.name, how, limits))
    return _collect(
        frames, lambda frame: read_frame(frame, source.name, how, limits), source.name, sampling, fps, how, limits
    )


def read_frame(frame: Any, name: str, how: Fit, limits: Limits) -> Picture:
    """One of a list of frames: an array, a Pillow image, or the source of a picture.

    Raises:
        MediaError: it is none, damaged, or over a limit.
    """
    if isinstance(frame, Source):
        return _of_file(frame, frame.name, how, limits)
    if isinstance(frame, Image.Image):  # whose size was checked when it was handed over
        with pillow_faults(name):
            pixels = oriented(frame)
    else:
        pictures, is_one = as_frames(frame, name)
        if not is_one:
            raise MediaError(f"{name}: a frame is {frame.shape}; expected one picture, [h w 3] or [3 h w]")
        limits.check_pixels(pictures.shape[2], pictures.shape[1])
        pixels = eight_bits(pictures[0], name)
    return shown(pixels, 1, how, limits)


def _of_file(source: Source, name: str, how: Fit, limits: Limits) -> Picture:
    if source.kind != "picture":
        raise MediaError(f"{name}: not an image that can be read; expected one of {', '.join(sorted(SUFFIXES))}")
    video = read_picture(source, Sampling(num_frames=1), how=how, limits=limits)
    if video.fps is not None:
        raise MediaError(f"{name}: an animation among frames; pass it alone, or save one picture of it")
    return video.frames[0]


def _collect(
    items: Sequence[Any] | np.ndarray,
    read: Callable[[Any], np.ndarray],
    name: str,
    sampling: Sampling,
    fps: float,
    how: Fit,
    limits: Limits,
) -> Video:
    limits.check_seconds(len(items) / fps)
    limits.check_frames(sampling.count(len(items), fps))
    indices = sampling.indices(len(items), fps)
    if how.size is not None:
        limits.check_video_bytes(len(indices), *how.size, item_bytes=how.item_bytes)
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


def _wxh(pixels: np.ndarray) -> str:
    return size_text(pixels.shape[1], pixels.shape[0])
