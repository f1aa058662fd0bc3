"""Stage 0 of the ears: a small ImageBind in whose space the picture of a thing and its sound are one direction."""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from avllm.encoders.imagebind import AudioConfig, ImageBind, VisionConfig
from avllm.nano.audio_space_pool import (
    HEARD_FROM,
    HOP_S,
    NUM_FRAMES,
    NUM_MEL_BINS,
    Track,
    draw_segments,
    draw_tracks,
    fills,
    right_answers,
)
from avllm.nano.fitting import Progress, fit, grid_positions, start_wide, write_metrics, write_weights
from avllm.nano.vision import ENCODER as VISION_ENCODER
from avllm.nano.vision_frames import NOTHING, draw_frames
from avllm.nano.world import THINGS, Split, scene_rng

log = logging.getLogger(__name__)

NUM_CLASSES = len(THINGS) + 1  # the last is a picture of nothing, and silence
CONTRAST_SCALE = 12.0
FILE, ENCODER = "audio_space.safetensors", "branches.audio.encoder"


def imagebind_config() -> ImageBind.Config:
    """nano's ImageBind, as in configs/nano.yaml. Sounds are as long as pictures here: a branch meets one scale."""
    return ImageBind.Config(
        width=32,
        vision=VisionConfig(image_size=48, patch_size=8, clip_frames=2, width=96, depth=4, num_heads=4),
        audio=AudioConfig(
            num_mel_bins=NUM_MEL_BINS,
            num_frames=NUM_FRAMES,
            kernel_size=8,
            stride=8,
            width=64,
            depth=3,
            num_heads=4,
            logit_scale=1.0,
        ),
    )


class SharedSpace(nn.Module):
    """ImageBind with one anchor for the name of each thing and one for nothing, in place of its text trunk.

    Contrast alone leaves pictures and sounds of one thing apart (the modality gap); both are pulled to the anchor of
    its name as well, so that what is learned on pictures holds for sounds.
    """

    def __init__(self, config: ImageBind.Config) -> None:
        super().__init__()
        self.imagebind = config.build()
        start_wide(self.imagebind)
        audio, vision = self.imagebind.audio, self.imagebind.vision
        assert audio is not None
        assert vision is not None
        rows, columns = (
            (size - audio.config.kernel_size) // audio.config.stride + 1
            for size in (audio.config.num_mel_bins, audio.config.num_frames)
        )
        with torch.no_grad():
            audio.positions[0, 1:] = grid_positions(rows, columns, audio.config.width)
            vision.positions[0, 1:] = grid_positions(*vision.stored_grid, vision.config.width)
        # Orthonormal and fixed: all classes are equally far from each other.
        self.register_buffer("anchors", nn.init.orthogonal_(torch.empty(NUM_CLASSES, config.width)))
        self.anchors: Tensor

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Lets the vision trunk start from a trained EVA-CLIP of its own sizes; the norms at both ends are new."""
        vision = self.imagebind.vision
        assert vision is not None
        own = vision.state_dict()
        taken = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
        for index in range(vision.config.depth):
            # EVA's keys have no bias.
            q_bias, v_bias = (weights[f"blocks.{index}.attention.{name}_bias"] for name in "qv")
            taken[f"blocks.{index}.attention.qkv.bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        kernel = own["patches.weight"]
        still = rearrange(weights["patches.weight"], "d c h w -> d c 1 h w") / kernel.shape[2]
        taken["patches.weight"] = still.expand_as(kernel).contiguous()
        # The convolution of ImageBind has no bias; the positions of the patches carry it.
        bias = torch.cat(
            [torch.zeros_like(taken["positions"][:, :1]), weights["patches.bias"].expand_as(taken["positions"][:, 1:])],
            dim=1,
        )
        vision.load_state_dict(own | taken | {"positions": taken["positions"] + bias})

    def losses(
        self,
        frames: Float[Tensor, "n 3 h w"],
        seen: Int[Tensor, " n"],
        unseen: Bool[Tensor, "n k"],
        segments: Float[Tensor, "m 1 f t"],
        heard: Bool[Tensor, "m k"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Both modalities against the anchors, and against each other; `heard` marks every right answer."""
        pictures = rearrange(self.imagebind.encode_vision(frames[:, None]), "n 1 1 d -> n d")
        sounds = F.normalize(rearrange(self.imagebind(segments[:, None]), "m 1 1 d -> m d"), dim=-1)
        is_clear = heard.sum(1) == 1
        names = heard[is_clear].int().argmax(1)
        # A picture in a colour that its sound's thing is never shown in is no evidence against that thing.
        to_sounds = (CONTRAST_SCALE * pictures @ sounds[is_clear].T).masked_fill(unseen[:, names], -1e4)
        same = (seen[:, None] == names[None]).float()
        to_names, from_names = pictures @ self.anchors.T, sounds @ self.anchors.T
        right = F.one_hot(seen, NUM_CLASSES).bool()
        return {
            "vision": named(to_names.masked_fill(unseen, -1e2), right),
            "audio": named(from_names, heard),
            "vision_pull": 1 - to_names[right].mean(),
            # An edge goes to the nearer of its answers: between them is nothing that a picture ever gives.
            "audio_pull": 1 - from_names.masked_fill(~heard, -1).amax(1).mean(),
            "contrast": 0.25 * (matching(to_sounds, same) + matching(to_sounds.T, same.T)),
        }


def named(cosines: Float[Tensor, "n k"], right: Bool[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Cross entropy over the anchors with the sum of all right answers' probabilities."""
    logits = CONTRAST_SCALE * cosines
    return (logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)).mean()


def matching(logits: Float[Tensor, "n m"], same: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """Cross entropy with every partner of the same class as a right answer; rows without one are left out."""
    has_partner = same.sum(1) > 0
    target = same[has_partner] / same[has_partner].sum(1, keepdim=True)
    return F.cross_entropy(logits[has_partner], target)


def draw_pictures(
    seed: int,
    step: int,
    num: int,
    *,
    size: int,
    split: Split = "train",
    purpose: str = "audio_space",
    damage: bool = True,
) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"], Bool[Tensor, "n k"]]:
    """Pictures of one thing or of nothing, and what is in them."""
    rng = scene_rng(purpose, seed, step)
    batch = draw_frames(
        rng, num, size=size, split=split, two=0.0, empty=0.12, unnamed=0.6 if damage else 0.0, damage=damage
    )
    is_one = batch.thing[:, 1] == NOTHING
    return batch.frames[is_one], batch.thing[is_one, 0], batch.unseen[is_one, 0]


def train_audio_space(
    out_dir: Path,
    *,
    seed: int = 0,
    steps: int = 1000,
    num_pictures: int = 64,
    num_segments: int = 128,
    num_tracks: int = 600,
    lr: float = 1e-3,
    quick: bool = False,
    vision: Path | None = None,
    progress: Progress | None = None,
    config: ImageBind.Config | None = None,
) -> dict[str, float]:
    """Trains nano's ImageBind on pictures and sounds and writes `audio_space.safetensors`.

    Args:
        out_dir: also gets audio_space.json (metrics), .csv, .png and the checkpoint to resume from.
        steps: of `num_pictures` pictures and `num_segments` segments of sound.
        num_tracks: sound tracks in the pool that segments are cut from.
        quick: about a minute, for tests of the whole recipe.
        vision: `vision.safetensors` of `train_vision`, whose encoder the vision trunk starts from.

    Returns:
        The metrics of `measure_audio_space`.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if quick:
        steps, num_tracks = min(steps, 150), min(num_tracks, 120)
    torch.manual_seed(seed)
    model = SharedSpace(config or imagebind_config())
    if vision is not None:
        prefix = f"{VISION_ENCODER}."
        model.start_from({k.removeprefix(prefix): v for k, v in load_file(vision).items() if k.startswith(prefix)})
    tracks = draw_tracks("audio_space", seed, num_tracks)
    trunk = model.imagebind.vision
    assert trunk is not None
    size = trunk.config.image_size

    def losses(step: int) -> dict[str, Tensor]:
        frames, seen, unseen = draw_pictures(seed, step, num_pictures, size=size)
        segments, heard = draw_segments(scene_rng("segments", seed, step), tracks, num_segments)
        return model.losses(frames, seen, unseen, segments, heard)

    seconds = fit("audio_space", model, losses, out_dir=out_dir, steps=steps, lr=lr, progress=progress)
    metrics = {
        "steps": steps,
        "seconds": round(seconds, 1),
        **measure_audio_space(model, size=size, num_tracks=max(2, num_tracks // 5)),
    }
    write_weights(out_dir / FILE, {ENCODER: model.imagebind})
    write_metrics(out_dir / "audio_space.json", metrics)
    log.info("audio space: %s", metrics)
    return metrics


@torch.inference_mode()
def measure_audio_space(model: SharedSpace, *, size: int, num: int = 600, num_tracks: int = 60) -> dict[str, float]:
    """Shares of fresh pictures and of segments of fresh tracks whose nearest anchor is right, and how tight they lie.

    Segments by how much of them a sound fills: `whole` all, `part` at least the share that training calls heard,
    `edge` less than that, where `edge_other` is the share read as neither silence nor a sound that is there.
    """
    metrics = {}
    for split in ("train", "held_out"):
        frames, seen, _ = draw_pictures(0, 0, num, size=size, split=split, purpose="measure_pictures", damage=False)
        vectors = torch.cat([model.imagebind.encode_vision(f[:, None])[:, 0, 0] for f in frames.split(100)])
        metrics[f"vision_{split}"] = ((vectors @ model.anchors.T).argmax(-1) == seen).float().mean().item()
        metrics[f"vision_{split}_cosine"] = (vectors * model.anchors[seen]).sum(-1).mean().item()
    kinds: dict[str, list[float]] = {}
    cosines = []
    for track in draw_tracks("measure_tracks", 0, num_tracks):
        firsts = range(0, len(track.mel) - NUM_FRAMES + 1, 7)
        segments = torch.stack([track.mel[first : first + NUM_FRAMES].T for first in firsts])
        vectors = model.imagebind(segments[:, None, None])[:, 0, 0]
        for first, vector, said in zip(firsts, vectors, (vectors @ model.anchors.T).argmax(-1).tolist(), strict=True):
            kind, right = segment_kind(track, first * HOP_S)
            kinds.setdefault(kind, []).append(said == right)
            if kind == "edge":
                kinds.setdefault("edge_other", []).append(said not in right_answers(track.scene, first * HOP_S))
            if kind in ("whole", "silent"):
                cosines.append((F.normalize(vector, dim=0) @ model.anchors[right]).item())
    metrics |= {f"audio_{kind}": sum(hits) / len(hits) for kind, hits in kinds.items()}
    metrics["audio_cosine"] = sum(cosines) / len(cosines)
    return {key: round(value, 4) for key, value in metrics.items()}


def segment_kind(track: Track, start_s: float) -> tuple[str, int]:
    """`whole`, `part`, `edge` or `silent`, and the class of the sound that fills most of the segment."""
    shares = fills(track.scene, start_s)
    if not len(shares) or shares.max() == 0:
        return "silent", NOTHING
    kind = "whole" if shares.max() > 0.999 else "part" if shares.max() >= HEARD_FROM else "edge"
    return kind, THINGS.index(track.scene.sounds[int(shares.argmax())].name)
