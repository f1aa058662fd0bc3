"""Pictures of any size to the one that an encoder takes, in the ways of the published systems. Arithmetic on arrays."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from avllm.config import check_choice
from avllm.errors import MediaError
from avllm.media.limits import Limits

Resize: TypeAlias = Literal["squash", "crop", "pad"]
Resample: TypeAlias = Literal["decoder", "bicubic", "float_bicubic", "float_bilinear"]
CropOffset: TypeAlias = Literal["floor", "round"]
Kernel: TypeAlias = Literal["bicubic", "bilinear"]
Picture: TypeAlias = UInt8[np.ndarray, "h2 w2 3"] | Float32[np.ndarray, "h2 w2 3"]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a picture is brought to a size.

    `decoder` is the fastest: bilinear while the decoder converts colours, and Pillow's bicubic for images. The others
    are those of published systems and see the whole picture as RGB: `bicubic` is Pillow's, with antialiasing;
    `float_bicubic` and `float_bilinear` are those of a torch tensor, without antialiasing, neither rounded nor clamped.

    Args:
        size: (h, w) of the result; None keeps that of the picture.
        resize: `squash` changes the aspect ratio, `crop` cuts the longer side, `pad` adds bars.
        resample: see above.
        crop_offset: where a crop begins when an odd number of pixels is cut: `floor` as transformers does, `round` to
            the even pixel as torchvision does.
        pad_color: RGB of the bars. `decoder` adds them after resizing, the others before.
        drops_transparency: shows the colours that are stored beneath transparent parts of an image (black as a rule) in
            place of white; a quirk of published code, see `avllm.model.quirks`.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "squash"
    resample: Resample = "decoder"
    crop_offset: CropOffset = "floor"
    pad_color: tuple[int, int, int] = (0, 0, 0)
    drops_transparency: bool = False

    def __post_init__(self) -> None:
        check_choice("resize", self.resize, get_args(Resize))
        check_choice("resample", self.resample, get_args(Resample))
        check_choice("crop_offset", self.crop_offset, get_args(CropOffset))
        if self.size is not None and not _are_whole(self.size, 2, 1):
            raise MediaError(f"size: expected (height, width) of at least 1, got {self.size!r:.60}")
        if not _are_whole(self.pad_color, 3, 0, 255):
            raise MediaError(f"pad_color: expected (red, green, blue) in [0, 255], got {self.pad_color!r:.60}")

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the values, which lie around [0, 255] either way."""
        return np.float32 if self.resample.startswith("float") else np.uint8

    @property
    def item_bytes(self) -> int:
        """Bytes of one of them."""
        return np.dtype(self.dtype).itemsize


def _are_whole(values: object, count: int, lowest: int, highest: float = math.inf) -> bool:
    if not isinstance(values, tuple | list) or len(values) != count:
        return False
    return all(isinstance(value, int | np.integer) and lowest <= value <= highest for value in values)


def fit_picture(picture: UInt8[np.ndarray, "h w 3"], how: Fit, limits: Limits) -> Picture:
    """One picture as `how` wants it.

    Source: the image processors of VideoLLaMA 2 and Video-LLaVA, and the demo of VideoChat.

    Raises:
        MediaError: the picture is so long and narrow that it would pass `limits.pixels` on the way.
    """
    if how.size is None or picture.shape[:2] == how.size:
        return picture.astype(how.dtype, copy=False)
    if how.resample == "decoder":
        inner = inner_size(picture.shape[:2], how.size, how.resize)
        limits.check_pixels(inner[1], inner[0])
        return place(_pillow(picture, inner), how.size, how.pad_color)
    if how.resize == "pad":
        picture = _padded(picture, how.size, how.pad_color, limits)
    inner = _covering(picture.shape[:2], how) if how.resize == "crop" else how.size
    corner = [_offset(have - want, how.crop_offset) for have, want in zip(inner, how.size, strict=True)]
    if how.resample == "bicubic":
        limits.check_pixels(inner[1], inner[0])
        top, left = corner
        return _pillow(picture, inner)[top : top + how.size[0], left : left + how.size[1]]
    limits.check_pixels(picture.shape[1], how.size[0])  # between one axis and the other
    kernel: Kernel = "bicubic" if how.resample == "float_bicubic" else "bilinear"
    values: np.ndarray = picture
    for axis in (0, 1):
        values = interpolate(values, axis, inner[axis], kernel, first=corner[axis], count=how.size[axis])
    return values


def inner_size(size: tuple[int, ...], to: tuple[int, int], mode: Resize) -> tuple[int, int]:
    """(h, w) to scale to before `place` crops or pads it to `to`."""
    if mode == "squash":
        return to
    choose = max if mode == "crop" else min
    scale = choose(to[0] / size[0], to[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def place(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], color: tuple[int, int, int] = (0, 0, 0)
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Cuts or fills with a colour, around the centre."""
    if picture.shape[:2] == size:
        return picture
    result = np.full((*size, 3), color, np.uint8)
    taken, given = [], []
    for have, want in zip(picture.shape[:2], size, strict=True):
        length = min(have, want)
        taken.append(slice((have - length) // 2, (have - length) // 2 + length))
        given.append(slice((want - length) // 2, (want - length) // 2 + length))
    result[tuple(given)] = picture[tuple(taken)]
    return result


def interpolate(
    values: Shaped[np.ndarray, "..."], axis: int, to: int, kernel: Kernel, *, first: int = 0, count: int | None = None
) -> Float32[np.ndarray, "..."]:
    """Resamples one axis as torch's `interpolate` without antialiasing: corners not aligned, the border repeated.

    Args:
        values: of any shape.
        axis: which one.
        to: its new length.
        kernel: bicubic has a = -0.75.
        first: position among the `to` new ones where the result begins.
        count: positions that the result has; all if None.
    """
    length, count = values.shape[axis], to - first if count is None else count
    # As torch rounds, step by step: in rows of 2000 pixels exact positions would differ by 1e-4 of a pixel.
    scale = np.float32(length) / np.float32(to)
    centres = _fused(scale, np.arange(first, first + count) + 0.5, -0.5)
    start = np.floor(centres)
    past = centres - start
    weights = _cubic(past) if kernel == "bicubic" else (1 - past, past)
    before = 1 if kernel == "bicubic" else 0
    shape = [1] * values.ndim
    shape[axis] = count
    result = np.zeros((), np.float32)
    for tap, weight in enumerate(weights):
        index = np.clip(start.astype(int) + tap - before, 0, length - 1)
        result = result + values.take(index, axis) * weight.reshape(shape)
    return result


def _cubic(past: np.ndarray, a: float = -0.75) -> tuple[np.ndarray, ...]:
    def near(x: np.ndarray) -> np.ndarray:
        return _fused(_fused(a + 2, x, -a - 3) * x, x, 1)

    def far(x: np.ndarray) -> np.ndarray:
        return _fused(_fused(_fused(a, x, -5 * a), x, 8 * a), x, -4 * a)

    return far(past + 1), near(past), near(1 - past), far(2 - past)


def _fused(factor: np.ndarray | np.float32 | float, x: np.ndarray, term: float) -> np.ndarray:
    """factor * x + term in float32, rounded once."""
    return (np.float64(factor) * x + term).astype(np.float32)


def _pillow(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _padded(picture: np.ndarray, to: tuple[int, int], color: tuple[int, int, int], limits: Limits) -> np.ndarray:
    """The picture in the middle of the smallest one that has the aspect ratio of `to`."""
    height, width = picture.shape[:2]
    canvas = max(height, round(width * to[0] / to[1])), max(width, round(height * to[1] / to[0]))
    limits.check_pixels(canvas[1], canvas[0])
    return place(picture, canvas, color)


def _covering(size: tuple[int, ...], how: Fit) -> tuple[int, int]:
    """(h, w) of the picture that just covers the wanted size; a fraction of the longer side is cut off."""
    height, width = size
    to_h, to_w = how.size or (height, width)

    def longer(to: int, long: int, short: int) -> int:
        # Video-LLaVA's video transform multiplies last, which loses a pixel for some sizes.
        return math.floor(long / short * to) if how.resample == "float_bilinear" else int(to * long / short)

    if to_h * width >= to_w * height:
        return to_h, max(to_w, longer(to_h, width, height))
    return max(to_h, longer(to_w, height, width)), to_w


def _offset(cut: int, rounding: CropOffset) -> int:
    return cut // 2 if rounding == "floor" else round(cut / 2)
