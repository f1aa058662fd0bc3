"""GIF and APNG put together as browsers do it: frames that cover a part, and what becomes of them afterwards."""

import io
import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from avllm.errors import MediaError
from avllm.media.cursor import Cursor
from avllm.media.limits import Limits
from avllm.media.pillow import open_with_pillow, pillow_faults
from avllm.media.pixels import unpack

Dispose = Literal["keep", "clear", "restore"]
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_READ = frozenset({b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT"})
_MOST_COLOUR_BYTES = {b"PLTE": 768, b"tRNS": 256}


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One frame as it is stored.

    Args:
        corner: (x, y) in the picture.
        size: (w, h).
        length_ms: as the file states it.
        dispose: what is done to its part of the picture after it was shown.
        blends: over what is there already, or in place of it.
        data: a picture file of this frame alone.
        colours: RGBA by the pixels' indices, of a GIF.
    """

    corner: tuple[int, int]
    size: tuple[int, int]
    length_ms: float
    dispose: Dispose
    blends: bool
    data: bytes
    colours: UInt8[np.ndarray, "n 4"] | None = None

    def decode(self, name: str) -> Image.Image:
        """Its pixels, RGBA. Raises MediaError when it is damaged."""
        is_gif = self.colours is not None
        with pillow_faults(name), open_with_pillow(io.BytesIO(self.data), "GIF" if is_gif else "PNG", name) as image:
            pixels = np.asarray(image) if is_gif else unpack(image)
        return Image.fromarray(pixels if self.colours is None else self.colours[pixels]).convert("RGBA")


@dataclass(frozen=True, kw_only=True)
class Film:
    """An animation of patches.

    Args:
        name: for messages.
        size: (h, w).
        patches: in the order in which they are shown.
    """

    name: str
    size: tuple[int, int]
    patches: list[Patch]

    def num_pixels(self, wanted: Collection[int]) -> int:
        """How many are decoded, copied or put together for some frames."""
        shown = self.patches[: max(wanted) + 1]
        copies = len(set(wanted)) + sum(patch.dispose == "restore" for patch in shown)
        return sum(math.prod(patch.size) for patch in shown) + copies * math.prod(self.size)

    def frames(self, wanted: Collection[int]) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
        """The frames of some numbers, ascending."""
        canvas = Image.new("RGBA", (self.size[1], self.size[0]))
        last = max(wanted, default=-1)
        for number, patch in enumerate(self.patches[: last + 1]):
            before = canvas.copy() if patch.dispose == "restore" and number < last else canvas
            picture = patch.decode(self.name)
            if patch.blends:
                # Not Image.alpha_composite, which cuts a part out and asks Pillow's own limit for it.
                below = Image.new("RGBA", picture.size)
                below.paste(canvas, (-patch.corner[0], -patch.corner[1]))
                canvas.paste(Image.alpha_composite(below, picture), patch.corner)
            else:
                canvas.paste(picture, patch.corner)
            if number in wanted:
                yield np.array(canvas)
            if patch.dispose == "clear":
                canvas.paste((0, 0, 0, 0), (*patch.corner, *np.add(patch.corner, patch.size).tolist()))
            canvas = before


def read_gif(data: bytes, name: str, limits: Limits, *, first_only: bool = False) -> Film:
    """The frames of a GIF, not decoded, or the first alone, and then nothing behind it is looked at.

    Source: the specification GIF89a; where it leaves a choice (a background, frames beyond the screen) as browsers do.

    Raises:
        MediaError: damaged, or over a limit.
    """
    file = Cursor(data, name, order="little")
    file.take(6)
    size = file.uint(2), file.uint(2)
    limits.check_pixels(max(size[0], 1), max(size[1], 1))
    flags = file.uint(1)
    file.take(2)
    palette = file.take(3 << (flags & 7) + 1) if flags & 0x80 else b""
    control, patches = (0, 0, 0), []
    while file.left and not (first_only and patches) and (mark := file.uint(1)) != 0x3B:
        if mark == 0x21:
            label, blocks = file.uint(1), _gif_blocks(file)
            if label == 0xF9 and len(blocks) > 4:
                control = struct.unpack("<BHB", blocks[1:5])
        elif mark == 0x2C:
            patches.append(_gif_patch(file, palette, control))
            control = (0, 0, 0)
            limits.check_pixels(*patches[-1].size)
            limits.check_frames(1 if first_only else len(patches), "the animation")
        elif mark:
            raise MediaError(f"{name}: no frame where one is expected; the file is damaged")
    if not patches:
        raise MediaError(f"{name}: holds no picture; the file is empty or truncated")
    if any(have < want for have, want in zip(size, patches[0].size, strict=True)):
        size = tuple(np.maximum(size, np.add(patches[0].corner, patches[0].size)).tolist())
    limits.check_pixels(*size)
    return Film(name=name, size=(size[1], size[0]), patches=patches)


def _gif_patch(file: Cursor, palette: bytes, control: tuple[int, ...]) -> Patch:
    left, top, width, height = (file.uint(2) for _ in range(4))
    flags = file.uint(1)
    palette = file.take(3 << (flags & 7) + 1) if flags & 0x80 else palette
    colours = np.full((256, 4), 255, np.uint8)
    # Without any palette the indices are shades of grey, as in Pillow.
    table = np.frombuffer(palette, np.uint8).reshape(-1, 3) if palette else np.arange(256, dtype=np.uint8)[:, None]
    colours[:, :3] = 0
    colours[: len(table), :3] = table
    packed, length, transparent = control
    disposals: dict[int, Dispose] = {2: "clear", 3: "restore"}
    if packed & 1:
        colours[transparent] = 0
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, flags & 0x40)
    return Patch(
        corner=(left, top),
        size=(width, height),
        length_ms=10.0 * length,
        dispose=disposals.get(packed >> 2 & 7, "keep"),
        blends=True,
        data=head + frame + file.take(1) + _gif_blocks(file) + b"\0;",
        colours=colours,
    )


def _gif_blocks(file: Cursor) -> bytes:
    """Blocks of data with their lengths, up to the empty one."""
    start = file.at
    while length := file.uint(1):
        file.skip(length)
    return bytes(file.data[start : file.at - 1])


def read_apng(data: bytes, name: str, limits: Limits, *, first_only: bool = False) -> Film:
    """The frames of an animated PNG, not decoded, or the first alone, and then nothing behind it is looked at.

    A default picture that is no part of the animation is left out.

    Source: the PNG specification, third edition.

    Raises:
        MediaError: damaged, or over a limit.
    """
    file = Cursor(data, name)
    file.take(len(_PNG_HEAD))
    header, stated, patches = b"", 0, []
    shared: dict[bytes, bytes] = {}
    control, parts = b"", []
    while file.left and not (first_only and patches):
        length, kind = file.uint(4), file.take(4)
        body = file.take(length)
        if file.uint(4) != zlib.crc32(kind + body) and kind in _READ:
            raise MediaError(f"{name}: part {kind.decode('latin-1')} does not match its checksum; the file is damaged")
        if kind == b"IHDR" and not header:
            header = body
        elif kind in _MOST_COLOUR_BYTES:
            if length > _MOST_COLOUR_BYTES[kind]:
                raise MediaError(f"{name}: more colours than a palette has; the file is damaged")
            shared.setdefault(kind, _chunk(kind, body))
        elif kind == b"acTL":
            stated = int.from_bytes(body[:4], "big")
        elif (kind == b"IDAT" and control) or kind == b"fdAT":
            parts.append(body if kind == b"IDAT" else body[4:])
        if kind in (b"fcTL", b"IEND"):
            if parts:
                patches.append(_png_patch(header, b"".join(shared.values()), control, b"".join(parts), name))
                limits.check_pixels(*patches[-1].size)
                limits.check_frames(1 if first_only else len(patches), "the animation")
            control, parts = body, []
        if kind == b"IEND":
            break
    if not patches or (len(patches) < stated and not first_only):
        raise MediaError(f"{name}: truncated: {len(patches)} of {stated} frames are there; make or download it again")
    width, height = struct.unpack(">II", header[:8])
    limits.check_pixels(width, height)
    return Film(name=name, size=(height, width), patches=patches)


def _png_patch(header: bytes, shared: bytes, control: bytes, pixels: bytes, name: str) -> Patch:
    try:
        width, height, left, top, num, den, dispose, blend = struct.unpack(">4xIIIIHHBB", control)
        full = struct.unpack(">II", header[:8])
    except struct.error as error:
        raise MediaError(f"{name}: a frame says nothing of its place; the file is damaged") from error
    if left + width > full[0] or top + height > full[1]:
        raise MediaError(f"{name}: a frame lies outside of the picture; the file is damaged")
    size = struct.pack(">II", width, height)
    kinds: dict[int, Dispose] = {1: "clear", 2: "restore"}
    return Patch(
        corner=(left, top),
        size=(width, height),
        length_ms=1000.0 * num / (den or 100),
        dispose=kinds.get(dispose, "keep"),
        blends=bool(blend),
        data=_PNG_HEAD + _chunk(b"IHDR", size + header[8:]) + shared + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b""),
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
