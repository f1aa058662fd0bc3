"""A TypeError or the like is a fault of ours or of a library that changed: it is never told as a damaged file."""

import av
import numpy as np
import pytest
from PIL import Image

from avllm import media
from avllm.errors import MediaError, was_raised_in
from avllm.media import container, pictures, pillow, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "clip.mp4"
    return write_video(path, [np.zeros((32, 48, 3), np.uint8)] * 4, 10.0)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("fault", [TypeError, AttributeError, KeyError, ValueError, ZeroDivisionError])
def test_of_opening_a_container(clip, monkeypatch, fault):
    def changed(*args, **options):
        raise fault("a release of PyAV that changed")

    monkeypatch.setattr(container.av, "open", changed)
    for read in (media.probe, media.open_video, media.open_audio):
        with pytest.raises(fault, match="changed"):
            read(clip)


@pytest.mark.parametrize("fault", [TypeError, AttributeError, KeyError, ValueError, ZeroDivisionError])
def test_of_reading_a_picture(picture, monkeypatch, fault):
    def ours(*args, **options):
        raise fault("a slip of ours")

    monkeypatch.setattr(pictures, "fit_picture", ours)
    with pytest.raises(fault, match="slip") as caught:
        media.open_image(picture)
    assert not isinstance(caught.value, MediaError)


def test_of_calling_pillow_wrongly(picture, monkeypatch):
    monkeypatch.setattr(pillow, "import_module", lambda name: type("Changed", (), {"PngImageFile": lambda: None}))
    with pytest.raises(TypeError, match="argument"):
        media.open_image(picture)


def test_what_pillow_itself_raises_is_told_apart(picture):
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(MediaError, match="not an image that can be read"):
        media.open_image(picture)
    with pytest.raises(OSError, match="cannot identify") as caught:
        Image.open(__file__)
    assert was_raised_in(caught.value, "PIL")
    assert not was_raised_in(caught.value, "av")


def test_a_title_that_is_no_utf8_is_no_fault(tmp_path):
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "caf_"
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"caf_", b"caf\xe9"))
    assert media.probe(path).has_video
