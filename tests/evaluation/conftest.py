"""What the tests of this folder share: one clip of nano's world, a frame and the sound of it, and the shipped model."""

import wave

import numpy as np
import pytest
from PIL import Image

from avllm.chat import load
from avllm.media import Sampling, open_audio, open_video
from avllm.nano.sample import make_clip, write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return write_clip(make_clip("test", 0, 0, held_out=False).scene, tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def image(clip):
    frame = open_video(clip, Sampling(kind="middle", num_frames=1)).frames[0]
    Image.fromarray(frame).save(clip.with_name("image.jpg"))
    return clip.with_name("image.jpg")


@pytest.fixture(scope="session")
def sound(clip):
    audio = open_audio(clip)
    with wave.open(str(clip.with_name("sound.wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(audio.sample_rate)
        file.writeframes((np.clip(audio.waveform[0], -1, 1) * 32767).astype("<i2").tobytes())
    return clip.with_name("sound.wav")


@pytest.fixture(scope="session")
def nano():
    return load("nano")
