"""Images and animated images in files: each as its viewers show it."""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, features

from avllm.errors import MediaError
from avllm.media.animations import Film, read_apng, read_gif
from avllm.media.clips import Video
from avllm.media.fit import Fit, Picture, fit_picture
from avllm.media.heif import read_heif
from avllm.media.limits import Limits
from avllm.media.pixels import on_white, oriented, pillow_faults, unpack, upright, upright_size
from avllm.media.sampling import Sampling
from avllm.media.source import Source

_SHORTEST_MS, _DEFAULT_MS = 10, 100.0
_NEW_SUBFILE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706  # tags of TIFF


class _PillowFilm:
    """An animation whose frames Pillow puts together."""

    def __init__(self, image: Image.Image, name: str) -> None:
        self.image, self.name = image, name
        self.size = image.height, image.width

    def lengths_ms(self) -> list[float]:
        """How long each frame is shown; these readers tell it when a frame is loaded, and no sooner."""
        starts, last = [], 0
        with pillow_faults(self.name):
            for number in range(_num_frames(self.image)):
                self.image.seek(number)
                self.image.load()
                starts.append(self.image.info["timestamp"])
                last = self.image.info["duration"]
        return np.diff([*starts, starts[-1] + last]).astype(float).tolist()

    def frames(self, wanted: Collection[int]) -> Iterator[np.ndarray]:
        for number in sorted(set(wanted)):
            with pillow_faults(self.name):
                self.image.seek(number)
                self.image.load()
                pixels = unpack(self.image)
            yield pixels


def read_picture(source: Source, sampling: Sampling, *, how: Fit, limits: Limits) -> Video:
    """An image as a video of one frame; an animated one (GIF, WebP, PNG, AVIF) is sampled by time.

    Of a photo with further pictures in it (a preview, a gain map, depth) only the one that is meant is read.

    Raises:
        MediaError: not an image, damaged, or over a limit (told from its header).
    """
    if source.format == "HEIF":
        with source.open() as file:
            return still(shown(read_heif(file, source.name, limits), 1, how, limits))
    if source.format == "GIF":
        film = read_gif(source.read(limits), source.name, limits)
        return _animation(film, [patch.length_ms for patch in film.patches], 1, sampling, how, limits)
    with open_pillow(source, limits) as image:
        with pillow_faults(source.name):
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if image.format == "PNG" and (_num_frames(image) > 1 or getattr(image, "default_image", False)):
            film = read_apng(source.read(limits), source.name, limits)
            lengths = [patch.length_ms for patch in film.patches]
            return _animation(film, lengths, orientation, sampling, how, limits)
        if image.format in ("WEBP", "AVIF") and _num_frames(image) > 1:
            limits.check_frames(_num_frames(image))
            opened = _PillowFilm(image, source.name)
            return _animation(opened, opened.lengths_ms(), orientation, sampling, how, limits)
        with pillow_faults(source.name):
            if image.format == "TIFF":
                _check_tiff(image, source.name)
            pixels = oriented(image)
        return still(shown(pixels, 1, how, limits))


def shown(pixels: UInt8[np.ndarray, "h w c"], orientation: int, how: Fit, limits: Limits) -> Picture:
    """Pixels turned, put on white and brought to a size."""
    picture = on_white(upright(pixels, orientation), drops_transparency=how.drops_transparency)
    return fit_picture(picture, how, limits)


def still(picture: Picture) -> Video:
    """A picture as a video that shows nothing else."""
    return Video(frames=picture[None], times_s=np.zeros(1), duration_s=0.0, fps=None, has_audio=False, indices=(0,))


@contextmanager
def open_pillow(source: Source, limits: Limits) -> Iterator[Image.Image]:
    """An image file whose header is read and whose size is within the limit.

    Raises:
        MediaError: not an image of its format.
    """
    if source.format == "AVIF" and not features.check("avif"):
        raise MediaError(f"{source.name}: AVIF, which this build of Pillow does not read; install a newer one")
    with warnings.catch_warnings(), source.open() as file:
        # Pillow warns from half of its own limit on; `limits` decides here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pillow_faults(source.name):
            image = Image.open(file, formats=(source.format,))
        with image:
            limits.check_pixels(*image.size)
            yield image


def is_photo(image: Image.Image) -> bool:
    """Whether further pictures in it are no frames: previews of a photo (MPO), pages, other sizes of an icon."""
    return image.format not in ("GIF", "PNG", "WEBP", "AVIF")


def _num_frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def _animation(
    film: Film | _PillowFilm, lengths_ms: list[float], orientation: int, sampling: Sampling, how: Fit, limits: Limits
) -> Video:
    limits.check_frames(len(lengths_ms))
    if len(lengths_ms) == 1:
        return still(shown(next(film.frames([0])), orientation, how, limits))
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
    height, width = how.size or upright_size(film.size, orientation)
    limits.check_video_bytes(len(indices), height, width, how.item_bytes)
    frames = np.empty((len(indices), height, width, 3), how.dtype)
    for number, pixels in zip(sorted(set(indices)), film.frames(indices), strict=True):
        frames[np.equal(indices, number)] = shown(pixels, orientation, how, limits)
    return Video(
        frames=frames, times_s=starts[list(indices)], duration_s=duration_s, fps=fps, has_audio=False, indices=indices
    )


def _check_tiff(image: Image.Image, name: str) -> None:
    """Raises MediaError for files whose first picture is not the one that is meant."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags or _SUB_IFDS in tags or tags.get(_NEW_SUBFILE, 0) & 1:
        raise MediaError(f"{name}: a raw photo, of which only a preview could be read; save it as JPEG or PNG")
    if _num_frames(image) > 1:
        raise MediaError(f"{name}: a TIFF of {_num_frames(image)} pictures; save the one that is meant, or a folder")
