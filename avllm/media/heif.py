"""The picture of a HEIC file (a phone's photo): tiles put together, turned as the file says, with its transparency."""

import io
import math
import struct
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext
from jaxtyping import UInt8
from PIL import Image

from avllm.errors import MediaError
from avllm.media.boxes import HeifItems, Item, Property
from avllm.media.cursor import Cursor
from avllm.media.limits import Limits, size_text

# Kind of item -> decoder, and the property that holds its configuration.
_CODECS = {
    "hvc1": ("hevc", "hvcC"),
    "av01": ("libdav1d", "av1C"),
    "avc1": ("h264", "avcC"),
    "jpeg": ("mjpeg", "jpgC"),
}
_KNOWN = frozenset({"hvcC", "av1C", "avcC", "jpgC", "irot", "imir", "clap", "ispe", "pixi", "colr", "auxC", "pasp"})
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_DEEPEST = 4  # recipes within recipes
_MOST_DECODED = 4096  # tiles and others; a photo of 200 megapixels has some hundred
_IDENTITY = 0  # matrix coefficients: the planes are green, blue and red themselves
_UNSPECIFIED, _LIMITED, _FULL = 2, 1, 2


def read_heif(file: io.BytesIO | io.BufferedReader, name: str, limits: Limits) -> UInt8[np.ndarray, "h w c"]:
    """The primary picture, upright: RGB, or RGB with straight alpha.

    Source: ISO/IEC 23008-12; what an Exif block in such a file says of its orientation does not count there.

    Raises:
        MediaError: damaged, over a limit, or made in a way that is not read, which is named.
    """
    return _Heif(HeifItems(file, name), name, limits).picture()


class _Heif:
    def __init__(self, items: HeifItems, name: str, limits: Limits) -> None:
        self.items, self.name, self.limits = items, name, limits
        self.num_decoded, self.num_pixels = 0, 0

    def picture(self) -> np.ndarray:
        primary = self.items.primary
        pixels = self._item(primary, "rgb24")
        alpha = next((item for item in self.items.items.values() if self._is_alpha_of(item, primary)), None)
        if alpha is None:
            return pixels
        values = self._item(alpha, "gray")
        if values.shape != pixels.shape[:2]:
            image = Image.fromarray(values).resize((pixels.shape[1], pixels.shape[0]))
            values = np.asarray(image)
        if alpha.id in primary.references.get("prem", ()):
            straight = pixels.astype(np.uint16) * 255 // np.maximum(values, 1)[..., None]
            pixels = np.minimum(straight, 255).astype(np.uint8)
        return np.concatenate([pixels, values[..., None]], axis=2)

    def _is_alpha_of(self, item: Item, primary: Item) -> bool:
        kind = (item.find("auxC") or b"")[4:].split(b"\0")[0]
        return primary.id in item.references.get("auxl", ()) and kind in _ALPHA

    def _item(self, item: Item, pixel_format: str, depth: int = 0) -> np.ndarray:
        """Pixels [h w 3] or [h w] of an item, its turns and cuts applied."""
        unknown = next((p.kind for p in item.properties if p.is_essential and p.kind not in _KNOWN), None)
        if unknown is not None or depth > _DEEPEST:
            raise self._unread(f"with the property {unknown!r}" if unknown else "nested in too many others")
        sides = item.find("ispe")
        if sides is not None:
            cursor = Cursor(sides[4:], self.name)
            self.limits.check_pixels(cursor.uint(4), cursor.uint(4))
        if item.kind == "grid":
            pixels = self._grid(item, pixel_format, depth)
        elif item.kind in ("iden", "tmap"):  # the same again; a tone map comes behind the picture that it is for
            pixels = self._item(self.items.item(self._inputs(item)[0]), pixel_format, depth + 1)
        elif item.kind in _CODECS:
            pixels = self._coded(item, pixel_format)
        else:
            raise self._unread(f"of the kind {item.kind!r}")
        for change in item.properties:
            pixels = self._changed(pixels, change)
        return pixels

    def _unread(self, what: str) -> MediaError:
        return MediaError(f"{self.name}: holds a picture {what}, which is not read; save it as JPEG or PNG")

    def _inputs(self, item: Item) -> list[int]:
        inputs = item.references.get("dimg", [])
        if not inputs:
            raise MediaError(f"{self.name}: a picture is made of others, and none is named; the file is damaged")
        return inputs

    def _grid(self, item: Item, pixel_format: str, depth: int) -> np.ndarray:
        recipe = Cursor(self.items.data(item, self.limits.memory_bytes), self.name)
        recipe.take(1)
        size = 4 if recipe.uint(1) & 1 else 2
        rows, columns = recipe.uint(1) + 1, recipe.uint(1) + 1
        width, height = recipe.uint(size), recipe.uint(size)
        self.limits.check_pixels(width, height)
        tiles = self._inputs(item)
        self._check_work(len(tiles))
        if len(tiles) != rows * columns:
            raise MediaError(f"{self.name}: {rows} x {columns} tiles are stated, {len(tiles)} are there; it is damaged")
        canvas, tile_size = None, (0, 0)
        for number, tile in enumerate(tiles):
            pixels = self._item(self.items.item(tile), pixel_format, depth + 1)
            if canvas is None:
                tile_size = tile_h, tile_w = pixels.shape[:2]
                # Checked before any further tile is decoded: they cover the picture, and none lies outside of it.
                if not (
                    tile_h * (rows - 1) < height <= tile_h * rows and tile_w * (columns - 1) < width <= tile_w * columns
                ):
                    raise MediaError(
                        f"{self.name}: {rows} x {columns} tiles of {size_text(tile_w, tile_h)} do not make the stated"
                        f" picture of {size_text(width, height)}; the file is damaged"
                    )
                canvas = np.empty((height, width, *pixels.shape[2:]), np.uint8)
            if pixels.shape[:2] != tile_size:
                raise MediaError(f"{self.name}: tiles of different sizes; the file is damaged")
            top, left = number // columns * tile_size[0], number % columns * tile_size[1]
            place = canvas[top : top + tile_size[0], left : left + tile_size[1]]
            place[:] = pixels[: place.shape[0], : place.shape[1]]
        assert canvas is not None
        return canvas

    def _coded(self, item: Item, pixel_format: str) -> np.ndarray:
        self._check_work(1)
        self.num_decoded += 1
        decoder, configuration = _CODECS[item.kind]
        data = self.items.data(item, self.limits.memory_bytes)
        head = item.find(configuration)
        if item.kind == "jpeg":
            data, head = (head or b"") + data, None
        if decoder not in av.codecs_available:
            raise self._unread(f"that needs the decoder {decoder}, which this build of PyAV lacks,")
        try:
            context = cast(VideoCodecContext, av.CodecContext.create(decoder, "r"))
            context.options = {"max_pixels": str(self.limits.pixels)}
            context.thread_count = 1
            if head is not None:
                context.extradata = head
            frames = [*context.decode(av.Packet(data)), *context.decode(None)]
        except av.FFmpegError as error:
            raise MediaError(f"{self.name}: damaged ({error.strerror}); make or download it again") from error
        if not frames:
            raise MediaError(f"{self.name}: a picture of it could not be decoded; it is damaged or truncated")
        frame = frames[0]
        assert isinstance(frame, VideoFrame)
        self.limits.check_pixels(frame.width, frame.height)
        self.num_pixels += frame.width * frame.height
        return _pixels(frame, _nclx(item), pixel_format)

    def _check_work(self, num_items: int) -> None:
        """Raises MediaError when more would be decoded than can be seen in the end."""
        # A picture and its transparency, each within the limit; what is cut off at the sides may be as much again.
        if self.num_decoded + num_items > _MOST_DECODED or self.num_pixels > 4 * self.limits.pixels:
            raise MediaError(f"{self.name}: puts a picture together from more than it shows; it is damaged or forged")

    def _changed(self, pixels: np.ndarray, change: Property) -> np.ndarray:
        if change.kind in ("irot", "imir") and not change.body:
            raise MediaError(f"{self.name}: does not say how its picture is turned; the file is damaged")
        if change.kind == "irot":
            return np.rot90(pixels, k=change.body[0] & 3)
        if change.kind == "imir":
            return pixels[:, ::-1] if change.body[0] & 1 else pixels[::-1]
        if change.kind == "clap":
            return pixels[self._clean(change.body, pixels.shape[:2])]
        return pixels

    def _clean(self, body: bytes, size: tuple[int, int]) -> tuple[slice, slice]:
        """The part of a picture that is shown: its size and the place of its centre, as fractions."""
        try:
            numbers = struct.unpack(">IIIIiIiI", body)
            width, height, right, down = (Fraction(numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6))
        except (struct.error, ZeroDivisionError) as error:
            raise MediaError(f"{self.name}: says how to cut its picture in a damaged way") from error
        slices = []
        for have, want, offset in ((size[0], height, down), (size[1], width, right)):
            first = math.floor(Fraction(have - 1, 2) + offset - Fraction(want - 1, 2))
            last = first + int(want)
            if not 0 <= first < last <= have:
                raise MediaError(f"{self.name}: the part to be shown lies outside of the picture; the file is damaged")
            slices.append(slice(first, last))
        return slices[0], slices[1]


def _nclx(item: Item) -> tuple[int, bool] | None:
    """Matrix coefficients, and whether all 256 values are used, where the item says so itself."""
    for change in item.properties:
        if change.kind == "colr" and change.body[:4] == b"nclx" and len(change.body) >= 11:
            return int.from_bytes(change.body[8:10], "big"), bool(change.body[10] & 0x80)
    return None


def _pixels(frame: VideoFrame, nclx: tuple[int, bool] | None, pixel_format: str) -> np.ndarray:
    if nclx is not None:
        matrix, is_full = nclx
        frame.color_range = _FULL if is_full else _LIMITED
        if matrix == _IDENTITY and frame.format.name == "yuv444p" and pixel_format == "rgb24":
            planes = frame.to_ndarray(format="yuv444p")
            return np.stack([planes[2], planes[0], planes[1]], axis=2)
        if matrix != _UNSPECIFIED:
            frame.colorspace = matrix
    return frame.reformat(format=pixel_format, dst_color_range=_FULL).to_ndarray()
