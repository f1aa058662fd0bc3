"""One budget on every way in, counted before anything is decoded."""

import base64
import io
import json
import subprocess
import sys
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Fit, Limits, Sampling, fit_picture, open_audio, open_image, open_video, probe, resolve
from tests.media.make import coded
from tests.media.test_s07_picture_bombs import gif

ALL = Sampling(kind="all")


def jpeg(size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((size, size), 90).save(file, "JPEG")
    return file.getvalue()


def test_s06_many_frames_in_one_request_are_refused_before_they_are_decoded(tmp_path):
    frame = base64.b64encode(jpeg(64)).decode()
    requests = {
        "frames of a data URL": "data:video/jpeg;base64," + ",".join([frame] * 10_000),
        "a moving picture": "data:image/gif;base64," + base64.b64encode(gif(400, 400, 10_000)).decode(),
        "escapes": "data:video/mp4," + "%41" * 5_000_000,
        "no base64": "data:video/mp4;base64," + "*" * 20_000_000,
    }
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    code = """
import json, resource, sys
from avllm.media import Limits, Sampling, open_image, open_video, probe
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
requests = json.load(open(sys.argv[1]))
told = {}
for name, url in requests.items():
    before = peak()
    try:
        open_video(url, Sampling(kind="all"))
        told[name] = ["read", 0]
    except Exception as error:
        told[name] = [f"{type(error).__name__}: {error}", peak() - before]
json.dump(told, sys.stdout)
"""
    run = [sys.executable, "-c", code, tmp_path / "requests.json"]
    told = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    said = {name: text for name, (text, _) in told.items()}
    assert "data URL with several parts; expected one file in it" in said["frames of a data URL"]
    assert "has 4097 frames, the limit is 4096 frames" in said["a moving picture"]
    assert "not a media file" in said["escapes"]
    assert "not valid base64" in said["no base64"]
    assert all(text.startswith("MediaError: ") and growth_mb < 50 for text, growth_mb in told.values()), told


def test_s06_a_data_url_is_what_its_bytes_are():
    data = jpeg()
    for url in (
        "data:image/jpeg;base64," + base64.b64encode(data).decode(),
        "DATA:;BASE64," + base64.b64encode(data).decode() + "\n",
        "data:image/jpeg," + "".join(f"%{byte:02x}" for byte in data),
        "data:," + data.decode("latin-1").encode("latin-1").hex("%").join(["%", ""]),
    ):
        assert resolve(url).data == data
        assert open_image(url).frames.shape == (1, 16, 16, 3)
    whole = bytes(range(256)) * 1000
    escaped = "".join(chr(byte) if 48 <= byte < 58 else f"%{byte:02X}" for byte in whole)
    assert resolve(f"data:,{escaped}").data == whole
    resolve(f"data:,{escaped}", Limits(memory_bytes=len(escaped)))
    with pytest.raises(MediaError, match=r"Limits\.memory_bytes"):
        resolve(f"data:,{escaped}", Limits(memory_bytes=len(escaped) - 1))


def test_s06_hours_of_a_frame_a_second(tmp_path):
    path = coded(tmp_path / "long.mkv", "h264", 2, times_ms=[0, 36_000_000])
    for door in (open_video, lambda source, **options: open_video(source, ALL, **options)):
        with pytest.raises(MediaError, match=r"Limits\.seconds"):
            door(path)
    assert len(open_video(path, Sampling(num_frames=2), limits=Limits(seconds=40_000))) == 2


def test_s06_a_list_has_the_budget_of_one_medium():
    frames = [jpeg(64)] * 50
    total = sum(map(len, frames))
    assert len(open_video(frames, ALL, limits=Limits(memory_bytes=total, frames=50))) == 50
    for limits, name in ((Limits(memory_bytes=total - 1), "memory_bytes"), (Limits(frames=49), "frames")):
        with pytest.raises(MediaError, match=rf"Limits\.{name}"):
            open_video(frames, ALL, limits=limits)
    with pytest.raises(MediaError, match=r"Limits\.seconds"):
        open_video(frames, ALL, limits=Limits(seconds=50 / 24 - 0.01))


def test_s06_picture_files_are_held_in_memory_and_counted_so(tmp_path):
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"):
        path = tmp_path / f"a.{kind.lower()}"
        Image.new("RGB", (16, 16)).save(path, kind)
        size = path.stat().st_size
        assert open_image(path, limits=Limits(memory_bytes=size)).frames.shape == (1, 16, 16, 3)
        for door in (open_image, open_video, probe):
            with pytest.raises(MediaError, match=r"Limits\.memory_bytes"):
                door(path, limits=Limits(memory_bytes=size - 1))


def test_s06_a_stream_is_counted_before_it_is_read():
    class Counted(io.BytesIO):
        num_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.num_read += len(data)
            return data

    class Pipe(Counted):
        def seekable(self) -> bool:
            return False

    data = jpeg(64)
    for kind in (Counted, Pipe):
        assert open_image(kind(data), limits=Limits(memory_bytes=len(data))).frames.shape == (1, 64, 64, 3)
        stream = kind(bytes(30 << 20))
        for door in (open_image, open_audio):
            with pytest.raises(MediaError, match=r"Limits\.memory_bytes"):
                door(stream, limits=Limits(memory_bytes=(3 << 20) - 1))
        assert stream.num_read <= (0 if kind is Counted else 8 << 20)


def test_s06_an_array_is_counted_before_it_is_made():
    class Lazy:
        """As those of zarr, dask and h5py: told by its size, made when it is asked for."""

        nbytes = 4 * 4 * 3

        def __array__(self, *args, **options) -> np.ndarray:
            self.was_made = True
            return np.zeros((4, 4, 3), np.uint8)

    assert open_image(Lazy(), limits=Limits(file_bytes=48)).frames.shape == (1, 4, 4, 3)
    lazy = Lazy()
    with pytest.raises(MediaError, match=r"Limits\.file_bytes"):
        open_image(lazy, limits=Limits(file_bytes=47))
    assert not hasattr(lazy, "was_made")


@pytest.mark.parametrize("resample", ["bicubic", "float_bicubic", "float_bilinear", "decoder"])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_s06_no_picture_is_large_on_its_way(resample, resize):
    """Long lines of few pixels, of which resizing would make gigabytes between one axis and the other."""
    how = Fit(size=(336, 336), resize=resize, resample=resample)
    for shape in ((1, 1 << 20, 3), (1 << 20, 1, 3)):
        line = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), shape)
        tracemalloc.start()
        with suppress(MediaError):
            assert fit_picture(line, how, Limits()).shape == (336, 336, 3)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
        tracemalloc.stop()
    with pytest.raises(MediaError, match="is longer than 1048576 pixels"):
        open_image(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (1, (1 << 20) + 1, 3)))
    line = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (1, 3120, 3))
    if resample.startswith("float"):
        fit_picture(line, Fit(size=(336, 336), resample=resample), Limits(pixels=336 * 3120))
        with pytest.raises(MediaError, match=r"Limits\.pixels"):
            fit_picture(line, Fit(size=(336, 336), resample=resample), Limits(pixels=336 * 3120 - 1))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_s06_rates_that_are_none(rate):
    with pytest.raises(MediaError, match="source_fps: expected a rate above 0, got"):
        open_video(np.zeros((2, 4, 4, 3), np.uint8), source_fps=rate)
