"""Pictures and sounds for the shared space: segments cut at any moment from sound tracks that went through AAC."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
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
# A segment is of a sound that fills this share of it. With less it may be read as that sound or as silence, but never
# as a third thing: left out of training, 5 % of such edges were. AAC smears a sound by some hundredths of a second.
HEARD_FROM, SMEAR_S = 0.35, 0.03
EDGE_SHARE = 0.35  # of the segments are cut near the start or the end of a sound
BIT_RATES = (24_000, 32_000, 48_000, 64_000, 96_000)
RAW_SHARE = 0.15
LOUD_FLOOR_SHARE = 0.35  # of the tracks: a loud noise floor alone is not to be read as a sound


@dataclass(frozen=True)
class Track:
    """The log-mel frames of one clip's whole sound, normalised, and its truth."""

    mel: Float[Tensor, "n f"]
    scene: Scene


def fills(scene: Scene, start_s: float) -> Float[np.ndarray, " k"]:
    """The share of the segment at `start_s` that each of the scene's sounds fills."""
    ends = (min(s.start_s + s.seconds, start_s + SEGMENT_S) - max(s.start_s, start_s) for s in scene.sounds)
    return np.array([max(shared, 0.0) / SEGMENT_S for shared in ends])


def right_answers(scene: Scene, start_s: float) -> list[int]:
    """The classes that the segment at `start_s` may be read as: one thing, or `NOTHING`, or at an edge both."""
    shares = fills(scene, start_s)
    if len(shares) and shares.max() >= HEARD_FROM:
        return [THINGS.index(scene.sounds[int(shares.argmax())].name)]
    ends_s = start_s + SEGMENT_S
    touched = (s for s in scene.sounds if s.start_s - SMEAR_S < ends_s and s.start_s + s.seconds + SMEAR_S > start_s)
    return [NOTHING, *(THINGS.index(sound.name) for sound in touched)]


def draw_tracks(purpose: str, seed: int, num: int) -> list[Track]:
    """Sound tracks of `num` fresh scenes, most of them after an AAC round trip at 24 to 96 kb/s."""
    tracks = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(num):
            rng = scene_rng(purpose, seed, index)
            scene = sample_scene(rng, num_things=0, num_sounds=int(rng.choice(4, p=(0.05, 0.25, 0.4, 0.3))))
            if rng.random() < LOUD_FLOOR_SHARE:
                scene = replace(scene, noise_floor=float(10 ** rng.uniform(-3.0, -2.4)))
            tracks.append(Track(track_mel(_round_trip(rng, scene, Path(folder))), scene))
    return tracks


def _round_trip(rng: np.random.Generator, scene: Scene, folder: Path) -> Float32[np.ndarray, " s"]:
    if rng.random() < RAW_SHARE:
        return render_audio(scene, SAMPLE_RATE)
    # At the rate of a clip's own file: the encoder hollows out faint noise in another way at each.
    wave = render_audio(scene, scene.sample_rate)
    path = write_audio(folder / "track.m4a", wave, scene.sample_rate, bit_rate=int(rng.choice(BIT_RATES)))
    return open_audio(path, sample_rate=SAMPLE_RATE).waveform.mean(0)


def track_mel(wave: Float32[np.ndarray, " s"]) -> Float[Tensor, "n f"]:
    """Normalised log-mel frames of a whole track.

    A frame depends on its own 25 ms alone, so any 48 frames in a row are what a segment cut there would give.
    """
    mel = torch.from_numpy(np.ascontiguousarray(log_mel(wave, SAMPLE_RATE, NUM_MEL_BINS)))
    return (mel - MEAN) / STD


def draw_segments(
    rng: np.random.Generator, tracks: list[Track], num: int
) -> tuple[Float[Tensor, "n 1 f t"], Bool[Tensor, "n k"]]:
    """Segments at random moments of random tracks, a little louder or softer, and which classes are right for each."""
    segments, answers = [], torch.zeros(num, NOTHING + 1, dtype=torch.bool)
    while len(segments) < num:
        track = tracks[rng.integers(len(tracks))]
        first = _first_frame(rng, track)
        right = right_answers(track.scene, first * HOP_S)
        if right == [NOTHING] and rng.random() < 0.5:  # silence is the commonest
            continue
        answers[len(segments), right] = True
        segments.append(track.mel[first : first + NUM_FRAMES].T + float(rng.uniform(-0.15, 0.15)))
    return torch.stack(segments)[:, None], answers


def _first_frame(rng: np.random.Generator, track: Track) -> int:
    last = len(track.mel) - NUM_FRAMES
    if not track.scene.sounds or rng.random() > EDGE_SHARE:
        return int(rng.integers(last + 1))
    sound = track.scene.sounds[rng.integers(len(track.scene.sounds))]
    filled_s = HEARD_FROM * SEGMENT_S * rng.uniform(-0.2, 1.0)
    starts_s = (sound.start_s - SEGMENT_S + filled_s, sound.start_s + sound.seconds - filled_s)
    return int(np.clip(starts_s[rng.integers(2)] / HOP_S, 0, last))
