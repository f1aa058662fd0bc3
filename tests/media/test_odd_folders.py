"""Folders of downloads: names of any bytes, things that are no files, and files that change under the reader."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Sampling, content_key, open_audio, open_image, open_video, probe, resolve

ALL = Sampling(kind="all")
SHADES = (10, 60, 110, 160, 210)


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 4), shade).save(file, "PNG")
    return file.getvalue()


def shades(video) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in video.frames]


NAMES = [
    ["1.png", "2.png", "10.png", "11.png"],
    ["a²1.png", "a²2.png", "a²10.png"],  # a digit to Unicode, and no number to Python
    ["²x.png", "③.png", "x٣.png"],
    ["1.png", "01.png", "001.png"],
    ["A.PNG", "a.png", "a.Png"],
    ["\udcff.png", "\udcff2.png"],
    ["-rf.png", "a b\n.png", "%2e%2e.png", "#?&;`$(id).png"],
    ["\x1b[2J.png", "\u202egnp.exe.png"],
]
FOLDERS = ["\udce9t\udce9", "-x", "a\nb", "https:", "concat:a|b", "%00", "data:"]


@pytest.mark.parametrize(
    ("names", "folder"), [*[(names, "frames") for names in NAMES], *[(NAMES[0], folder) for folder in FOLDERS]]
)
def test_any_name_is_a_name(tmp_path, names, folder):
    place = tmp_path / folder
    place.mkdir()
    for name, shade in zip(names, SHADES, strict=False):
        (place / name).write_bytes(png(shade))

    video, given = open_video(place, ALL), SHADES[: len(names)]
    assert sorted(shades(video)) == sorted(given)
    if names[0] == "1.png" and len(names) == 4:
        assert shades(video) == list(given)
    assert shades(open_video(str(place), ALL)) == shades(video)  # one order, however the disk lists them
    assert probe(place).streams[0].frames == len(names)
    content_key(place, {})
    (place / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(MediaError, match=r"zz\.png: not an image") as caught:
        open_video(place, ALL)
    assert str(caught.value).isprintable()


def special(place: Path, kind: str) -> None:
    """Something with the name of a picture that is no file."""
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(place.parent)  # paths of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(place.name)
        finally:
            os.chdir(here)
    elif kind == "folder":
        place.mkdir()
    elif kind == "dead link":
        place.symlink_to(place.parent / "nothing")
    elif kind == "circle":
        place.symlink_to(place)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "dead link", "circle"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind):
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "1.png").write_bytes(png(10))
    special(frames / "2.png", kind)
    said = {
        "folder": "not an image",
        "dead link": "cannot be opened",
        "circle": "cannot be opened",
    }.get(kind, "not a regular file")

    for source in (frames, [frames / "1.png", frames / "2.png"]):
        said = "expected one picture" if kind == "folder" and isinstance(source, list) else said
        with pytest.raises(MediaError, match=said):
            open_video(source, ALL)
    if kind != "folder":
        for door in (open_video, open_image, open_audio, probe):
            with pytest.raises(MediaError, match=said):
                door(frames / "2.png")
    assert len(open_video(frames, Sampling(num_frames=1))) == 1  # what is not looked at does no harm
    assert content_key(frames, {}) == content_key(frames, {})


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(10))
    source = resolve(path)
    path.unlink()
    os.mkfifo(path)

    for door in (open_image, open_video, probe, lambda source: content_key(source, {})):
        with pytest.raises(MediaError, match=r"a\.png: not a regular file"):
            door(source)
    path.unlink()
    with pytest.raises(MediaError, match=r"a\.png: cannot be opened \(No such file or directory\); check the path"):
        open_image(source)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    source = resolve(tmp_path)
    tmp_path.rmdir()
    for door in (open_video, probe, lambda source: content_key(source, {})):
        with pytest.raises(MediaError, match=r"cannot be opened \(No such file"):
            door(source)
    tmp_path.mkdir()

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(MediaError, match=r"cannot be opened \(Permission denied\); check the path"):
        open_video(tmp_path)


def test_a_disk_that_fails_is_no_damaged_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(10))

    class Failing(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error", "/secret/place")

        readinto = read

    def failing(path, name):
        return Failing(io.FileIO(path))

    source = resolve(tmp_path / "a.png")
    monkeypatch.setattr("avllm.media.source.open_regular", failing)
    for door in (open_image, lambda source: content_key(source, {})):
        with pytest.raises(MediaError, match=r"^a\.png: cannot be read \(Input/output error\); check the disk"):
            door(source)


def test_a_file_object_stands_where_it_stood_also_after_an_error():
    class Stream(io.BytesIO):
        def __init__(self, data: bytes, fault: Exception) -> None:
            super().__init__(data)
            self.fault = fault

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 1 << 20:
                raise self.fault
            return super().read(size)

    for fault in (KeyError("a fault of its own"), EOFError(), RuntimeError()):
        stream = Stream(bytes(3 << 20), fault)
        stream.seek(7)
        with pytest.raises(MediaError, match=rf"file object: cannot be read \({type(fault).__name__}\)"):
            open_image(stream)
        assert stream.tell() == 7


def test_arrays_in_any_layout_are_the_same():
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), np.uint8)
    flipped = frames[:, ::-1, ::-1].copy()[:, ::-1, ::-1]  # negative strides
    spread = np.zeros((6, 12, 16, 3), np.uint8)[::2, ::2, ::2]
    spread[...] = frames
    swapped = frames.astype(">i4")
    read_only = frames.copy()
    read_only.flags.writeable = False
    unmasked = np.ma.masked_array(frames, mask=False)
    for source in (flipped, spread, swapped, np.asfortranarray(frames), read_only, unmasked, frames.astype(np.uint64)):
        assert np.array_equal(open_video(source, ALL).frames, frames)
        assert content_key(source, {}) == content_key(frames, {})
