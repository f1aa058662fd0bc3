"""A random cut of the picture, the same in all frames of a clip: the augmentation of the published recipes."""

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from avllm.media import crop_and_resize

ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


def draw_box(height: int, width: int, share: tuple[float, float], rng: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a cut.

    Source: torchvision's `RandomResizedCrop`, by LAVIS with shares of 0.5 to 1.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        share: smallest and largest share of its area.
        rng: what is drawn from.
    """
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*share)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return 0, 0, height, width


def random_crop(
    frames: Float[Tensor, "t c h w"],
    share: tuple[float, float],
    seed: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "t c h w"]:
    """Cuts a box out of all frames and enlarges it to their size.

    Interpolation is linear in the values, so normalised frames give what pixels would; the range of pixels is kept,
    where the published code lets bicubic overshoot wrap around.

    Args:
        frames: normalised.
        share: smallest and largest share of the area.
        seed: of the cut.
        mean: of the normalisation, per channel.
        std: of the normalisation, per channel.
    """
    height, width = frames.shape[2:]
    box = draw_box(height, width, share, random.Random(seed))
    pixels = np.ascontiguousarray(rearrange(frames, "t c h w -> t h w c").numpy())
    cut = rearrange(torch.from_numpy(crop_and_resize(pixels, box, (height, width))), "t h w c -> t c h w")
    means, stds = (rearrange(torch.tensor(values), "c -> c 1 1") for values in (mean, std))
    return cut.clamp(-means / stds, (1 - means) / stds).contiguous()
