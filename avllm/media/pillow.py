"""Pillow's readers, one by one: what they raise is the file's fault, and Pillow's own limit decides nothing."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from PIL import ExifTags, Image, features
from PIL.ImageFile import ImageFile

from avllm.errors import MediaError, was_raised_in
from avllm.media.files import disk_faults
from avllm.media.tags import check_tags

# Format -> module and reader. Called in place of `Image.open`, which asks plugins that a user's code registered, and
# refuses what is over `Image.MAX_IMAGE_PIXELS`, a setting of the whole process; here `Limits` decides.
_READERS = {
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "JPEG": ("JpegImagePlugin", "jpeg_factory"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
}
_OPTIONAL = {"AVIF": "avif", "WEBP": "webp"}
_RAW_EXIF = "Raw profile type exif"


@contextmanager
def pillow_faults(name: str) -> Iterator[None]:
    """Around calls of Pillow: what it raises there itself means that the picture is damaged.

    Raises:
        MediaError: in place of that. What Pillow says is left out: it tells of addresses and of places on the disk.
    """
    try:
        with disk_faults(name):
            yield
    except MediaError:
        raise
    except Exception as error:
        if not was_raised_in(error, "PIL"):
            raise  # a fault of ours, or of a library that changed
        if isinstance(error, MemoryError):
            raise MediaError(f"{name}: needs more memory than there is; make the picture smaller") from error
        raise MediaError(
            f"{name}: not an image that can be read: damaged, truncated or of a kind that is not known; make or"
            f" download it again"
        ) from error


def open_with_pillow(file: io.BytesIO | io.BufferedReader, format: str, name: str) -> ImageFile:
    """An image of one format, its header read and its size not yet checked.

    Raises:
        MediaError: not an image of that format, or this build of Pillow does not read it.
    """
    if format in _OPTIONAL and not features.check(_OPTIONAL[format]):
        raise MediaError(f"{name}: {format}, which this build of Pillow does not read; install a newer one")
    module, reader = _READERS[format]
    read = getattr(import_module(f"PIL.{module}"), reader)
    file.seek(0)
    with pillow_faults(name):
        return read(file)


def make_room(image: ImageFile) -> None:
    """Takes the memory of a TIFF, so that Pillow does not, which would ask its own limit first."""
    size = getattr(image, "_tile_size", image.size)
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        image.im = Image.new(image.mode, size).im


def orientation_of(image: Image.Image) -> int:
    """The Exif tag Orientation, 1 where there is none; call it inside of `pillow_faults`.

    Raises:
        MediaError: the Exif data are made to fill the memory.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # they may come behind the pixels
    data = image.info.get("exif")
    if data is None and isinstance(raw := image.info.get(_RAW_EXIF), str):
        data = bytes.fromhex("".join(raw.split("\n")[3:]))
    if isinstance(data, bytes):
        check_tags(io.BytesIO(data), "the picture")
    turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    return turn if isinstance(turn, int) else 1
