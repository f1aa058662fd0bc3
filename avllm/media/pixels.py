"""Pictures of any depth, layout and mode to RGB in 8 bits: arrays, tensors and Pillow images."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Shaped, UInt8
from PIL import Image

from avllm.errors import MediaError
from avllm.media.pillow import orientation_of

WHITE = 255
_BAND = 256  # rows
_CHANNELS = (1, 3, 4)
_ARRAYS = "[t h w c] or [t c h w] of a video, [h w c], [c h w] or [h w] of a picture, where c is 3 (RGB), 4 or 1"
# What is done to a picture that was stored turned, by the value of its Exif tag Orientation.
_TURNS = {
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, k=-1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: lambda picture: np.rot90(picture),
}


def as_frames(array: np.ndarray, name: str) -> tuple[Shaped[np.ndarray, "t h w c"], bool]:
    """A view of the frames, channels last, and whether it is one picture.

    Of an array that could be either, with 3 both before and behind, the last axis is that of the channels.

    Raises:
        MediaError: it has another shape.
    """
    if array.ndim == 2:
        return array[None, :, :, None], True
    if array.ndim in (3, 4):
        before, last = array.shape[-3], array.shape[-1]
        frames = array
        if last != 3 and (before == 3 or (last not in _CHANNELS and before in _CHANNELS)):
            frames = rearrange(array, "... c h w -> ... h w c")
        if frames.shape[-1] in _CHANNELS:
            return (frames, False) if array.ndim == 4 else (frames[None], True)
    raise MediaError(f"{name}: frames are {array.dtype} {array.shape}; expected {_ARRAYS}")


def eight_bits(values: Shaped[np.ndarray, "h w c"], name: str) -> UInt8[np.ndarray, "h w c"]:
    """Values of one picture as 8 bits: the high byte of uint16; floats are in [0, 1]; other integers in [0, 255].

    Raises:
        MediaError: values that are none of these.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    lowest, highest = (values.min(), values.max()) if values.size and values.dtype.kind in "iuf" else (0, -1)
    if values.dtype.kind in "iu" and lowest >= 0 and highest <= 255:
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and lowest >= 0 and highest <= 1:
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    is_nan = values.dtype.kind == "f" and highest != highest
    seen = " with NaN" if is_nan else f" from {lowest:g} to {highest:g}" if highest >= lowest else ""
    raise MediaError(
        f"{name}: a frame is {values.dtype}{seen}; expected uint8, uint16, integers in [0, 255] or floats in [0, 1]"
    )


def unpack(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a Pillow image: RGB, or RGB with alpha where it has any. Grey of 16 bits by its high byte.

    Modes `I` and `F` say nothing of their range: up to 255 (of `F`: 1) is taken for white, up to 65535 for 16 bits.

    Raises:
        MediaError: values beyond that, or a mode that cannot be shown.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        grey = _grey(values, image.mode)
        key = image.info.get("transparency")
        rgb = repeat(grey, "h w -> h w c", c=3)
        if not isinstance(key, int):
            return rgb
        return np.concatenate([rgb, np.where(values == key, 0, 255).astype(np.uint8)[..., None]], axis=2)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def oriented(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a Pillow image, turned as its Exif data say; of several frames the one at which it stands."""
    image.load()  # Pillow turns a TIFF itself while it loads it, and its tag is gone then
    return upright(unpack(image), orientation_of(image))


def _grey(values: Shaped[np.ndarray, "h w"], mode: str) -> UInt8[np.ndarray, "h w"]:
    lowest, highest = values.min(), values.max()
    if not 0 <= lowest <= highest <= 65535:
        raise MediaError(f"a picture of mode {mode} with values from {lowest:g} to {highest:g}; expected 0 to 65535")
    if mode.startswith("I;16") or highest > 255:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    return np.rint(values * (255 if mode == "F" and highest <= 1 else 1)).astype(np.uint8)


def on_white(picture: UInt8[np.ndarray, "h w c"], *, drops_transparency: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a picture with 1, 3 or 4 channels: what is transparent is white, as in viewers.

    Args:
        picture: its alpha is straight.
        drops_transparency: shows the colours that are stored beneath transparency, black as a rule.
    """
    if picture.shape[2] == 1:
        return repeat(picture, "h w 1 -> h w c", c=3)
    rgb = picture[:, :, :3]
    if picture.shape[2] == 3 or drops_transparency:
        return rgb
    shown = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(picture), _BAND):  # whole, a large picture would take its size several times over
        band = picture[top : top + _BAND]
        alpha = band[:, :, 3:].astype(np.uint16)
        shown[top : top + _BAND] = (band[:, :, :3] * alpha + WHITE * (255 - alpha) + 127) // 255
    return shown


def upright(picture: UInt8[np.ndarray, "h w c"], orientation: int) -> UInt8[np.ndarray, "h2 w2 c"]:
    """A picture as the Exif tag Orientation wants it shown; values that mean nothing change nothing."""
    return _TURNS[orientation](picture) if orientation in _TURNS else picture


def upright_size(size: Sequence[int], orientation: int) -> tuple[int, int]:
    """(h, w) of a picture after `upright`."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else (size[0], size[1])
