"""Pictures to the size that an encoder takes, beside torch's and transformers' own."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate as torch_interpolate
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from avllm.errors import MediaError
from avllm.media import Fit, Limits, Sampling, fit_picture, open_image, open_video, write_video
from avllm.media.fit import interpolate

LIMITS = Limits()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def columns(width: int) -> np.ndarray:
    """A picture of height 4 whose values are the numbers of its columns."""
    return np.tile(np.arange(width, dtype=np.uint8)[None, :, None], (4, 1, 3))


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "to"), [((50, 80), (21, 33)), ((37, 91), (64, 70)), ((720, 1281), (56, 100))])
def test_float_kernels_are_those_of_torch(kernel, size, to):
    values = picture(*size).astype(np.float32)

    ours = interpolate(interpolate(values, 0, to[0], kernel), 1, to[1], kernel)

    channels_first = torch.from_numpy(values).movedim(-1, 0)[None]
    theirs = torch_interpolate(channels_first, size=to, mode=kernel)[0].movedim(0, -1).numpy()
    assert np.abs(ours - theirs).max() < 5e-4  # of 255


@pytest.mark.parametrize("size", [(40, 30), (26, 50), (21, 21), (9, 70)])
def test_bicubic_is_that_of_the_image_processors(size):
    image = picture(*size)
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    clip = CLIPImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 21, "width": 21}, **plain)
    siglip = SiglipImageProcessorPil(size={"height": 21, "width": 21}, **plain)

    for resize, processor in (("crop", clip), ("squash", siglip)):
        ours = fit_picture(image, Fit(size=(21, 21), resize=resize, resample="bicubic"), LIMITS)
        theirs = processor(image, **plain)["pixel_values"][0].transpose(1, 2, 0)
        assert np.array_equal(ours, theirs.astype(np.uint8))


@pytest.mark.parametrize(("width", "floor", "even"), [(7, 1, 2), (9, 2, 2), (6, 1, 1)])
@pytest.mark.parametrize("resample", ["bicubic", "float_bicubic", "float_bilinear"])
def test_a_crop_begins_where_it_is_told(width, floor, even, resample):
    for offset, first in (("floor", floor), ("round", even)):
        how = Fit(size=(4, 4), resize="crop", resample=resample, crop_offset=offset)
        assert fit_picture(columns(width), how, LIMITS)[0, :, 0].tolist() == list(range(first, first + 4))


def test_bars_are_added_before_resizing_in_their_colour():
    how = Fit(size=(40, 40), resize="pad", resample="bicubic", pad_color=(122, 116, 104))
    image = picture(11, 40)

    padded = fit_picture(image, how, LIMITS)

    assert np.array_equal(padded[14:25], image)  # (40 - 11) // 2 above
    assert (padded[:14] == (122, 116, 104)).all()
    assert (padded[25:] == (122, 116, 104)).all()
    half = fit_picture(image, Fit(size=(20, 20), resize="pad", resample="bicubic", pad_color=(255, 0, 0)), LIMITS)
    assert 0 < half[6, :, 1].max() < 255  # picture and bar are mixed where they meet


def test_floats_overshoot_and_bytes_do_not():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255

    floats = fit_picture(edge, Fit(size=(21, 21), resample="float_bicubic"), LIMITS)

    assert floats.dtype == np.float32
    assert floats.min() < 0 < 255 < floats.max()
    assert fit_picture(edge, Fit(size=(21, 21), resample="bicubic"), LIMITS).dtype == np.uint8


def test_a_long_narrow_picture_is_refused_before_memory_is_taken():
    line = np.zeros((1, 5000, 3), np.uint8)
    for resize in ("crop", "pad"):
        with pytest.raises(MediaError, match=r"Limits\.pixels"):
            fit_picture(line, Fit(size=(64, 64), resize=resize, resample="bicubic"), Limits(pixels=64 * 5000))
    # Only what remains of a crop is computed in floats.
    how = Fit(size=(64, 64), resize="crop", resample="float_bilinear")
    assert fit_picture(line, how, Limits(pixels=64 * 5000)).shape == (64, 64, 3)


@pytest.mark.parametrize("resample", ["bicubic", "float_bicubic", "float_bilinear"])
def test_a_file_gives_what_its_frames_give(tmp_path, resample):
    path = write_video(tmp_path / "a.mp4", [picture(48, 64, seed) for seed in range(4)], 8)
    plain = open_video(path, Sampling(kind="all"))
    options = {"resize": "crop", "resample": resample, "crop_offset": "round"}

    video = open_video(path, Sampling(kind="all"), size=(21, 21), **options)

    expected = [fit_picture(frame, Fit(size=(21, 21), **options), LIMITS) for frame in plain.frames]
    assert np.array_equal(video.frames, np.stack(expected))
    image = open_image(plain.frames[0], size=(21, 21), **options)
    assert np.array_equal(image.frames[0], expected[0])


def test_floats_count_four_bytes():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    limits = Limits(video_bytes=2 * 4 * 4 * 3 * 4)
    open_video(frames, size=(4, 4), resample="float_bicubic", limits=limits)
    with pytest.raises(MediaError, match=r"Limits\.video_bytes"):
        open_video(frames, size=(4, 5), resample="float_bicubic", limits=limits)


def test_a_size_of_nothing():
    with pytest.raises(MediaError, match=r"size: expected \(height, width\) of at least 1, got \(0, 4\)"):
        open_image(picture(4, 4), size=(0, 4))
