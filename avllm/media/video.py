"""The door for pictures that move, and for those that do not."""

from avllm.errors import MediaError
from avllm.media.clips import Video
from avllm.media.limits import Limits
from avllm.media.pictures import read_folder, read_frames, read_picture
from avllm.media.reader import read_container
from avllm.media.resize import Resize
from avllm.media.sampling import Sampling
from avllm.media.source import MediaSource, resolve


def open_video(
    source: MediaSource,
    sampling: Sampling | None = None,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    source_fps: float = 24.0,
    limits: Limits | None = None,
) -> Video:
    """Samples the frames of a video.

    Frames are exact. A file of constant rate that counts its frames is sampled by index, any other by time: the frame
    that is on screen at the time of the index on an even grid.

    Args:
        source: a path, a `file:` or `data:` URL, bytes, an array [t h w 3], a list of frames, a folder of images.
        sampling: which frames (default: 8, uniform).
        size: (h, w) of the frames; None keeps the file's.
        resize: `squash` changes the aspect ratio, `crop` cuts the longer side, `pad` adds black bars.
        source_fps: rate of a source that has none of its own: an array, a list, a folder.
        limits: what the medium may cost.

    Raises:
        MediaError: cannot be read, holds no video, or is over a limit.
    """
    sampling, limits = sampling or Sampling(), limits or Limits()
    _check_size(size, limits)
    if not source_fps > 0:
        raise MediaError(f"source_fps: expected a rate above 0, got {source_fps}")
    what = resolve(source, limits)
    if what.kind == "container":
        return read_container(what, sampling, size=size, resize=resize, limits=limits)
    if what.kind == "picture":
        return read_picture(what, sampling, size=size, resize=resize, limits=limits)
    read = read_folder if what.kind == "folder" else read_frames
    return read(what, sampling, fps=source_fps, size=size, resize=resize, limits=limits)


def open_image(
    source: MediaSource,
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "squash",
    limits: Limits | None = None,
) -> Video:
    """Reads an image as a video of one frame; of an animated one the first frame.

    Raises:
        MediaError: not an image, or over a limit.
    """
    limits = limits or Limits()
    _check_size(size, limits)
    what = resolve(source, limits)
    if what.kind not in ("picture", "frames"):
        raise MediaError(f"{what.name}: not an image (PNG, JPEG, GIF, WebP, BMP); pass it as video or audio")
    if what.kind == "frames":
        return read_frames(what, Sampling(num_frames=1), fps=1.0, size=size, resize=resize, limits=limits)
    return read_picture(what, Sampling(num_frames=1), size=size, resize=resize, limits=limits)


def _check_size(size: tuple[int, int] | None, limits: Limits) -> None:
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise MediaError(f"size: expected (height, width) of at least 1, got {size}")
        limits.check_pixels(size[1], size[0])
