import random

import numpy as np
import pytest
import torch

from avllm.data.crop import draw_box, random_crop
from avllm.media import crop_and_resize

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_boxes_keep_their_share_and_stay_inside():
    rng = random.Random(0)
    for _ in range(200):
        top, left, height, width = draw_box(40, 60, (0.5, 1.0), rng)
        assert 0 <= top <= 40 - height
        assert 0 <= left <= 60 - width
        assert 0.45 <= height * width / (40 * 60) <= 1.0


def test_normalised_frames_give_what_pixels_give():
    pixels = np.random.default_rng(0).integers(60, 200, (2, 8, 8, 3)).astype(np.float32)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    frames = ((torch.from_numpy(pixels) / 255 - mean) / std).movedim(-1, 1)

    cut = random_crop(frames, (0.5, 0.6), 3, mean=MEAN, std=STD)

    box = draw_box(8, 8, (0.5, 0.6), random.Random(3))
    expected = (torch.from_numpy(crop_and_resize(pixels, box, (8, 8)).clip(0, 255)) / 255 - mean) / std
    assert cut.numpy() == pytest.approx(expected.movedim(-1, 1).numpy(), abs=1e-4)


def test_overshoot_stays_in_the_range_of_pixels():
    frames = (torch.rand(1, 3, 8, 8).round() - 0.5) / 0.2

    cut = random_crop(frames, (0.5, 0.6), 0, mean=(0.5,) * 3, std=(0.2,) * 3)

    assert float(cut.abs().max()) <= 2.5 + 1e-6
