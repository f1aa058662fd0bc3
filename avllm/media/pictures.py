"""Images and animated images in files: each as its viewers show it."""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageFile import ImageFile

from avllm.errors import MediaError
from avllm.media.animations import Film, read_apng, read_gif
from avllm.media.clips import Video
from avllm.media.files import disk_faults
from avllm.media.fit import Fit, Picture, fit_picture
from avllm.media.heads import check_jpeg, check_png, read_avif, read_webp
from avllm.media.heif import read_heif
from avllm.media.limits import Limits
from avllm.media.pillow import make_room, open_with_pillow, orientation_of, pillow_faults
from avllm.media.pixels import on_white, oriented, unpack, upright, upright_size
from avllm.media.sampling import Sampling
from avllm.media.source import Source
from avllm.media.tags import Tags, check_tags

_SHORTEST_MS, _DEFAULT_MS = 10, 100.0
_NEW_SUBFILE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706  # tags of TIFF
_TILE_SIZE = {322, 323}  # likewise: width and height, at which the reader decodes


class _PillowFilm:
    """An animation whose frames Pillow puts together, one after the other from the first on."""

    def __init__(self, image: ImageFile, name: str) -> None:
        self.image, self.name = image, name
        self.size = image.height, image.width

    def num_pixels(self, wanted: Collection[int]) -> int:
        """How many are put together for some frames."""
        return (max(wanted) + 1) * self.size[0] * self.size[1]

    def frames(self, wanted: Collection[int]) -> Iterator[np.ndarray]:
        for number in sorted(set(wanted)):
            with pillow_faults(self.name):
                self.image.seek(number)
                self.image.load()
                pixels = unpack(self.image)
            yield pixels


def read_picture(source: Source, sampling: Sampling, *, how: Fit, limits: Limits, first_only: bool = False) -> Video:
    """An image as a video of one frame; an animated one (GIF, WebP, PNG, AVIF) is sampled by time.

    Of a photo with further pictures in it (a preview, a gain map, depth) only the one that is meant is read.

    Args:
        source: a picture.
        sampling: of an animated one.
        how: what is made of each frame.
        limits: what it may cost.
        first_only: of an animated one, the first frame as a picture; what follows is not read.

    Raises:
        MediaError: not an image, damaged, or over a limit (told from its header).
    """
    with disk_faults(source.name):
        return _read(source, sampling, how, limits, first_only=first_only)


def _read(source: Source, sampling: Sampling, how: Fit, limits: Limits, *, first_only: bool) -> Video:
    if source.format == "HEIF":
        with source.open() as file:
            return still(shown(read_heif(file, source.name, limits), 1, how, limits))
    if source.format == "GIF":
        film = read_gif(source.read(limits), source.name, limits, first_only=first_only)
        return _animation(film, [patch.length_ms for patch in film.patches], 1, sampling, how, limits)
    with _opened(source, limits, first_only=first_only) as (image, lengths_ms):
        with pillow_faults(source.name):
            orientation = orientation_of(image)
        if image.format == "PNG" and (len(lengths_ms) > 1 or getattr(image, "default_image", False)):
            film = read_apng(source.read(limits), source.name, limits, first_only=first_only)
            lengths = [patch.length_ms for patch in film.patches]
            return _animation(film, lengths, orientation, sampling, how, limits)
        if len(lengths_ms) > 1:
            film = _PillowFilm(image, source.name)
            return _animation(film, lengths_ms[:1] if first_only else lengths_ms, orientation, sampling, how, limits)
        height, width = how.size or upright_size((image.height, image.width), orientation)
        limits.check_video_bytes(1, height, width, how.item_bytes)
        with pillow_faults(source.name):
            if image.format == "TIFF":
                make_room(image)
            pixels = oriented(image)
        return still(shown(pixels, 1, how, limits))


def shown(pixels: UInt8[np.ndarray, "h w c"], orientation: int, how: Fit, limits: Limits) -> Picture:
    """Pixels turned, put on white and brought to a size. Raises MediaError when they are too many even alone."""
    height, width = how.size or upright_size(pixels.shape[:2], orientation)
    limits.check_video_bytes(1, height, width, how.item_bytes)
    picture = on_white(upright(pixels, orientation), drops_transparency=how.drops_transparency)
    return fit_picture(picture, how, limits)


def still(picture: Picture) -> Video:
    """A picture as a video that shows nothing else."""
    return Video(frames=picture[None], times_s=np.zeros(1), duration_s=0.0, fps=None, has_audio=False, indices=(0,))


@contextmanager
def _opened(source: Source, limits: Limits, *, first_only: bool) -> Iterator[tuple[ImageFile, list[float]]]:
    """An image file whose header is read and whose size is within the limit, and how long each of its frames lasts.

    All of a header is held in memory by Pillow, so the file is bounded as a medium in memory.

    Raises:
        MediaError: not an image of its format.
    """
    name, format = source.name, source.format
    lengths_ms: list[float] = []
    data = source.read(limits) if format in ("WEBP", "AVIF") else b""  # all of which these readers want
    with io.BytesIO(data) if data else source.open() as file:
        limits.check_memory_bytes(file.seek(0, io.SEEK_END))
        if format == "WEBP":
            lengths_ms = read_webp(data, name, limits)
        elif format == "AVIF":
            lengths_ms = read_avif(data, name, limits)
        elif format == "PNG":
            check_png(file, name, limits, first_only=first_only)
        elif format == "JPEG":
            check_jpeg(file, name)
        elif format == "TIFF":
            _check_tiff(check_tags(file, name), name, limits)
        with open_with_pillow(file, format, name) as image:
            limits.check_pixels(*image.size)
            num_frames = 1 if is_photo(image) else getattr(image, "n_frames", 1)
            if format == "AVIF" and num_frames > 1:  # the last of those that are stated goes for all that are not
                lengths_ms += [lengths_ms[-1] if lengths_ms else 0.0] * (num_frames - len(lengths_ms))
            yield image, lengths_ms[:num_frames] if format != "PNG" else [0.0] * min(num_frames, 2)


def is_photo(image: Image.Image) -> bool:
    """Whether further pictures in it are no frames: previews of a photo (MPO), pages, other sizes of an icon."""
    return image.format not in ("GIF", "PNG", "WEBP", "AVIF")


def _animation(
    film: Film | _PillowFilm, lengths_ms: list[float], orientation: int, sampling: Sampling, how: Fit, limits: Limits
) -> Video:
    height, width = how.size or upright_size(film.size, orientation)
    if len(lengths_ms) == 1:
        limits.check_animation(film.num_pixels([0]))
        limits.check_video_bytes(1, height, width, how.item_bytes)
        return still(shown(next(film.frames([0])), orientation, how, limits))
    limits.check_frames(len(lengths_ms), "the animation")
    # Browsers show a frame of at most 10 ms for 0.1 s, in every format.
    lengths = [length if length > _SHORTEST_MS else _DEFAULT_MS for length in lengths_ms]
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) / 1000
    duration_s = sum(lengths) / 1000
    limits.check_seconds(duration_s)
    fps = len(lengths) / duration_s
    limits.check_frames(sampling.count(len(lengths), fps))
    if sampling.kind == "all":
        ends = np.append(starts[1:], duration_s)
        within = np.flatnonzero((ends > (sampling.start_s or 0.0)) & (starts < (sampling.end_s or duration_s)))
        numbers = replace(sampling, start_s=None, end_s=None).indices(len(within), fps)
        indices = tuple(within[list(numbers)].tolist())
    else:
        # On an even grid, from what is on screen at start_s on.
        grid = np.maximum(np.array(sampling.indices(len(lengths), fps)) / fps, sampling.start_s or 0.0)
        # Files round times to milliseconds.
        indices = tuple((np.searchsorted(starts, grid + 2e-3, side="right") - 1).tolist())
    limits.check_video_bytes(len(indices), height, width, how.item_bytes)
    limits.check_animation(film.num_pixels(indices))
    frames = np.empty((len(indices), height, width, 3), how.dtype)
    for number, pixels in zip(sorted(set(indices)), film.frames(indices), strict=True):
        frames[np.equal(indices, number)] = shown(pixels, orientation, how, limits)
    return Video(
        frames=frames, times_s=starts[list(indices)], duration_s=duration_s, fps=fps, has_audio=False, indices=indices
    )


def _check_tiff(tags: Tags, name: str, limits: Limits) -> None:
    """Raises MediaError for files whose first picture is not the one that is meant, and for tiles over the limit."""
    if tags.values.keys() >= _TILE_SIZE:
        limits.check_pixels(*(tags.values[tag] for tag in sorted(_TILE_SIZE)))
    if _DNG_VERSION in tags.names or _SUB_IFDS in tags.names or tags.values.get(_NEW_SUBFILE, 0) & 1:
        raise MediaError(f"{name}: a raw photo, of which only a preview could be read; save it as JPEG or PNG")
    if tags.has_next:
        raise MediaError(f"{name}: a TIFF of several pictures; save the one that is meant, or a folder")
