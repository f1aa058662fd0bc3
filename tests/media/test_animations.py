"""Animated pictures frame by frame, as browsers show them (compared with Chromium when these values were written)."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_image, open_video, probe

ALL = Sampling(kind="all")
RED, GREEN, BLUE, WHITE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (255, 255, 0)
_PALETTE = [(10, 20, 30), RED, GREEN, BLUE, YELLOW, WHITE, (9, 9, 9), (200, 200, 200)]
KEEP, CLEAR, RESTORE = 1, 2, 3


def gif(size: tuple[int, int], frames: list[tuple], background: int = 4) -> bytes:
    """A GIF of frames (x, y, w, h, colour, length in 10 ms, disposal, transparent colour)."""
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF2, background, 0) + bytes(np.ravel(_PALETTE).tolist())
    for x, y, width, height, colour, length, disposal, transparent in frames:
        packed = disposal << 2 | (transparent is not None)
        data += b"!\xf9\x04" + struct.pack("<BHB", packed, length, transparent or 0) + b"\0"
        data += b"," + struct.pack("<HHHHB", x, y, width, height, 0) + _lzw([colour] * (width * height))
    return data + b";"


def _lzw(indices: list[int]) -> bytes:
    """3 bits a pixel, the table cleared before it grows."""
    codes = [code for i, index in enumerate(indices) for code in ([8, index] if i % 6 == 0 else [index])] + [9]
    number = sum(code << 4 * place for place, code in enumerate(codes))
    packed = number.to_bytes((len(codes) + 1) // 2, "little")
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    return b"\3" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def colours(data: bytes, *points: tuple[int, int]) -> list[list[tuple[int, ...]]]:
    """Of each frame, those at (x, y)."""
    return [[tuple(frame[y, x].tolist()) for x, y in points] for frame in open_video(data, ALL).frames]


def test_gif_frames_that_clear_leave_white_and_not_a_background_colour():
    data = gif(
        (8, 8), [(0, 0, 8, 8, 1, 10, KEEP, None), (2, 2, 4, 4, 2, 10, CLEAR, None), (0, 0, 2, 2, 3, 10, 1, None)]
    )

    assert colours(data, (0, 0), (3, 3), (7, 7)) == [[RED] * 3, [RED, GREEN, RED], [BLUE, WHITE, RED]]


def test_gif_frames_that_restore():
    frames = [(0, 0, 8, 8, 1, 10, KEEP, None), (2, 2, 4, 4, 2, 10, RESTORE, None), (0, 0, 2, 2, 3, 10, KEEP, None)]

    assert colours(gif((8, 8), frames), (0, 0), (3, 3)) == [[RED, RED], [RED, GREEN], [BLUE, RED]]


def test_a_disposal_is_that_of_its_own_frame():
    frames = [(0, 0, 8, 8, 1, 10, CLEAR, 7), (2, 2, 4, 4, 2, 10, 0, 7), (0, 0, 2, 2, 3, 10, 0, 7)]

    assert colours(gif((8, 8), frames), (3, 3), (7, 7)) == [[RED, RED], [GREEN, WHITE], [GREEN, WHITE]]


def test_what_a_gif_leaves_open_is_white():
    for frames in ([(2, 2, 4, 4, 1, 10, 0, None)], [(2, 2, 4, 4, 1, 10, 0, 7), (2, 2, 4, 4, 7, 10, 0, 7)]):
        assert open_image(gif((8, 8), frames)).frames[0, 0, 0].tolist() == list(WHITE)
        assert open_image(gif((8, 8), frames)).frames[0, 3, 3].tolist() == list(RED)
    assert open_image(gif((4, 4), [(0, 0, 8, 8, 1, 10, 0, None)])).frames.shape == (1, 8, 8, 3)


def test_transparency_can_be_dropped():
    data = gif((4, 4), [(0, 0, 4, 4, 0, 10, 0, 0)])

    assert open_image(data).frames.min() == 255
    assert open_image(data, drops_transparency=True).frames.max() == 0


def test_frames_of_at_most_10_ms_are_shown_for_100():
    frames = [(0, 0, 4, 4, 1, length, KEEP, None) for length in (0, 1, 2, 50)]

    assert open_video(gif((4, 4), frames)).duration_s == pytest.approx(0.1 + 0.1 + 0.02 + 0.5)
    webp = animated("WEBP", [8, 17, 400], lossless=True)
    assert open_video(webp).duration_s == pytest.approx(0.1 + 0.017 + 0.4)


def animated(kind: str, durations: list[float], **options) -> bytes:
    images = [Image.new("RGB", (64, 48), color) for color in (RED, GREEN, BLUE)]
    file = io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=durations, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("AVIF", {"quality": 95}), ("PNG", {}), ("GIF", {})],
)
def test_lengths_of_frames(kind, options):
    data = animated(kind, [1000, 200, 3000], **options)
    info, every = probe(data), open_video(data, ALL)

    assert every.duration_s == pytest.approx(4.2)
    assert every.times_s == pytest.approx([0.0, 1.0, 1.2])
    assert every.frames[:, 9, 9].argmax(axis=1).tolist() == [0, 1, 2]  # red, green, blue
    for start_s, number in ((0.9, 0), (1.1, 1), (1.3, 2), (4.1, 2)):
        video = open_video(data, Sampling(kind="fps", fps=100.0, start_s=start_s, max_frames=1, keep="first"))
        assert video.frames[0, 9, 9].argmax() == number
    assert open_video(data, Sampling(kind="all", start_s=1.1, end_s=1.2)).times_s == pytest.approx([1.0])
    assert (info.duration_s, info.streams[0].frames, info.streams[0].kind) == (pytest.approx(4.2), 3, "video")


def test_a_steady_rate_shows_every_frame_once():
    images = [Image.new("RGB", (64, 64), (10 * i, 0, 0)) for i in range(24)]
    for kind, lengths in (("WEBP", [42, 41, 42] * 8), ("AVIF", [42, 41, 42] * 8), ("PNG", [1000 / 24] * 24)):
        file = io.BytesIO()
        images[0].save(file, kind, save_all=True, append_images=images[1:], duration=lengths)
        assert list(open_video(file, ALL).indices) == list(range(24))


def test_the_hidden_default_picture_of_an_apng():
    hidden, images = Image.new("RGB", (8, 8), YELLOW), [Image.new("RGB", (8, 8), color) for color in (RED, GREEN)]
    for shown in (images, images[:1]):
        file = io.BytesIO()
        hidden.save(file, "PNG", save_all=True, append_images=shown, default_image=True, duration=50)

        assert colours(file.getvalue(), (0, 0)) == [[RED], [GREEN]][: len(shown)]
        assert open_image(file).frames[0, 0, 0].tolist() == list(RED)
        assert probe(file).streams[0].kind == ("video" if len(shown) > 1 else "image")


def test_apng_frames_are_blended_and_disposed():
    base = Image.new("RGBA", (16, 12), (255, 0, 0, 255))
    base.paste((9, 9, 9, 0), (0, 0, 8, 6))
    part, soft = Image.new("RGBA", (16, 12)), Image.new("RGBA", (16, 12))
    part.paste((0, 255, 0, 255), (4, 4, 10, 10))
    soft.paste((0, 0, 255, 128), (2, 2, 6, 6))
    file = io.BytesIO()
    options = {"disposal": [0, 1, 0], "blend": [0, 1, 1], "duration": 100}
    base.save(file, "PNG", save_all=True, append_images=[part, soft], **options)

    seen = colours(file.getvalue(), (0, 0), (3, 3), (5, 5), (15, 11))
    assert seen[0] == [WHITE, WHITE, WHITE, RED]
    assert seen[1] == [WHITE, WHITE, GREEN, RED]
    # Half of a blue over nothing is half a blue on white.
    assert np.abs(np.array(seen[2][1]) - (127, 127, 255)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_animations_are_turned_as_their_exif_says(kind, orientation):
    corner = Image.new("RGB", (24, 16), RED)
    corner.paste(GREEN, (0, 0, 12, 8))
    corner.paste(BLUE, (12, 0, 24, 8))
    exif, options = Image.Exif(), {"lossless": True} if kind == "WEBP" else {}
    exif[0x0112] = orientation
    file = io.BytesIO()
    corner.save(file, kind, save_all=True, append_images=[corner.rotate(180)], duration=100, exif=exif, **options)

    video = open_video(file, ALL)
    swaps = orientation > 4
    assert video.frames.shape == (2, *((24, 16) if swaps else (16, 24)), 3)
    top_left, last = video.frames[0, 2, 2].tolist(), video.frames[0, -3, -3].tolist()
    right = {1: GREEN, 2: BLUE, 3: RED, 4: RED, 5: GREEN, 6: RED, 7: RED, 8: BLUE}[orientation]
    assert top_left == list(right)
    assert last == list({1: RED, 2: RED, 3: GREEN, 4: BLUE, 5: RED, 6: BLUE, 7: GREEN, 8: RED}[orientation])
    assert (probe(file).streams[0].width, probe(file).streams[0].height) == ((16, 24) if swaps else (24, 16))
    assert open_video(file, ALL, size=(8, 8)).frames.shape == (2, 8, 8, 3)


def test_transparent_animations_are_white():
    images = [Image.new("RGBA", (64, 64), (200, 0, 0, alpha)) for alpha in (255, 0)]
    for kind, options in (("WEBP", {"lossless": True, "exact": True}), ("AVIF", {"quality": 100}), ("PNG", {})):
        file = io.BytesIO()
        images[0].save(file, kind, save_all=True, append_images=images[1:], duration=100, **options)
        assert open_video(file, ALL).frames[1, 30, 30].tolist() == list(WHITE)


def test_damage_is_named():
    good = animated("PNG", [100, 100, 100])
    cut = good[: good.rfind(b"fcTL") - 4]
    with pytest.raises(MediaError, match="truncated: 1 of 3 frames"):
        open_video(cut)
    broken = bytearray(good)
    broken[good.rfind(b"fdAT") + 12] ^= 255
    with pytest.raises(MediaError, match="part fdAT does not match its checksum"):
        open_video(bytes(broken))
    with pytest.raises(MediaError, match="truncated or damaged"):
        open_video(gif((8, 8), [(0, 0, 8, 8, 1, 10, KEEP, None)])[:-9])
    with pytest.raises(MediaError, match=r"Limits\.pixels"):
        open_video(gif((800, 800), [(0, 0, 1, 1, 1, 10, KEEP, None)]), limits=Limits(pixels=600_000))
    with pytest.raises(MediaError, match=r"Limits\.seconds"):
        open_video(gif((4, 4), [(0, 0, 1, 1, 1, 60000, KEEP, None)] * 2), limits=Limits(seconds=1199))
