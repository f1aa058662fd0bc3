"""Pictures that state far more than they are: refused by what their headers say, before the memory is taken."""

import io
import json
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_image, open_video, probe
from tests.media.make_heif import box, full, grid_item, heif, picture_item

GROWTH_MB = 50
_CODE = """
import json, resource, sys
from pathlib import Path
from avllm.errors import MediaError
from avllm.media import Sampling, content_key, open_image, open_video, probe

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

def every(source):
    return open_video(source, Sampling(kind="all"), size=(8, 8))

open_image((Path(sys.argv[1]) / "good.avif"))
told = {}
for path in sorted(Path(sys.argv[1]).glob("bomb*")):
    for source in (path, path.read_bytes()) if path.stat().st_size < 1 << 20 else (path,):
        before = peak()
        said = []
        for door in (open_image, every, probe):
            try:
                said.append(f"read {door(source).__class__.__name__}")
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        told[f"{path.name} as {type(source).__name__}"] = (said, peak() - before)
json.dump(told, sys.stdout)
"""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"\0" * 64) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND", b"")


def apng(num_frames: int, width: int = 1, height: int = 1) -> bytes:
    """Frames of a pixel each, on a canvas of any size."""
    pixel = zlib.compress(b"\0\0")
    parts = [chunk(b"acTL", struct.pack(">II", num_frames, 0))]
    for number in range(1, num_frames + 1):
        place = struct.pack(">IIIIIHHBB", 2 * number, 1, 1, 0, 0, 1, 50, 0, 0)
        parts += [chunk(b"fcTL", place), chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + pixel)]
    whole = png(width, height)
    return whole[:-12].replace(chunk(b"IDAT", zlib.compress(b"\0" * 64)), b"") + b"".join(
        [parts[0], chunk(b"IDAT", pixel), *parts[1:], chunk(b"IEND", b"")]
    )


def gif(width: int, height: int, num_frames: int = 1, size: tuple[int, int] = (1, 1), dispose: int = 0) -> bytes:
    control = b"!\xf9\x04" + bytes([dispose << 2]) + struct.pack("<H", 5) + b"\0\0"
    frame = control + b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * num_frames + b";"


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1) for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def moving_webp(num_frames: int, width: int, height: int) -> bytes:
    head = bytes([2, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "WEBP", lossless=True)
    frame = bytes(12) + (50).to_bytes(3, "little") + b"\0" + file.getvalue()[12:]
    return webp((b"VP8X", head), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * num_frames)


def tags(count: int, length: int) -> bytes:
    """A table whose values lie over one another: megabytes that state gigabytes."""
    at = 8 + 2 + 12 * count + 4
    entries = b"".join(struct.pack("<HHII", 1000 + number, 7, length, at) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + bytes(length)


def tiff(width: int, height: int, *more: tuple[int, int, int]) -> bytes:
    values = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 5),
        (262, 3, 1),
        (273, 4, 8),
        (279, 4, 64),
        *more,
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in values)
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + bytes(64)


def jpeg(*segments: tuple[int, bytes], size: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = file.getvalue()
    if size:
        at = data.index(b"\xff\xc0") + 5
        data = data[:at] + struct.pack(">HH", *size) + data[at + 4 :]
    parts = b"".join(b"\xff" + bytes([mark]) + struct.pack(">H", len(body) + 2) + body for mark, body in segments)
    return data[:2] + parts + data[2:]


def avif(exif: bytes = b"", **options) -> bytes:
    """Forged after it was written, as Pillow's writer would take the memory as well."""
    file, image = io.BytesIO(), Image.new("RGB", (16, 16))
    harmless = b"II*\0" + struct.pack("<IH", 8, 0) + bytes(max(0, len(exif) - 10))
    image.save(file, "AVIF", exif=harmless if exif else b"", **options)
    return file.getvalue().replace(harmless, exif) if exif else file.getvalue()


def many_frames_avif() -> bytes:
    image = Image.new("RGB", (16, 16))
    data = avif(save_all=True, append_images=[image.rotate(90)], duration=50)
    at = data.index(b"stsz") + 12
    assert data[at : at + 4] == struct.pack(">I", 2)
    return data[:at] + struct.pack(">I", 2_000_000) + data[at + 4 :]


def many_items_heif(num_items: int) -> bytes:
    entry = box(b"infe", bytes([2, 0, 0, 0]) + struct.pack(">HH", 1, 0) + b"hvc1\0")
    infos = full(b"iinf", 1, 0, struct.pack(">I", num_items), entry * num_items)
    return box(b"ftyp", b"heic\0\0\0\0heicmif1") + full(b"meta", 0, 0, infos)


def forged_heif(width: int, height: int) -> bytes:
    data = heif([picture_item(np.full((64, 64, 3), 90, np.uint8))], 1)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def same_tile_heif(rows: int) -> bytes:
    """A picture of tiles of tiles, each of which is the same one: more to decode than it shows."""
    tile = picture_item(np.full((64, 64, 3), 90, np.uint8), hidden=True)
    return heif([tile, grid_item(rows, rows, (64 * rows, 64 * rows), [1] * rows * rows)], 2)


def exif_jpeg() -> bytes:
    blob = tags(3000, 1 << 20)
    pieces = [blob[at : at + 65000] for at in range(0, len(blob), 65000)]
    return jpeg(*[(0xE1, b"Exif\0\0" + piece) for piece in pieces])


def bombs() -> dict[str, bytes]:
    bmp = io.BytesIO()
    Image.new("RGB", (4, 4)).save(bmp, "BMP")
    forged_bmp = bmp.getvalue()[:18] + struct.pack("<ii", 60_000, 60_000) + bmp.getvalue()[26:]
    vp8x = bytes(4) + (16_382).to_bytes(3, "little") * 2
    return {
        "40000 squared.png": png(40_000, 40_000),
        "2 to the 31.png": png(1, 2**31 - 1),
        "texts.png": png(4, 4, *[chunk(b"tEXt", b"a\0b")] * 20_000),
        "exif.png": png(4, 4, chunk(b"eXIf", tags(3000, 1 << 20)), rows=b"\0" * 20),
        "frames.apng": apng(100_000),
        "65535 squared.gif": gif(65_535, 65_535),
        "frame of 65535 squared.gif": gif(4, 4, size=(65_535, 65_535)),
        "frames.gif": gif(4, 4, 200_000),
        "restored frames.gif": gif(1000, 1000, 4000, dispose=3),
        "comments.gif": gif(4, 4)[:-1] + b"!\xfe" + b"\1a" * 500_000 + b"\0;",
        "canvas.webp": webp((b"VP8X", vp8x), (b"VP8L", b"\x2f" + bytes(20))),
        "lossless.webp": webp((b"VP8L", b"\x2f" + (0xFFFFFFF).to_bytes(4, "little") + bytes(20))),
        "lossy.webp": webp((b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(20))),
        "frames.webp": moving_webp(100_000, 4, 4),
        "frames on a canvas.webp": moving_webp(4000, 1100, 1100),
        "exif.webp": webp(
            (b"VP8X", bytes([8, 0, 0, 0]) + bytes(6)), (b"VP8L", b"\x2f" + bytes(20)), (b"EXIF", tags(3000, 1 << 20))
        ),
        "frames.avif": many_frames_avif(),
        "exif.avif": avif(tags(3000, 1 << 20)),
        "60000 squared.tiff": tiff(60_000, 60_000),
        "tiles of 40000 squared.tiff": tiff(64, 64, (322, 4, 40_000), (323, 4, 40_000), (324, 4, 8), (325, 4, 64)),
        "tags.tiff": tags(3000, 1 << 20),
        "60000 squared.bmp": forged_bmp,
        "65535 squared.jpeg": jpeg(size=(65_535, 65_535)),
        "comments.jpeg": jpeg(*[(0xFE, b"")] * 200_000),
        "exif.jpeg": exif_jpeg(),
        "65535 squared.heic": forged_heif(65_535, 65_535),
        "items.heic": many_items_heif(100_000),
        "tiles.heic": same_tile_heif(100),
        "boxes.heic": box(b"ftyp", b"heic\0\0\0\0heicmif1") + box(b"free", b"") * 1_000_000,
    }


def test_s07_picture_bombs_are_refused_before_memory(tmp_path: Path):
    (tmp_path / "good.avif").write_bytes(avif())
    names = [f"bomb {name}" for name in bombs()]
    for name, data in bombs().items():
        (tmp_path / f"bomb {name}").write_bytes(data)
    run = subprocess.run([sys.executable, "-c", _CODE, tmp_path], capture_output=True, text=True, check=True)
    told = json.loads(run.stdout)

    assert {name.rsplit(" as ", 1)[0] for name in told} == set(names)
    # The first frame alone is a harmless picture.
    are_read = {"frames.apng", "frames.gif", "restored frames.gif", "comments.gif", "frames on a canvas.webp"}
    for name, ((first, every, probed), growth_mb) in told.items():
        bomb = name.removeprefix("bomb ").rsplit(" as ", 1)[0]
        assert growth_mb < GROWTH_MB, (name, growth_mb)
        assert every.startswith("MediaError: ") or bomb == "comments.gif", (name, every)
        for said in (first, probed):
            assert said.startswith("MediaError: ") or bomb in are_read, (name, said)


_BY_NAME = ("ICO", "PDF", "TGA", "PCX", "SGI", "DDS", "ICNS", "EPS", "IM", "MSP", "XBM", "QOI")


@pytest.mark.parametrize(
    ("kind", "name"),
    [*[(kind, kind) for kind in _BY_NAME], ("PPM", "PNM"), ("JPEG2000", "JPEG 2000"), ("PSD", "Photoshop")],
)
def test_s07_formats_that_are_not_allowed_are_refused_by_name(kind, name):
    file = io.BytesIO()
    if kind == "PSD":
        file.write(b"8BPS" + bytes(90))
    else:
        Image.new("1" if kind in ("MSP", "XBM") else "RGB", (64, 64)).save(file, kind)
    for door in (open_image, open_video, probe):
        with pytest.raises(MediaError, match=f"of the format {name}, which is not read; save the picture as PNG"):
            door(file)


SIZES = [("PNG", {}), ("JPEG", {}), ("GIF", {}), ("WEBP", {}), ("AVIF", {}), ("BMP", {}), ("TIFF", {})]


@pytest.mark.parametrize(("kind", "options"), [*SIZES, ("TIFF", {"compression": "tiff_lzw"})])
def test_s07_the_limit_of_pixels_is_the_only_one(kind, options, monkeypatch):
    """Just under it passes and just over it is refused, whatever Pillow's own limit, which is one of the process."""
    file, filters = io.BytesIO(), list(warnings.filters)
    Image.new("RGB", (60, 40), "red").save(file, kind, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)

    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        read = [pool.submit(open_image, file.getvalue(), limits=Limits(pixels=2400)) for _ in range(8)]
        assert {future.result().frames.shape for future in read} == {(1, 40, 60, 3)}
        assert Image.MAX_IMAGE_PIXELS == 10
        with pytest.raises(MediaError, match=r"60x40 has 2400 pixels, the limit is 2399 .*Limits\.pixels"):
            open_image(file, limits=Limits(pixels=2399))
        with pytest.raises(Image.DecompressionBombError):
            Image.open(file)
    assert warnings.filters == filters


def test_s07_parts_of_a_header_are_counted():
    scans = jpeg() + b"\xff\xda" * 200
    for under, over in (
        (scans, scans + b"\xff\xda"),
        (jpeg(*[(0xFE, b"")] * 9000), jpeg(*[(0xFE, b"")] * 10_001)),
        (png(4, 4, *[chunk(b"prIv", b"")] * 9000, rows=bytes(20)), png(4, 4, *[chunk(b"prIv", b"")] * 10_001)),
        (jpeg((0xE1, b"Exif\0\0" + tags(3, 20_000))), jpeg((0xE1, b"Exif\0\0" + tags(70, 20_000)))),
        (
            png(4, 4, chunk(b"eXIf", tags(3, 20_000)), rows=bytes(20)),
            png(4, 4, chunk(b"eXIf", tags(70, 20_000)), rows=bytes(20)),
        ),
    ):
        assert open_image(under).frames.shape[0] == 1
        for door in (open_image, open_video, probe):
            with pytest.raises(MediaError, match=r"than any writer puts there|than the file holds"):
                door(over)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_s07_animations_are_put_together_within_a_budget(kind, monkeypatch):
    file, images = io.BytesIO(), [Image.new("RGB", (60, 40), color) for color in ("red", "lime", "blue", "white")]
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    once = 60 * 40
    whole = 4 * once if kind in ("WEBP", "AVIF") else 8 * once  # decoded, and shown

    seen = open_video(file, Sampling(kind="all"), limits=Limits(animation_pixels=whole))
    assert [frame[5, 5].argmax() for frame in seen.frames[:3]] == [0, 1, 2]
    with pytest.raises(MediaError, match=rf"has {whole} pixels, the limit is {whole - 1} .*Limits\.animation_pixels"):
        open_video(file, Sampling(kind="all"), limits=Limits(animation_pixels=whole - 1))
    # Of what nobody looks at nothing is put together.
    assert len(open_video(file, Sampling(num_frames=1), limits=Limits(animation_pixels=2 * once))) == 1
    assert open_image(file, limits=Limits(animation_pixels=2 * once)).frames[0, 5, 5].argmax() == 0
    with pytest.raises(MediaError, match=r"Limits\.frames"):
        open_video(file, limits=Limits(frames=3))


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_s07_an_image_is_the_first_frame_alone(kind):
    file, images = io.BytesIO(), [Image.new("RGB", (60, 40), color) for color in ("red", "lime", "blue")]
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=100)
    data = file.getvalue()
    second = data.rfind(b"fcTL") if kind == "PNG" else data.rfind(b"!\xf9\x04")
    broken = data[:second] + b"nothing that could be read" * 9

    assert open_image(broken, limits=Limits(frames=1)).frames[0, 5, 5].tolist() == [255, 0, 0]
    with pytest.raises(MediaError):
        open_video(broken)


def test_s07_a_header_does_not_decode_frames(monkeypatch):
    from PIL import WebPImagePlugin

    loaded: list[int] = []
    load = WebPImagePlugin.WebPImageFile.load
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", lambda self: loaded.append(self.tell()) or load(self))
    data = moving_webp(50, 4, 4)

    assert probe(data).streams[0].frames == 50
    assert len(open_image(data)) == 1
    assert set(loaded) == {0}


def test_s07_one_picture_is_counted_as_a_video_is():
    for kind in ("PNG", "GIF", "JPEG"):
        file = io.BytesIO()
        Image.new("RGB", (60, 40)).save(file, kind)
        for source in (file, Image.new("RGB", (60, 40)), [file]):
            open_video(source, limits=Limits(video_bytes=60 * 40 * 3))
            with pytest.raises(MediaError, match=r"Limits\.video_bytes"):
                open_video(source, limits=Limits(video_bytes=60 * 40 * 3 - 1))
