"""Stage 0 of the eyes: a small EVA-CLIP and its frame Q-Former learn to write down what a frame shows.

Everything that turns features into answers here (heads, text tower) is thrown away; the encoder and the Q-Former stay.
"""

import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from avllm.connectors.qformer import FrameQFormer
from avllm.encoders.eva_clip import EvaClip
from avllm.nano.fitting import Progress, fit, grid_positions, start_wide, write_metrics, write_weights
from avllm.nano.vision_frames import NO_NAME, NOTHING, NUM_SLOTS, FrameBatch, draw_frames
from avllm.nano.world import COLOURS, Split, scene_rng

log = logging.getLogger(__name__)

NUM_CLASSES, NUM_COLOURS, NUM_PLACES = NOTHING + 1, len(COLOURS), 3
EMPTY_PATCH_WEIGHT = 0.2
# Parts inside a nano system's weights.
ENCODER, FRAME_QFORMER = "branches.video.encoder", "branches.video.connector.frame_qformer"
FILE = "vision.safetensors"


def encoder_config() -> EvaClip.Config:
    """nano's EVA-CLIP, as in configs/nano.yaml."""
    return EvaClip.Config(image_size=48, patch_size=8, width=96, depth=4, num_heads=4, mlp_ratio=4.0)


def frame_qformer_config() -> FrameQFormer.Config:
    """nano's Q-Former per frame, as in configs/nano.yaml."""
    return FrameQFormer.Config(num_queries=4, width=96, depth=2, num_heads=4, mlp_width=384, cross_every=1, dropout=0.0)


class FrameWriter(nn.Module):
    """Encoder and frame Q-Former under heads that make them write a frame.

    Queries 0 and 2 say which thing is left and right; queries 1 and 3 its colour, place and size, so that what says
    the thing needs no colour. Every patch says the same of the thing that covers it: dense answers teach a small ViT
    several times faster than one answer per frame. The class token meets a text tower in a contrast, as in CLIP.
    """

    def __init__(self, encoder: EvaClip.Config, frame_qformer: FrameQFormer.Config) -> None:
        super().__init__()
        self.encoder = encoder.build()
        self.frame_qformer = frame_qformer.build(context_width=encoder.width)
        for part in (self.encoder, self.frame_qformer):
            start_wide(part)
        nn.init.normal_(self.frame_qformer.query_tokens)
        rows, columns = self.encoder.stored_grid
        with torch.no_grad():
            self.encoder.positions[0, 1:] = grid_positions(rows, columns, encoder.width)
        self.thing = nn.Linear(frame_qformer.width, NUM_CLASSES)
        self.look = nn.Linear(frame_qformer.width, NUM_COLOURS + NUM_PLACES)
        self.patch = nn.Linear(encoder.width, NUM_CLASSES + NUM_COLOURS + NUM_PLACES)
        self.thing_said = nn.Embedding(NUM_CLASSES, frame_qformer.width)
        self.look_said = nn.Sequential(
            nn.Linear(3 + NUM_PLACES + 1, 128), nn.GELU(), nn.Linear(128, frame_qformer.width)
        )
        self.picture = nn.Linear(encoder.width, encoder.width)
        self.words = nn.Embedding(NUM_SLOTS * (NUM_CLASSES + NUM_COLOURS + 1), encoder.width)
        self.text = nn.Sequential(nn.GELU(), nn.Linear(encoder.width, encoder.width))
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = torch.stack([(x + 0.5) / columns, (y + 0.5) / rows], dim=-1)
        self.register_buffer("centres", rearrange(centres, "h w k -> (h w) k"), persistent=False)
        self.centres: Tensor

    def features(self, frames: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n p d"], Float[Tensor, "n q d2"]]:
        """The encoder's tokens and the Q-Former's queries."""
        tokens = rearrange(self.encoder(rearrange(frames, "n c h w -> n 1 c h w")), "n 1 p d -> n p d")
        return tokens, self.frame_qformer(tokens)

    def write(
        self, queries: Float[Tensor, "n q d"]
    ) -> tuple[Float[Tensor, "n 2 k"], Float[Tensor, "n 2 c"], Float[Tensor, "n 2 3"]]:
        """Logits of thing and colour, and the place, of both slots."""
        look = self.look(queries[:, 1::2])
        return self.thing(queries[:, 0::2]), look[..., :NUM_COLOURS], look[..., NUM_COLOURS:]

    def losses(self, batch: FrameBatch) -> dict[str, Float[Tensor, ""]]:
        """All terms of one batch."""
        tokens, queries = self.features(batch.frames)
        thing, colour, place = self.write(queries)
        is_full = batch.thing < NOTHING
        terms = {
            "thing": cross_entropy(thing.masked_fill(batch.unseen, -1e4), batch.thing),
            "colour": cross_entropy(colour, batch.colour),
            "place": 3 * F.smooth_l1_loss(place[is_full], batch.place[is_full], beta=0.1),
            "facts": self.distance_to_facts(queries, batch),
            "contrast": 0.1 * self.contrast(tokens[:, 0], batch),
        }
        return terms | self.patch_losses(tokens[:, 1:], batch, is_full)

    def distance_to_facts(self, queries: Float[Tensor, "n q d"], batch: FrameBatch) -> Float[Tensor, ""]:
        """How far the queries are from vectors made of the facts alone.

        A thing's query then has nothing of its colour, the other nothing of the thing: a layer that reads them has less
        to learn "a blue drum never occurs" from, and meets features without the noise of the picture.
        """
        is_empty = (batch.thing == NOTHING)[..., None].float()
        facts = self.look_said(torch.cat([batch.rgb, batch.place, is_empty], dim=-1))
        said = F.layer_norm(torch.stack([self.thing_said(batch.thing), facts], dim=2), queries.shape[-1:])
        return F.mse_loss(queries, rearrange(said, "n k two d -> n (k two) d"))

    def patch_losses(
        self, tokens: Float[Tensor, "n p d"], batch: FrameBatch, is_full: Bool[Tensor, "n 2"]
    ) -> dict[str, Float[Tensor, ""]]:
        """What each patch says of the thing whose box holds its centre: thing, colour, way to the middle, size."""
        middle = (batch.place[..., :2] + 1) / 2
        way = rearrange(middle, "n k xy -> n k 1 xy") - self.centres  # [n 2 p 2]
        covers = (way.abs() < rearrange(batch.radius, "n k xy -> n k 1 xy")).all(-1) & is_full[..., None]
        thing = torch.full(covers[:, 0].shape, NOTHING)
        colour = torch.full_like(thing, NO_NAME)
        place = torch.zeros(*thing.shape, NUM_PLACES)
        for slot in range(NUM_SLOTS):
            here = covers[:, slot]
            size = repeat(batch.place[:, slot, 2:], "n 1 -> n p 1", p=thing.shape[1])
            thing = torch.where(here, batch.thing[:, slot, None], thing)
            colour = torch.where(here, batch.colour[:, slot, None], colour)
            place = torch.where(here[..., None], torch.cat([4 * way[:, slot], size], dim=-1), place)
        said = self.patch(tokens)
        unseen = (covers[..., None] & rearrange(batch.unseen, "n k c -> n k 1 c")).any(1)
        weight = torch.ones(NUM_CLASSES)
        weight[NOTHING] = EMPTY_PATCH_WEIGHT
        is_thing = thing < NOTHING
        said_colour, said_place = said[..., NUM_CLASSES:-NUM_PLACES], said[..., -NUM_PLACES:]
        return {
            "patch_thing": 2 * cross_entropy(said[..., :NUM_CLASSES].masked_fill(unseen, -1e4), thing, weight),
            "patch_colour": 0.5 * cross_entropy(said_colour, colour),
            "patch_place": F.smooth_l1_loss(said_place[is_thing], place[is_thing], beta=0.1),
        }

    def contrast(self, class_token: Float[Tensor, "n d"], batch: FrameBatch) -> Float[Tensor, ""]:
        """Symmetric contrast of pictures and their words; pictures with the same words are all right answers."""
        colour = batch.colour.where(batch.colour >= 0, torch.tensor(NUM_COLOURS))
        slot = torch.arange(NUM_SLOTS) * (NUM_CLASSES + NUM_COLOURS + 1)
        words = torch.cat([slot + batch.thing, slot + NUM_CLASSES + colour], dim=1)
        texts = F.normalize(self.text(self.words(words).sum(1)), dim=-1)
        logits = 10 * F.normalize(self.picture(class_token), dim=-1) @ texts.T
        same = (words[:, None] == words[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def cross_entropy(
    logits: Float[Tensor, "n k c"], target: Int[Tensor, "n k"], weight: Float[Tensor, " c"] | None = None
) -> Float[Tensor, ""]:
    """Cross entropy over all slots or patches; zero when nothing has a label."""
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight=weight, reduction="sum")
    known = target.flatten()[target.flatten() >= 0]
    total = len(known) if weight is None else weight[known].sum()
    return loss / max(float(total), 1.0)


def train_vision(
    out_dir: Path,
    *,
    seed: int = 0,
    steps: int = 2000,
    batch: int = 96,
    lr: float = 1.2e-3,
    quick: bool = False,
    progress: Progress | None = None,
    encoder: EvaClip.Config | None = None,
    frame_qformer: FrameQFormer.Config | None = None,
) -> dict[str, float]:
    """Trains encoder and frame Q-Former on frames never shown twice and writes `vision.safetensors`.

    Args:
        out_dir: also gets vision.json (metrics), vision.csv, vision.png and the checkpoint to resume from.
        steps: of `batch` frames.
        quick: one to two minutes, for tests of the whole recipe (thing 50 %, colour 100 %).

    Returns:
        The metrics of `measure_vision` on training pairs and, prefixed `held_out_`, on pairs never shown.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if quick:
        steps, batch = min(steps, 500), min(batch, 64)
    torch.manual_seed(seed)
    encoder = encoder or encoder_config()
    model = FrameWriter(encoder, frame_qformer or frame_qformer_config())

    def losses(step: int) -> dict[str, Tensor]:
        return model.losses(draw_frames(scene_rng("vision", seed, step), batch, size=encoder.image_size))

    seconds = fit("vision", model, losses, out_dir=out_dir, steps=steps, lr=lr, progress=progress)
    metrics = {"steps": steps, "seconds": round(seconds, 1), **measure_vision(model, size=encoder.image_size)}
    held_out = measure_vision(model, size=encoder.image_size, split="held_out")
    metrics |= {f"held_out_{key}": value for key, value in held_out.items()}
    write_weights(out_dir / FILE, {ENCODER: model.encoder, FRAME_QFORMER: model.frame_qformer})
    write_metrics(out_dir / "vision.json", metrics)
    log.info("vision: %s", metrics)
    return metrics


@torch.inference_mode()
def measure_vision(model: FrameWriter, *, size: int, num: int = 1000, split: Split = "train") -> dict[str, float]:
    """What linear heads read off the Q-Former's queries on fresh frames: shares right, and R2 of place and size."""
    batch = draw_frames(scene_rng("measure_vision", 0), num, size=size, split=split, unnamed=0.0, two=0.5, damage=False)
    thing, colour, place = (
        torch.cat(parts)
        for parts in zip(*(model.write(model.features(f)[1]) for f in batch.frames.split(100)), strict=True)
    )
    is_full = batch.thing < NOTHING
    is_two = repeat(is_full.all(1), "n -> n k", k=NUM_SLOTS)
    right = {"thing": thing.argmax(-1) == batch.thing, "colour": colour.argmax(-1) == batch.colour}
    places = {
        "one": is_full & ~is_two,
        "left": is_two & torch.tensor([True, False]),
        "right": is_two & torch.tensor([False, True]),
    }
    metrics = {
        f"{what}_{where}": hit[mask].float().mean().item()
        for what, hit in right.items()
        for where, mask in places.items()
        if mask.any()
    }
    metrics["present"] = ((thing.argmax(-1) < NOTHING) == is_full).all(1).float().mean().item()
    said, true = place[is_full], batch.place[is_full]
    r2 = 1 - (said - true).square().sum(0) / (true - true.mean(0)).square().sum(0)
    metrics |= {f"{name}_r2": value for name, value in zip(("x", "y", "size"), r2.tolist(), strict=True)}
    return {key: round(value, 4) if math.isfinite(value) else value for key, value in metrics.items()}
