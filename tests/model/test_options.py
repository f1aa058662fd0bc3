"""How a medium is read: options used as meant or refused by name, before anything is opened."""

from dataclasses import replace

import numpy as np
import pytest

from avllm.errors import ConfigError, MediaError
from avllm.model.configuration import Frames
from avllm.model.options import VideoOptions, for_kind, sampling_of
from tests.model.tiny import tiny_model, tiny_processor

FRAMES = np.zeros((40, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())  # 4 frames, 8 at the most


def times(processor, **options):
    return processor.read(FRAMES, "video", **{"source_fps": 10.0, **options}).times_s


def test_a_number_of_frames_is_taken(processor):
    assert len(times(processor)) == len(times(processor, num_frames=None)) == 4
    assert len(times(processor, num_frames=8)) == len(times(processor, num_frames=np.int64(8))) == 8
    assert len(times(processor, max_frames=2)) == 2


def test_a_rate_alone_is_a_sampling(processor):
    assert times(processor, fps=1) == (0.5, 1.5, 2.5, 3.5)
    assert times(processor, fps=np.float32(0.5)) == (1.0, 3.0)
    assert times(processor, sampling="fps_time", fps=1.0) == times(processor, fps=1.0)


def test_a_part_is_seen(processor):
    assert times(processor, start_s=1, end_s=1.2) == (1.0, 1.1)
    with pytest.raises(MediaError, match=r"no frame between start_s=5.0 and end_s=6.0; the video is 4.00 s long"):
        times(processor, start_s=5, end_s=6)


def test_a_rate_that_gives_too_many_frames_is_refused_or_thinned_out(processor):
    with pytest.raises(ConfigError, match=r"fps at 5 fps takes 20 frames of this video, more than the 8.*max_frames=8"):
        times(processor, fps=5)
    with pytest.raises(ConfigError, match="sampling all takes 40 frames"):
        times(processor, sampling="all")
    assert len(times(processor, fps=5, max_frames=8)) == len(times(processor, sampling="all", max_frames=8)) == 8


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_frames": "8"}, "num_frames: expected an int, got the text '8'"),
        ({"num_frames": 8.5}, "num_frames: expected an int, got 8.5"),
        ({"num_frames": True}, "num_frames: expected an int, got True"),
        ({"num_frames": [8]}, "num_frames: expected an int, got a list"),
        ({"num_frames": 0}, "num_frames: expected a number above 0, got 0"),
        ({"num_frames": -1}, "num_frames: expected a number above 0, got -1"),
        ({"num_frames": 9}, "num_frames: 9 frames are more than the 8 that this model holds; ask for 8"),
        ({"fps": 1, "max_frames": 9}, "max_frames: 9 frames are more than the 8"),
        ({"max_frames": 0}, "max_frames: expected a number above 0"),
        ({"fps": 0}, "fps: expected a number above 0"),
        ({"fps": float("nan")}, "fps: expected a number above 0"),
        ({"fps": "2"}, "fps: expected a float, got the text '2'"),
        ({"fps": 2, "num_frames": 4}, "fps, num_frames: give one of them"),
        ({"fps": 2, "sampling": "uniform"}, "fps: sampling uniform takes no rate"),
        ({"sampling": "all", "num_frames": 3}, "num_frames: sampling all takes no number"),
        ({"sampling": "fps"}, "fps: sampling 'fps' expects a rate above 0"),
        ({"sampling": "unifrom"}, "sampling: got the text 'unifrom', allowed are: uniform"),
        ({"start_s": -1}, "expected seconds with 0 <= start_s < end_s, got -1.0 and None"),
        ({"start_s": 2, "end_s": 2}, "expected seconds with 0 <= start_s < end_s"),
        ({"start_s": float("nan")}, "expected seconds"),
        ({"end_s": float("inf")}, "expected seconds"),
        ({"end_s": 1, "video_end": 2}, "given twice"),
        ({"nun_frames": 4}, "nun_frames: unknown key; did you mean 'num_frames'"),
        ({"images": [1]}, "images: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_medium_is_opened(processor, options, fault):
    with pytest.raises(ConfigError, match=fault):
        processor.check_reading("video", **options)
    with pytest.raises(ConfigError, match=fault):
        processor.read("no such file", "video", **options)


@pytest.mark.parametrize(
    ("kind", "options", "fault"),
    [
        ("image", {"fps": 1}, "fps: has no use for an image, it is an option of a video"),
        ("image", {"start_s": 1}, "start_s: has no use for an image"),
        ("audio", {"num_frames": 3}, "num_frames: has no use for an audio"),
        ("audio", {"start_s": 2, "end_s": 1}, "expected seconds"),
        ("audio", {"sampling_rat": 8000}, "sampling_rat: unknown key"),
    ],
)
def test_options_are_those_of_the_kind(processor, kind, options, fault):
    with pytest.raises(ConfigError, match=fault):
        processor.read("no such file", kind, **options)


def test_options_for_all_media_reach_those_that_have_use_for_them(processor):
    sound = np.zeros(16000, np.float32)
    batch = processor(text="?", video=FRAMES, audio=sound, num_frames=2)
    assert batch["media"]["video"].shape[1] == 2
    assert batch["media"]["audio"].shape[1] == 3
    for given in ({"image": FRAMES[0]}, {}):
        with pytest.raises(ConfigError, match="num_frames: is an option of a video, and there is none here"):
            processor(text="?", num_frames=2, **given)
    with pytest.raises(ConfigError, match="images: unknown option; did you mean"):
        processor(text="?", images=[FRAMES[0]])
    assert for_kind("audio", {"fps": 1, "video_start": 2, "end_s": None, "odd": 1}) == {"start_s": 2, "odd": 1}


def test_a_rate_of_an_array_of_sound_is_heard(processor):
    sound = np.sin(np.arange(16000, dtype=np.float32))
    slow = processor.read(sound, "audio", sampling_rate=8000).values
    assert not (slow == processor.read(sound, "audio").values).all()


def test_a_branch_of_sound_that_is_given_pictures_has_its_own_limit():
    model = tiny_model()
    model.config.system["branches"]["audio"]["connector"]["max_frames"] = 3
    processor = tiny_processor(model)
    processor.check_reading("video", num_frames=8)
    with pytest.raises(ConfigError, match="4 frames are more than the 3"):
        processor.check_reading("video", branch="audio")
    model.config.system["branches"]["audio"]["connector"]["max_frames"] = 2
    with pytest.raises(ConfigError, match=r"branches\.audio: 3 frames or segments are more than the 2"):
        tiny_processor(model).check_reading("audio")


def test_a_system_that_samples_by_rate_keeps_its_bound():
    settings = Frames(sampling="fps", fps=1.0, num_frames=4, max_frames=6)
    assert sampling_of(VideoOptions(num_frames=4), settings, 8).max_frames == 6  # its own number says nothing new
    for options, fault in ((VideoOptions(num_frames=3), "takes no number"), (VideoOptions(max_frames=9), "more than")):
        with pytest.raises(ConfigError, match=fault):
            sampling_of(options, settings, 8)
    assert sampling_of(VideoOptions(), replace(settings, max_frames=None), None).max_frames is None
