"""Image files of every usual depth, mode and turn, as viewers show them."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_image, open_video, probe

CORNERS = np.zeros((16, 24, 3), np.uint8)
CORNERS[:8, :12], CORNERS[:8, 12:], CORNERS[8:, :12], CORNERS[8:, 12:] = (220, 0, 0), (0, 220, 0), (0, 0, 220), 255
# What Orientation asks for, by the standard: where row 0 and column 0 of the stored picture are to be seen.
TURNED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: np.rot90(CORNERS, k=2),
    4: CORNERS[::-1],
    5: np.rot90(CORNERS[:, ::-1]),
    6: np.rot90(CORNERS, k=-1),
    7: np.rot90(CORNERS[:, ::-1], k=-1),
    8: np.rot90(CORNERS),
}


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def shown(source, **options) -> np.ndarray:
    return open_image(source, **options).frames[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(kind, orientation):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(kind, {})
    options = {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else options
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(CORNERS), kind, exif=exif, **options)
    truth = TURNED[orientation]

    assert shown(data).shape == truth.shape
    assert np.abs(shown(data).astype(int) - truth).max() <= 12
    assert np.array_equal(shown(Image.open(io.BytesIO(data))), shown(data))
    assert (probe(data).streams[0].height, probe(data).streams[0].width) == truth.shape[:2]


@pytest.mark.parametrize("further", [1, 2])
def test_a_photo_with_further_pictures_is_one(further):
    others = [Image.new("RGB", (8, 6), "lime")] * further
    data = saved(Image.new("RGB", (24, 16), "red"), "MPO", save_all=True, append_images=others)

    for video in (open_image(data), open_video(data), open_video(data, Sampling(num_frames=8), size=(16, 24))):
        assert video.frames.shape == (1, 16, 24, 3)
        assert video.frames[0, 8, 8].argmax() == 0
        assert (video.duration_s, video.fps) == (0.0, None)
    assert probe(data).streams[0].kind == "image"
    assert len(open_video(Image.open(io.BytesIO(data)))) == 1


def grey16(mode: str = "I;16") -> Image.Image:
    ramp = np.linspace(0, 65535, 256).round().astype(">u2" if mode == "I;16B" else "<u2")[None].repeat(4, axis=0)
    return Image.frombytes(mode, (256, 4), ramp.tobytes())


@pytest.mark.parametrize(
    "source",
    [saved(grey16(), "PNG"), saved(grey16(), "TIFF"), saved(grey16("I;16B"), "TIFF"), grey16(), grey16().convert("I")],
    ids=["PNG", "TIFF", "TIFF, high byte first", "I;16", "I"],
)
def test_grey_of_16_bits_by_its_high_byte(source):
    assert shown(source)[0, :, 0].tolist() == [round(i * 257) >> 8 for i in range(256)]


def test_modes_without_a_range_of_their_own():
    for mode in ("I", "F"):
        assert shown(Image.new("L", (4, 4), 200).convert(mode)).tolist() == [[[200] * 3] * 4] * 4
    unit = Image.fromarray(np.linspace(0, 1, 8, dtype=np.float32)[None].repeat(2, axis=0))
    assert shown(saved(unit, "TIFF"))[0, :, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]
    with pytest.raises(MediaError, match="mode F with values from -3 to 0"):
        shown(Image.fromarray(np.linspace(-3, 0, 8, dtype=np.float32)[None]))


def png16(color_type: int, pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    import zlib

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 16, color_type, 0, 0, 0)),)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def test_colours_of_16_bits_by_their_high_byte():
    values = np.array([[[0x12FF, 0x8001, 0xFFFF]]])
    assert shown(png16(2, values)).tolist() == [[[0x12, 0x80, 0xFF]]]
    opaque, nothing = np.array([[[0x12FF, 0x8001, 0xFFFF, 0xFFFF]]]), np.array([[[0x12FF, 0x8001, 0xFFFF, 0]]])
    assert shown(png16(6, opaque)).tolist() == [[[0x12, 0x80, 0xFF]]]
    assert shown(png16(6, nothing)).tolist() == [[[255] * 3]]
    assert shown(png16(4, np.array([[[0x40FF, 0xFFFF], [0x40FF, 0]]]))).tolist() == [[[0x40] * 3, [255] * 3]]


def transparent() -> dict[str, bytes | Image.Image]:
    """A black word on a transparent ground, whose stored colour is black."""
    alpha = Image.new("L", (8, 8), 0)
    alpha.paste(255, (0, 0, 4, 8))
    black = Image.new("L", (8, 8), 0)
    rgba, la = Image.merge("RGBA", (black, black, black, alpha)), Image.merge("LA", (black, alpha))
    palette = Image.new("P", (8, 8), 1)
    palette.paste(0, (0, 0, 4, 8))
    palette.putpalette([0] * 6)
    keyed = Image.new("L", (8, 8), 1)
    keyed.paste(0, (0, 0, 4, 8))
    return {
        "RGBA": saved(rgba, "PNG"),
        "LA": saved(la, "PNG"),
        "one colour of a palette": saved(palette, "PNG", transparency=1),
        "a palette with alpha": saved(palette, "PNG", transparency=bytes([255, 0])),
        "one grey": saved(keyed, "PNG", transparency=1),
        "one colour": saved(keyed.convert("RGB"), "PNG", transparency=(1, 1, 1)),
        "WebP": saved(rgba, "WEBP", lossless=True, exact=True),
        "TIFF": saved(rgba, "TIFF"),
        "an image": rgba,
        "premultiplied": rgba.convert("RGBa"),
        "grey of 16 bits": saved(grey16(), "PNG", transparency=65535),
    }


@pytest.mark.parametrize("name", transparent())
def test_what_is_transparent_is_white(name):
    source = transparent()[name]

    seen, beneath = shown(source), shown(source, drops_transparency=True)
    assert seen[0, 0].tolist() == [0, 0, 0]
    assert seen[0, -1].tolist() == [255, 255, 255]
    if name not in ("grey of 16 bits", "premultiplied"):
        assert beneath.max() <= 1


def test_half_transparent_is_half_white():
    assert shown(Image.new("RGBA", (2, 2), (100, 0, 200, 128)))[0, 0].tolist() == [177, 127, 227]


def test_colours_of_print():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))

    for source in (cmyk, saved(cmyk, "JPEG", quality=98), saved(cmyk, "TIFF")):
        assert np.abs(shown(source)[8, 8].astype(int) - (255, 0, 0)).max() <= 3


def test_pictures_that_are_not_read_are_named():
    page = Image.new("RGB", (16, 16))
    for kind, name in (("ICO", "ICO"), ("PPM", "PNM"), ("JPEG2000", "JPEG 2000"), ("PDF", "PDF"), ("TGA", "TGA")):
        for door in (open_image, open_video, probe):
            with pytest.raises(MediaError, match=f"of the format {name}, which is not read; save the picture as PNG"):
                door(saved(page, kind))
    with pytest.raises(MediaError, match="a TIFF of several pictures"):
        open_image(saved(page, "TIFF", save_all=True, append_images=[page]))
    with pytest.raises(MediaError, match="a raw photo, of which only a preview"):
        open_image(saved(page, "TIFF", tiffinfo={254: 1}))


def test_limits_of_pixels_hold_before_decoding():
    for kind in ("TIFF", "AVIF", "WEBP"):
        data = saved(Image.new("RGB", (200, 100)), kind)
        open_image(data, limits=Limits(pixels=20_000))
        with pytest.raises(MediaError, match=r"Limits\.pixels"):
            open_image(data, limits=Limits(pixels=19_999))


def test_a_fault_of_ours_is_not_a_damaged_file(monkeypatch):
    def broken(*_, **__):
        raise TypeError("a fault of ours")

    monkeypatch.setattr("avllm.media.pictures.on_white", broken)
    with pytest.raises(TypeError, match="a fault of ours"):
        open_image(saved(Image.new("RGB", (4, 4)), "PNG"))


def test_choices_are_checked():
    """In a process without the tests' type checks, which come first here."""
    wrong = [
        ("Fit", {"resize": "sqash"}, "resize: 'sqash' is unknown; did you mean 'squash'"),
        ("Fit", {"resample": "bicubc"}, "resample: 'bicubc' is unknown; did you mean 'bicubic'"),
        ("Fit", {"crop_offset": "up"}, "crop_offset: 'up' is unknown; known are: floor, round"),
        ("Sampling", {"kind": "unifrom"}, "sampling: 'unifrom' is unknown; did you mean 'uniform'"),
        ("Sampling", {"keep": "frist"}, "keep: 'frist' is unknown; did you mean 'first'"),
        *[("Fit", {"size": size}, "size: expected (height, width)") for size in ((0, 4), (4,), (4.5, 4), "44", 4)],
        *[("Fit", {"pad_color": color}, "pad_color: expected") for color in ((0, 0), (0, 0, 256), "red", (0.5, 0, 0))],
        ("open_video", {"source": 3}, "cannot read a int; expected a path"),
        ("open_audio", {"source": object()}, "cannot read a object; expected a path"),
    ]
    code = "import avllm.media as m\nfrom avllm.errors import AvllmError\n"
    for name, options, _ in wrong:
        given = "{'source': object()}" if name == "open_audio" else repr(options)
        code += f"try: print('taken', m.{name}(**{given}))\nexcept AvllmError as error: print(error)\n"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()

    assert [line[: len(said)] for line, (_, _, said) in zip(lines, wrong, strict=True)] == [said for *_, said in wrong]
