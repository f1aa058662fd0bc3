import json

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import probe, write_audio
from tests.media.make import clip, numbered, remux, tone


def test_a_film(tmp_path):
    path = remux(clip(tmp_path / "a.mp4"), tmp_path / "turned.mp4", rotation=90)
    info = probe(path)
    video, audio = info.streams

    assert (video.codec, video.frames, video.fps, video.rotation) == ("h264", 60, 24.0, 90)
    assert (video.width, video.height) == (96, 128)
    assert (audio.codec, audio.channels, audio.sample_rate) == ("aac", 1, 16000)
    assert info.duration_s == pytest.approx(2.5, abs=0.01)
    assert info.has_video
    assert info.has_audio
    assert json.loads(json.dumps(info.to_dict()))["streams"][0]["codec"] == "h264"
    assert "96x128" in info.to_table()
    assert len(info.to_table().splitlines()) == 4


def test_sound_image_folder_and_bytes(tmp_path):
    sound = probe(write_audio(tmp_path / "a.wav", np.stack([tone(1.0)] * 2), 16000).read_bytes())
    assert (sound.has_video, sound.has_audio, sound.streams[0].channels) == (False, True, 2)

    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(numbered(3)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    image = probe(folder / "0.png")
    assert (image.format, image.duration_s, image.streams[0].kind) == ("image", None, "image")
    assert (probe(folder).streams[0].frames, probe(folder).streams[0].width) == (3, 128)


def test_the_cover_of_a_song_is_no_video(tmp_path):
    import av
    from av.stream import Disposition

    from avllm.media import open_video

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(tone(0.5)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))

    assert sorted(stream.kind for stream in probe(path).streams) == ["audio", "cover"]
    with pytest.raises(MediaError, match="only sound"):
        open_video(path)


def test_faults(tmp_path):
    (tmp_path / "text.mp4").write_text("text\n" * 100)
    with pytest.raises(MediaError, match=r"text\.mp4"):
        probe(tmp_path / "text.mp4")


def test_media_in_memory():
    frames = probe(np.zeros((3, 4, 6, 3), np.uint8))
    assert (frames.format, frames.size_bytes, frames.streams[0].frames, frames.streams[0].width) == (
        "frames",
        None,
        3,
        6,
    )
    sound = probe((16000, np.zeros((8000, 2), np.float32)))
    assert (sound.duration_s, sound.streams[0].channels, sound.streams[0].sample_rate) == (0.5, 2, 16000)
    assert probe(np.zeros(8000, np.float32)).streams[0].kind == "audio"
    assert probe(np.zeros((480, 640), np.uint8)).streams[0].kind == "image"
