"""Good files with bytes changed or cut off are read or refused by a MediaError; nothing else happens."""

import gc
import io
import struct
from contextlib import suppress

import av
import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import open_audio, open_video, probe, write_audio
from tests.media.make import clip, coded, numbered, tone

KEPT = (av.container.InputContainer, av.CodecContext, av.VideoFrame, av.AudioFrame, av.Packet)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    files = {name: clip(folder / name, 12).read_bytes() for name in ("a.mp4", "a.webm")}
    files |= {name: write_audio(folder / name, tone(0.3), 16000).read_bytes() for name in ("a.wav", "a.flac", "a.ogg")}
    images = [Image.fromarray(frame) for frame in numbered(3)]
    for kind in ("PNG", "GIF", "JPEG", "WEBP", "AVIF", "TIFF"):
        buffer = io.BytesIO()
        several = {"save_all": True, "append_images": images[1:]} if kind in ("GIF", "WEBP", "AVIF") else {}
        images[0].save(buffer, kind, **several)
        files[kind] = buffer.getvalue()
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:])
    files["APNG"] = buffer.getvalue()
    return files


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.webm", "a.wav", "a.flac", "a.ogg", "PNG", "APNG", "GIF", "JPEG", "WEBP", "AVIF", "TIFF"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_changed_bytes(good, name):
    rng = np.random.default_rng(0)
    for number in range(12):
        data = bytearray(good[name])
        if number % 3 == 0:
            data = data[: rng.integers(1, len(data))]
        else:
            reach = len(data) if number % 3 == 1 else min(len(data), 600)
            for _ in range(rng.integers(1, 12)):
                data[rng.integers(reach)] = rng.integers(256)
        for read in (open_video, open_audio, probe):
            with suppress(MediaError):  # and no other
                read(bytes(data))


def test_a_forged_rate_is_refused(good):
    data = bytearray(good["a.wav"])
    data[24:28] = struct.pack("<I", 1_862_286_976)
    with pytest.raises(MediaError, match="1862286976 Hz"):
        open_audio(bytes(data))


def test_s10_a_damaged_file_leaves_no_decoder_behind(tmp_path):
    """Neither what was read nor what failed holds a file in a cycle, which is looked for seldom."""
    rng, outcomes = np.random.default_rng(0), set()
    gc.collect()
    gc.freeze()  # all that is there already need not be looked at again and again
    for name in ("a.h264", "a.mkv"):
        good = coded(tmp_path / name, "libx264", 8, gop=4).read_bytes()
        for _ in range(8):
            data = bytearray(good)
            for place in rng.integers(200, len(data), 40):
                data[place] ^= 0xFF
            for read in (open_video, open_audio, probe):
                gc.collect()
                gc.disable()
                try:
                    outcomes.add(read(bytes(data)).__class__)
                except MediaError:
                    outcomes.add(MediaError)
                finally:
                    left = [found for found in gc.get_objects() if isinstance(found, KEPT)]
                    gc.enable()
                assert not left, (name, read.__name__, left)
    gc.unfreeze()
    assert len(outcomes) >= 3


def test_a_tag_that_is_cut_off_is_one_line():
    for length in range(3, 12):
        with pytest.raises(MediaError):
            open_audio((b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\x00\x00")[:length])
