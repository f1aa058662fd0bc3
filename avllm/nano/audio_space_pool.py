"""Pictures and sounds for the shared space: segments cut at any moment from sound tracks that went through AAC."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from avllm.media import log_mel, open_audio, write_audio
from avllm.nano.sound import render_audio
from avllm.nano.vision_frames import NOTHING
from avllm.nano.world import THINGS, Scene, scene_rng
from avllm.nano.world_sampling import sample_scene

SAMPLE_RATE = 16_000
HOP_S = 0.01  # one mel frame
SEGMENT_S, NUM_FRAMES, NUM_MEL_BINS = 0.5, 48, 64
MEAN, STD = -4.268, 9.138
# A segment is of a sound that fills this share of it, and silent below the other; between them it is not used.
HEARD_FROM, SILENT_BELOW = 0.35, 0.15
BIT_RATES = (24_000, 32_000, 48_000, 64_000, 96_000)
RAW_SHARE = 0.15


@dataclass(frozen=True)
class Track:
    """The log-mel frames of one clip's whole sound, normalised, and its truth."""

    mel: Float[Tensor, "n f"]
    scene: Scene


def fills(scene: Scene, start_s: float) -> Float[np.ndarray, " k"]:
    """The share of the segment at `start_s` that each of the scene's sounds fills."""
    ends = (min(s.start_s + s.seconds, start_s + SEGMENT_S) - max(s.start_s, start_s) for s in scene.sounds)
    return np.array([max(shared, 0.0) / SEGMENT_S for shared in ends])


def segment_class(scene: Scene, start_s: float) -> int | None:
    """The thing that is heard, `NOTHING` for silence, None for a segment that is neither."""
    shares = fills(scene, start_s)
    if not len(shares) or shares.max() < SILENT_BELOW:
        return NOTHING
    if shares.max() < HEARD_FROM:
        return None
    return THINGS.index(scene.sounds[int(shares.argmax())].name)


def draw_tracks(purpose: str, seed: int, num: int) -> list[Track]:
    """Sound tracks of `num` fresh scenes, most of them after an AAC round trip at 24 to 96 kb/s."""
    tracks = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(num):
            rng = scene_rng(purpose, seed, index)
            scene = sample_scene(rng, num_things=0, num_sounds=int(rng.choice(4, p=(0.05, 0.25, 0.4, 0.3))))
            tracks.append(Track(track_mel(_round_trip(rng, scene, Path(folder))), scene))
    return tracks


def _round_trip(rng: np.random.Generator, scene: Scene, folder: Path) -> Float32[np.ndarray, " s"]:
    wave = render_audio(scene, SAMPLE_RATE)
    if rng.random() < RAW_SHARE:
        return wave
    path = write_audio(folder / "track.m4a", wave, SAMPLE_RATE, bit_rate=int(rng.choice(BIT_RATES)))
    return open_audio(path, sample_rate=SAMPLE_RATE).waveform.mean(0)


def track_mel(wave: Float32[np.ndarray, " s"]) -> Float[Tensor, "n f"]:
    """Normalised log-mel frames of a whole track.

    A frame depends on its own 25 ms alone, so any 48 frames in a row are what a segment cut there would give.
    """
    mel = torch.from_numpy(np.ascontiguousarray(log_mel(wave, SAMPLE_RATE, NUM_MEL_BINS)))
    return (mel - MEAN) / STD


def draw_segments(
    rng: np.random.Generator, tracks: list[Track], num: int
) -> tuple[Float[Tensor, "n 1 f t"], Int[Tensor, " n"]]:
    """Segments at random moments of random tracks, a little louder or softer, with what is heard in them."""
    segments, classes = [], []
    while len(segments) < num:
        track = tracks[rng.integers(len(tracks))]
        first = int(rng.integers(len(track.mel) - NUM_FRAMES + 1))
        kind = segment_class(track.scene, first * HOP_S)
        if kind is None or (kind == NOTHING and rng.random() < 0.5):  # silence is the commonest
            continue
        segments.append(track.mel[first : first + NUM_FRAMES].T + float(rng.uniform(-0.15, 0.15)))
        classes.append(kind)
    return torch.stack(segments)[:, None], torch.tensor(classes)
