"""The door for pictures that move, and for those that do not."""

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media.clips import Video
from avllm.media.fit import CropOffset, Fit, Resample, Resize
from avllm.media.frames import read_folder, read_frames
from avllm.media.limits import Limits
from avllm.media.pictures import is_photo, read_picture
from avllm.media.pillow import pillow_faults
from avllm.media.reader import read_container
from avllm.media.sampling import Sampling
from avllm.media.source import MediaSource, Source, resolve


def open_video(
    source: MediaSource,
    sampling: Sampling | None = None,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    resample: Resample = "decoder",
    crop_offset: CropOffset = "floor",
    pad_color: tuple[int, int, int] = (0, 0, 0),
    drops_transparency: bool = False,
    source_fps: float = 24.0,
    limits: Limits | None = None,
) -> Video:
    """Samples the frames of a video.

    Frames are exact. Where the rate is constant they are sampled by index, else by time: the frame that is on screen at
    the time of the index on an even grid. A file without an index (MPEG-TS, MPEG-PS, FLV, raw streams) is first walked
    through, undecoded. Recordings that were joined are one; what a player plays on through is skipped and counted.

    Args:
        source: a path, a `file:` or `data:` URL, bytes or an open binary file; a folder of images; frames in memory: an
            array or a tensor, [t h w c] or [t c h w], in uint8 or as floats in [0, 1], a Pillow image, or a list of
            arrays, Pillow images and paths of images; a `Source`.
        sampling: which frames (default: 8, uniform).
        size: (h, w) of the frames; None keeps the file's.
        resize: `squash` changes the aspect ratio, `crop` cuts the longer side, `pad` adds bars.
        resample: how pixels are computed; see `avllm.media.fit.Fit`, also for what follows.
        crop_offset: where a crop begins.
        pad_color: RGB of the bars.
        drops_transparency: what is transparent is white otherwise.
        source_fps: rate of a source that has none of its own: an array, a list, a folder.
        limits: what the medium may cost.

    Raises:
        MediaError: cannot be read, holds no video, or is over a limit.
    """
    sampling, limits = sampling or Sampling(), limits or Limits()
    how = Fit(
        size=size,
        resize=resize,
        resample=resample,
        crop_offset=crop_offset,
        pad_color=pad_color,
        drops_transparency=drops_transparency,
    )
    _check_size(how, limits)
    if not 0 < source_fps < float("inf"):
        raise MediaError(f"source_fps: expected a rate above 0, got {source_fps}")
    what = resolve(source, limits)
    if what.kind == "container":
        return read_container(what, sampling, how=how, limits=limits)
    if what.kind == "picture":
        return read_picture(what, sampling, how=how, limits=limits)
    _check_moving(what)
    _check_frames(what)
    read = read_folder if what.kind == "folder" else read_frames
    return read(what, sampling, fps=source_fps, how=how, limits=limits)


def open_image(
    source: MediaSource,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    resample: Resample = "decoder",
    crop_offset: CropOffset = "floor",
    pad_color: tuple[int, int, int] = (0, 0, 0),
    drops_transparency: bool = False,
    limits: Limits | None = None,
) -> Video:
    """Reads an image as a video of one frame; of an animated one, or of frames, the first.

    Args:
        source: an image in any of the forms of `open_video`, or an array [h w c], [c h w] or [h w].
        size: (h, w) of the result, and so on as for `open_video`.
        resize: see there.
        resample: see there.
        crop_offset: see there.
        pad_color: see there.
        drops_transparency: see there.
        limits: what the medium may cost.

    Raises:
        MediaError: not an image, or over a limit.
    """
    limits = limits or Limits()
    how = Fit(
        size=size,
        resize=resize,
        resample=resample,
        crop_offset=crop_offset,
        pad_color=pad_color,
        drops_transparency=drops_transparency,
    )
    _check_size(how, limits)
    what = resolve(source, limits)
    if what.kind in ("container", "folder"):
        raise MediaError(
            f"{what.name}: not an image (PNG, JPEG, GIF, WebP, AVIF, HEIC, BMP, TIFF); pass it as video or audio"
        )
    if what.kind == "picture":
        return read_picture(what, Sampling(num_frames=1), how=how, limits=limits, first_only=True)
    _check_frames(what)
    return read_frames(what, Sampling(num_frames=1), fps=1.0, how=how, limits=limits)


def _check_moving(source: Source) -> None:
    image = source.frames
    with pillow_faults(source.name):
        is_moving = isinstance(image, Image.Image) and not is_photo(image) and getattr(image, "is_animated", False)
    if is_moving:
        raise MediaError(
            "a Pillow image with several frames, of which it shows one; pass the path or bytes of its file"
        )


def _check_frames(source: Source) -> None:
    if source.kind == "sound" or (source.kind == "samples" and np.asarray(source.frames).ndim < 2):
        raise MediaError(f"{source.name}: samples of a sound, not pictures; pass it as audio")


def _check_size(how: Fit, limits: Limits) -> None:
    if how.size is not None:
        limits.check_pixels(how.size[1], how.size[0])
