"""Every limit with a medium just under it and one just over it."""

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Limits, Sampling, open_audio, open_image, open_video, probe, write_audio
from tests.media.make import HEIGHT, WIDTH, clip, numbered, tone


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("limits") / "clip.mp4", 48)


def test_file_bytes(mp4):
    size = mp4.stat().st_size
    for read in (open_video, open_audio, probe):
        read(mp4, limits=Limits(file_bytes=size))
        with pytest.raises(MediaError, match=r"Limits\.file_bytes"):
            read(mp4, limits=Limits(file_bytes=size - 1))


def test_memory_bytes(mp4):
    data = mp4.read_bytes()
    for read in (open_video, open_audio, probe):
        read(data, limits=Limits(memory_bytes=len(data)))
        with pytest.raises(MediaError, match=r"Limits\.memory_bytes"):
            read(data, limits=Limits(memory_bytes=len(data) - 1))
    with pytest.raises(MediaError, match=r"Limits\.memory_bytes"):
        open_video("data:video/mp4;base64," + "A" * 4000, limits=Limits(memory_bytes=1000))


def test_pixels_of_a_video(mp4):
    open_video(mp4, limits=Limits(pixels=HEIGHT * WIDTH))
    with pytest.raises(MediaError, match=r"128x96 has 12288 pixels, the limit is 12287|pixels"):
        open_video(mp4, limits=Limits(pixels=HEIGHT * WIDTH - 1))
    with pytest.raises(MediaError, match=r"Limits\.pixels"):
        open_video(mp4, size=(4000, 4000), limits=Limits(pixels=1000 * 1000))


def test_pixels_of_an_image_are_told_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (9000, 9000)).save(path)

    assert path.stat().st_size < 20_000  # and 243 MB decoded
    for read in (open_image, open_video, probe):
        with pytest.raises(MediaError, match=r"9000x9000 has 81000000 pixels"):
            read(path)
    Image.new("1", (200, 100)).save(path)
    open_image(path, limits=Limits(pixels=20_000))
    with pytest.raises(MediaError, match=r"Limits\.pixels"):
        open_image(path, limits=Limits(pixels=19_999))


def test_frames(mp4):
    assert len(open_video(mp4, Sampling(kind="all"), limits=Limits(frames=48))) == 48
    with pytest.raises(MediaError, match=r"48 frames, the limit is 47 .*Limits\.frames"):
        open_video(mp4, Sampling(kind="all"), limits=Limits(frames=47))
    array = np.zeros((5, 4, 4, 3), np.uint8)
    assert len(open_video(array, Sampling(kind="all"), limits=Limits(frames=5))) == 5
    with pytest.raises(MediaError, match=r"Limits\.frames"):
        open_video(array, Sampling(kind="all"), limits=Limits(frames=4))


def test_frames_of_an_animated_image(tmp_path):
    frames = [Image.fromarray(frame) for frame in numbered(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    open_video(tmp_path / "a.gif", limits=Limits(frames=6))
    with pytest.raises(MediaError, match=r"Limits\.frames"):
        open_video(tmp_path / "a.gif", Sampling(num_frames=1), limits=Limits(frames=5))


def test_seconds(mp4):
    for read in (open_video, open_audio):
        read(mp4, limits=Limits(seconds=2.01))
        with pytest.raises(MediaError, match=r"Limits\.seconds"):
            read(mp4, limits=Limits(seconds=1.99))


def test_video_bytes_are_counted_at_the_size_that_is_returned(mp4):
    for size, pixels in ((None, HEIGHT * WIDTH), ((32, 32), 32 * 32)):
        limit = 4 * pixels * 3
        open_video(mp4, Sampling(num_frames=4), size=size, limits=Limits(video_bytes=limit))
        with pytest.raises(MediaError, match=r"Limits\.video_bytes"):
            open_video(mp4, Sampling(num_frames=4), size=size, limits=Limits(video_bytes=limit - 1))


def test_audio_bytes(tmp_path):
    path = write_audio(tmp_path / "a.wav", np.stack([tone(1.0)] * 2), 16000)
    open_audio(path, limits=Limits(audio_bytes=2 * 16000 * 4))
    with pytest.raises(MediaError, match=r"Limits\.audio_bytes"):
        open_audio(path, limits=Limits(audio_bytes=2 * 16000 * 4 - 1))
    open_audio(path, end_s=0.5, limits=Limits(audio_bytes=2 * 8000 * 4))


def test_sound_is_counted_while_it_is_decoded(tmp_path):
    """A file that states a tenth of its length."""
    path = write_audio(tmp_path / "a.flac", tone(2.0), 16000)
    data = bytearray(path.read_bytes())
    # STREAMINFO: the last 36 bits before the checksum count the samples.
    assert int.from_bytes(data[21:26]) & (1 << 36) - 1 == 32000
    data[21:26] = (int.from_bytes(data[21:26]) - 32000 + 3200).to_bytes(5)
    path.write_bytes(data)

    open_audio(path, limits=Limits(audio_bytes=32000 * 4))
    with pytest.raises(MediaError, match=r"Limits\.audio_bytes"):
        open_audio(path, limits=Limits(audio_bytes=16000 * 4))


def test_defaults_are_for_a_laptop():
    limits = Limits()
    assert limits.video_bytes <= 2 * 2**30
    assert limits.audio_bytes <= 2 * 2**30
