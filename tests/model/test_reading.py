"""Media to what an encoder takes, under the settings of a system."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from avllm import media
from avllm.config import parse
from avllm.errors import ConfigError, MediaError
from avllm.model.configuration import Frames
from avllm.model.reading import normalise, read_image, read_video

SMALL = Frames(num_frames=4, size=8)


def clip(num_frames: int, height: int = 8, width: int = 8) -> np.ndarray:
    """Frames whose values are their numbers."""
    return np.tile(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (1, height, width, 3))


def numbers(values: torch.Tensor, settings: Frames) -> list[int]:
    """What `clip` wrote into the frames."""
    pixels = values[:, 0, 0, 0] * settings.std[0] + settings.mean[0]
    return (pixels * 255).round().int().tolist()


def test_an_image_is_repeated():
    loaded = read_image(media, replace(SMALL, image_frames=3), clip(1)[0], {}, branch="video")

    assert loaded.values.shape == (3, 3, 8, 8)
    assert torch.equal(loaded.values[0], loaded.values[2])
    assert loaded.times_s == (0.0, 0.0, 0.0)


def test_an_image_can_be_read_otherwise_than_a_video():
    settings = replace(SMALL, resize="crop", resample="bicubic", image_resize="squash", image_resample="float_bicubic")
    wide = np.tile(np.arange(0, 230, 10, dtype=np.uint8)[None, :, None], (8, 1, 3))  # 8 x 23

    image = read_image(media, settings, wide, {}, branch="video").values[0]
    video = read_video(media, settings, wide[None], {}, branch="video").values[0]

    assert image[0, 0, -1] > video[0, 0, -1]  # the right edge is cut off the video alone
    pixels = (image[0] * settings.std[0] + settings.mean[0]) * 255
    assert (pixels - pixels.round()).abs().max() > 0.01  # floats are not rounded
    expected = media.fit_picture(wide, media.Fit(size=(8, 8), resize="crop", resample="bicubic"), media.Limits())
    assert torch.equal(video, normalise(expected[None], settings)[0])


def test_the_mean_colour_is_that_of_the_normalisation():
    settings = replace(SMALL, resize="pad", resample="bicubic", pad_color="mean")

    values = read_image(media, settings, clip(1, height=2)[0], {}, branch="video").values[0]

    assert settings.fit_options("image")["pad_color"] == (122, 116, 104)
    assert values[:, 0].abs().max() < 1 / 255 / min(settings.std)


def test_long_videos_are_seen_whole_unless_the_fault_is_wanted():
    settings = replace(SMALL, sampling="fps", fps=1.0, source_fps=1.0, max_frames=3)

    whole = read_video(media, settings, clip(9), {}, branch="video")
    cut = read_video(media, settings, clip(9), {}, branch="video", quirks=("cut_long_videos",))

    assert numbers(whole.values, settings) == [0, 3, 6]
    assert numbers(cut.values, settings) == [0, 1, 2]


def test_parts_begin_on_time_unless_the_fault_is_wanted():
    settings, part = replace(SMALL, sampling="all", source_fps=2.0), {"start_s": 1.0, "end_s": 2.2}

    right = read_video(media, settings, clip(9), part, branch="video")
    early = read_video(media, settings, clip(9), part, branch="video", quirks=("window_starts_early",))

    assert numbers(right.values, settings) == [2, 3, 4]
    assert numbers(early.values, settings) == [1, 2, 3]


def test_a_folder_has_the_rate_of_the_system(tmp_path):
    for number, frame in enumerate(clip(6)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    settings = replace(SMALL, sampling="all", source_fps=3.0)

    loaded = read_video(media, settings, tmp_path, {"start_s": 1.0}, branch="video")

    assert numbers(loaded.values, settings) == [3, 4, 5]
    assert loaded.times_s == pytest.approx((1.0, 4 / 3, 5 / 3))


def test_short_videos_repeat_frames_in_place_of_black_ones():
    settings = replace(SMALL, sampling="middle", num_frames=5)

    assert numbers(read_video(media, settings, clip(3), {}, branch="video").values, settings) == [0, 1, 1, 1, 2]


def test_limits_reach_the_door():
    for read, source in ((read_video, clip(2)), (read_image, clip(1)[0])):
        with pytest.raises(MediaError, match=r"Limits\.pixels"):
            read(media, SMALL, source, {"limits": media.Limits(pixels=10)}, branch="video")


def test_a_wrong_word_in_the_yaml_is_named():
    with pytest.raises(ConfigError, match="resample"):
        parse(Frames, {"resample": "nearest"}, "media")


def test_published_code_drops_transparency():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    settings = Frames(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    assert read_image(media, settings, clear, {}, branch="video").values.min() == 1
    published = read_image(media, settings, clear, {}, branch="video", quirks=("drop_transparency",))
    assert published.values.max() == 0
    video = read_video(media, settings, [clear] * 2, {}, branch="video", quirks=("drop_transparency",))
    assert video.values.max() == 0
