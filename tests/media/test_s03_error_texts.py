"""What is said of a broken medium tells nothing of the machine: no address of an object, no place on its disk."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avllm.errors import AvllmError
from avllm.media import Limits, Sampling, open_audio, open_image, open_video, probe
from tests.media.make import coded, sounding, tone
from tests.media.make_heif import heif, picture_item

VISITOR = "visitor-7f3a91c2"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
_TELLS = re.compile(
    r"0x[0-9a-f]{6,}| object at 0x|<_io|/tmp/|/home/|/usr/|site-packages|\.py\b|\n"
    r"|\b(127|10|192\.168|169\.254)\.\d+\.\d+|(?<![\w:.])/(\w[\w.-]*/)+",
    re.IGNORECASE,
)


def saved(kind: str, **options) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    moving = {"save_all": True, "append_images": [PICTURE.transpose(Image.Transpose.ROTATE_180)], "duration": 90}
    found = {kind.lower(): saved(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")}
    found |= {f"moving.{kind.lower()}": saved(kind, **moving) for kind in ("PNG", "GIF", "WEBP", "AVIF")}
    found["lzw.tiff"] = saved("TIFF", compression="tiff_lzw")
    found["heic"] = heif([picture_item(np.full((64, 64, 3), 90, np.uint8))], 1)
    for suffix, codec in (("mp4", "h264"), ("mkv", "h264"), ("webm", "vp8"), ("avi", "mpeg4"), ("ts", "mpeg2video")):
        found[suffix] = coded(folder / f"a.{suffix}", codec, 6).read_bytes()
    for suffix, codec in (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "vorbis")):
        found[suffix] = sounding(folder / f"a.{suffix}", codec, tone(0.3, 48000), 48000).read_bytes()
    return found


def broken(data: bytes) -> dict[str, bytes]:
    rng = np.random.default_rng(len(data))
    header, flipped, swapped = bytearray(data), bytearray(data), bytearray(data)
    header[12:60] = bytes(len(header[12:60]))
    for place in rng.integers(8, len(data), 24):
        flipped[place] ^= 1 << int(rng.integers(8))
    swapped[len(data) // 3 : len(data) // 2] = rng.bytes(len(data) // 2 - len(data) // 3)
    return {
        "broken header": bytes(header),
        "cut": data[: len(data) * 2 // 5],
        "cut in the header": data[:20],
        "flipped bits": bytes(flipped),
        "another's middle": bytes(swapped),
        "empty": b"",
        "wrong type": data[:8] + b"<html>not a medium</html>" * 9,
    }


def routes(data: bytes, path: Path) -> dict:
    """One medium handed over in every form in which a file can be."""
    path.write_bytes(data)
    frames = path.parent / f"{path.stem}.frames"
    frames.mkdir(exist_ok=True)
    (frames / "1.png").write_bytes(data)
    return {
        "path": path,
        "text": str(path),
        "file URL": path.as_uri(),
        "bytes": data,
        "memoryview": memoryview(data),
        "data URL": "data:video/mp4;base64," + base64.b64encode(data).decode(),
        "file object": io.BytesIO(data),
        "list of paths": [path, path],
        "list of texts": [str(path)],
        "list of bytes": [data],
        "folder": frames,
        "mapping of bytes": {"bytes": data, "path": str(path)},
        "mapping of a path": {"bytes": None, "path": str(path)},
    }


def said_of(call, *args, **options) -> str | None:
    """The error of a call; anything but an error of ours fails the test."""
    try:
        call(*args, **options)
    except AvllmError as error:
        return str(error)
    return None


def check(text: str | None, where: str) -> int:
    if text is None:
        return 0
    assert not _TELLS.search(text), f"{where}: {text}"
    assert VISITOR not in text, f"{where}: {text}"
    assert 0 < len(text) < 1000, where
    return 1


@pytest.mark.parametrize("part", range(5))
def test_s03_no_address_and_no_place_in_any_error(media, tmp_path, part):
    home = tmp_path / VISITOR
    home.mkdir()
    num_refused = num_tried = 0
    for kind, data in list(media.items())[part::5]:
        for how, content in broken(data).items():
            for route, source in routes(content, home / f"{how.split()[-1]}.{kind}").items():
                is_sound = kind in ("wav", "flac", "mp3", "ogg")
                doors = [probe, open_audio] if is_sound else [open_video, open_image]
                for door in doors:
                    said = said_of(door, source)
                    num_refused += check(said, f"{kind}, {how}, {route}")
                    num_tried += 1
                if content == b"":
                    assert said, f"{kind}, {how}, {route}"
    assert num_refused > num_tried / 2


def test_s03_files_that_cannot_be_opened(tmp_path):
    home = tmp_path / VISITOR
    home.mkdir()
    (home / "dead.png").symlink_to(home / "nothing")
    missing = [home / name for name in ("absent.mp4", "dead.png", "a\0b.png", "x" * 999)]
    for source in (*missing, [home / "absent.png"]):
        for door in (open_image, open_video, open_audio, probe):
            assert check(said_of(door, source), str(source))
    (home / "odd\x1b[31m\n\udce9.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    for door in (open_image, open_video, probe):
        said = said_of(door, next(home.glob("odd*")))
        assert said is not None
        assert said.startswith(r"odd\x1b[31m\n\udce9.png: ")
        said.encode()  # it can be printed


def test_s03_odd_objects():
    """In a process without the tests' type checks, which come first here."""
    code = [sys.executable, "-m", "tests.media.odd_objects"]
    told = json.loads(subprocess.run(code, capture_output=True, text=True, check=True).stdout)

    for name, doors in told.items():
        for door, (kind, said) in doors.items():
            assert kind in ("MediaError", "NoAudioStream"), f"{door} of {name}: {kind}: {said}"
            assert check(said, f"{door} of {name}")


def test_s03_texts_of_limits_look_like_no_address():
    with pytest.raises(AvllmError) as caught:
        open_image(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10, 2_000_000, 3)))
    assert check(str(caught.value), "a long side")
    with pytest.raises(AvllmError) as caught:
        open_video(np.zeros((2, 10, 123_456, 3), np.uint8), Sampling(kind="all"), limits=Limits(pixels=100_000))
    assert check(str(caught.value), "pixels")
