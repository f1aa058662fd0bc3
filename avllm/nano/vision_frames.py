"""Frames with the truth about what is where in them, drawn fresh for every step of stage 0."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from avllm.nano.render import path, render_frames
from avllm.nano.world import COLOURS, HELD_OUT, THINGS, Scene, Split, nearest_colour
from avllm.nano.world_sampling import sample_scene

NOTHING = len(THINGS)  # class of an empty place
NO_NAME = -100  # colour class of a thing whose colour has no name; ignored by cross entropy
NUM_SLOTS = 2
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZE_RANGE = (0.09, 0.30)  # radii that become 0..1 on a log scale


@dataclass(frozen=True)
class FrameBatch:
    """Frames and, for up to two things from left to right, what they are.

    Args:
        frames: normalised RGB.
        thing: index into THINGS, `NOTHING` for an empty slot.
        colour: index into COLOURS, `NO_NAME` where there is none.
        place: x, y in -1..1 and log size in -1..1.
        radius: half width and half height as fractions of the frame.
        rgb: what colour a thing has, in 0..1.
        unseen: things that training never shows in this slot's colour. A loss that counts them as wrong answers
            teaches "blue, hence no drum" in place of shapes.
    """

    frames: Float[Tensor, "n 3 h w"]
    thing: Int[Tensor, "n 2"]
    colour: Int[Tensor, "n 2"]
    place: Float[Tensor, "n 2 3"]
    radius: Float[Tensor, "n 2 2"]
    rgb: Float[Tensor, "n 2 3"]
    unseen: Bool[Tensor, "n 2 k"]


def normalise(frames: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels to what the encoders take."""
    pixels = torch.from_numpy(frames).float() / 255
    pixels = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    return rearrange(pixels, "n h w c -> n c h w").contiguous()


def draw_frames(
    rng: np.random.Generator,
    num: int,
    *,
    size: int,
    split: Split = "train",
    unnamed: float = 0.6,
    two: float = 0.45,
    empty: float = 0.06,
    damage: bool = True,
) -> FrameBatch:
    """Draws `num` frames, two moments of each scene.

    Args:
        size: side in pixels.
        split: as in `sample_scene`.
        unnamed: share of things in a random colour without a name.
        two: share of scenes with two things, except of the split "held_out".
        empty: share of scenes with none, likewise.
        damage: whether to blur, rescale and grey some frames.
    """
    scenes, times = [], []
    for _ in range(-(-num // 2)):
        many = int(rng.choice(3, p=(empty, 1 - empty - two, two))) if split != "held_out" else None
        scene = sample_scene(rng, split=split, num_things=many, num_sounds=0, unnamed=unnamed)
        scenes.append(scene)
        # Moments past the middle are likelier: only there are both things seen.
        times.append(scene.duration_s * rng.uniform(0, 1, 2) ** (0.6 if many == 2 else 1.0))
    moments = np.array(times)
    pixels = rearrange(render_frames(scenes, moments, size), "b t h w c -> (b t) h w c")[:num]
    labels = [frame_truth(scene, moment) for scene, row in zip(scenes, moments, strict=True) for moment in row][:num]
    batch = FrameBatch(normalise(pixels), *(torch.from_numpy(np.stack(part)) for part in zip(*labels, strict=True)))
    return _damage(rng, batch) if damage else batch


def frame_truth(scene: Scene, moment: float) -> tuple[np.ndarray, ...]:
    """thing [2], colour [2], place [2 3], radius [2 2], rgb [2 3], unseen [2 k] of one frame, from left to right."""
    thing, colour = np.full(NUM_SLOTS, NOTHING), np.full(NUM_SLOTS, NO_NAME)
    place, radius = np.zeros((NUM_SLOTS, 3), np.float32), np.zeros((NUM_SLOTS, 2), np.float32)
    rgb = np.zeros((NUM_SLOTS, 3), np.float32)
    unseen = np.zeros((NUM_SLOTS, NOTHING + 1), bool)
    seen = []
    for item in scene.things:
        stays = item.leaves_s >= scene.duration_s
        if moment >= item.appears_s and (stays or moment < item.leaves_s):
            x, y, size = (float(v[0]) for v in path(item, np.array([moment / scene.duration_s])))
            seen.append((x, y, size, item))
    low, high = np.log(SIZE_RANGE)
    for slot, (x, y, size, item) in enumerate(sorted(seen, key=lambda entry: entry[0])):
        thing[slot] = THINGS.index(item.name)
        colour[slot] = list(COLOURS).index(item.colour) if item.colour else NO_NAME
        place[slot] = (2 * x - 1, 2 * y - 1, 2 * (np.log(size) - low) / (high - low) - 1)
        radius[slot] = (size * scene.aspect**-0.5, size * scene.aspect**0.5)
        rgb[slot] = np.array(item.rgb) / 255
        near = item.colour or nearest_colour(item.rgb)
        unseen[slot, [THINGS.index(t) for t, c in HELD_OUT if c == near and t != item.name]] = True
    return thing, colour, place, radius, rgb, unseen


def _damage(rng: np.random.Generator, batch: FrameBatch) -> FrameBatch:
    """Blurs a third (as compression and rescaling do), rescales a fifth, greys a quarter, varies exposure of all."""
    frames, colour, rgb, unseen = (x.clone() for x in (batch.frames, batch.colour, batch.rgb, batch.unseen))
    num, size = len(frames), frames.shape[-1]
    blurred = torch.from_numpy(rng.random(num) < 0.33)
    if blurred.any():
        side = float(np.exp(-0.5 / rng.uniform(0.3, 0.9) ** 2))
        kernel = torch.tensor([side, 1.0, side]) / (1 + 2 * side)
        weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
        frames[blurred] = F.conv2d(F.pad(frames[blurred], (1, 1, 1, 1), mode="replicate"), weight, groups=3)
    rescaled = torch.from_numpy(rng.random(num) < 0.2)
    if rescaled.any():
        middle = int(rng.integers(int(size * 0.6), 2 * size))
        small = F.interpolate(frames[rescaled], size=middle, mode="bilinear", antialias=True)
        frames[rescaled] = F.interpolate(small, size=size, mode="bilinear", antialias=True)
    grey = torch.from_numpy(rng.random(num) < 0.25)
    frames[grey] = frames[grey].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    rgb[grey] = rgb[grey].mean(dim=-1, keepdim=True).expand(-1, -1, 3)
    colour[grey], unseen[grey] = NO_NAME, False
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (num, 1, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.normal(0, 0.05, (num, 3, 1, 1)).astype(np.float32))
    return replace(batch, frames=frames * gain + shift, colour=colour, rgb=rgb, unseen=unseen)
