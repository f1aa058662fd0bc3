"""Samples of nano's four stages: scenes through frozen encoders, computed once and kept, and questions drawn anew."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avllm.data.collate import IGNORED
from avllm.data.records import Record
from avllm.durable import file_whole
from avllm.media import Sampling
from avllm.model.prompts import Medium, Turn
from avllm.nano.data import NanoAudio, NanoVideo
from avllm.nano.language import FILLER, SHARES, Facts, Question, draw_questions
from avllm.nano.render import render_frames
from avllm.nano.tokenizer import slot_word_ids, word_id
from avllm.nano.world import HELD_OUT, THINGS, Scene, Sound, scene_rng
from avllm.nano.world_sampling import sample_scene

# A segment is read as a sound from some share of it on, at most this (HEARD_FROM of avllm.nano.audio_space_pool and a
# little more); less of it is silence. A share of the sounds has a ramp of at most so wide there, the others have none.
LATEST, SHARP_SHARE, WIDEST = 0.4, 0.75, 0.2
IMAGE_SHARE = 0.05  # clips of one frame: an image is a video of one frame
NAMED_SHARE = 0.3  # of clips of two things: asked for the colours of things alone, which are the last to be learned
CAPTION_KINDS, HEARING_KINDS = ("caption",), ("hearing",)
SEEN_KINDS = (
    "caption", "thing", "colour", "colour_of", "motion", "what_moves", "count", "first", "second", "sees", "joint",
    "match",
)  # fmt: skip
HEARD_KINDS = (
    "hearing", "sound_order", "sound_first", "sound_last", "sound_count", "silence", "any_sound", "hears", "joint",
    "match",
)  # fmt: skip
BLANK = len(THINGS)
CHUNK = 64


def draw_scene(seed: int, index: int, unnamed: float) -> Scene:
    """Scene number `index` of a training set: often two things, often one of each kind so that match can be asked."""
    rng = scene_rng("train", seed, index)
    draw = rng.random()
    if draw < 0.2:
        return sample_scene(rng, match=bool(rng.random() < 0.5), unnamed=unnamed)
    return sample_scene(rng, num_things=int(rng.choice(3, p=(0.05, 0.45, 0.5))), unnamed=unnamed)


def frame_times(scene: Scene, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Times of the frames that the system would take from the scene's file, with a jitter of half a frame."""
    total = max(round(scene.duration_s * scene.fps), 1)
    index = np.array(Sampling(kind="uniform", num_frames=num_frames).indices(total, scene.fps))
    return np.clip((index + rng.uniform(-0.5, 0.5)) / scene.fps, 0, None)


@torch.inference_mode()
def video_features(branch: Any, processor: Any, scenes: Sequence[Scene]) -> Float[Tensor, "n t q d"]:
    """The frozen prefix of the video branch for every scene."""
    settings = processor.branches["video"].media
    found = []
    for start in range(0, len(scenes), CHUNK):
        part = scenes[start : start + CHUNK]
        rng = np.random.default_rng([start, 5])
        times = np.stack([frame_times(scene, settings.num_frames, rng) for scene in part])
        frames = render_frames(part, times, settings.size)
        media = torch.stack([processor.normalise(clip) for clip in frames])
        found.append(branch.features(media, "own").half())
    return torch.cat(found)


@torch.inference_mode()
def picture_vectors(branch: Any, processor: Any, num: int, seed: int, unnamed: float) -> dict[str, Tensor]:
    """`vectors` [n d] of pictures of one thing or none through the vision trunk, and which: `thing` [n]."""
    size = processor.branches["video"].media.size
    vectors, things = [], []
    for start in range(0, num, CHUNK):
        rng = scene_rng("pictures", seed, start)
        names = [None if rng.random() < 0.15 else str(rng.choice(THINGS)) for _ in range(CHUNK)]
        scenes = [
            sample_scene(rng, num_things=0 if name is None else 1, thing=name, num_sounds=0, unnamed=unnamed)
            for name in names
        ]
        times = np.array([[scene.duration_s * rng.random()] for scene in scenes])
        frames = render_frames(scenes, times, size)
        media = torch.stack([processor.normalise(clip) for clip in frames])
        vectors.append(branch.features(media, "vision")[:, 0, 0])
        things += [BLANK if name is None else THINGS.index(name) for name in names]
    return {"vectors": torch.cat(vectors), "thing": torch.tensor(things)}


def stored(context: Any, name: str, module: nn.Module, options: tuple, make: Callable[[], dict[str, Tensor]]) -> Any:
    """What `make` computes, from disk if a stage of the same build did it before with the same weights and options."""
    digest = hashlib.sha256(repr(options).encode())
    for key, value in sorted(module.state_dict().items()):
        if not key.startswith(("connector.query", "connector.frame_emb", "connector.qformer", "connector.proj")):
            digest.update(key.encode() + value.float().numpy().tobytes())
    folder = Path(context.cache).parent.parent / "features" if context.cache else None
    path = folder / f"{name}-{digest.hexdigest()[:16]}.safetensors" if folder else None
    if path is not None and path.exists():
        return load_file(path)
    found = {key: value.contiguous() for key, value in make().items()}
    if path is not None:
        with file_whole(path) as unfinished:
            save_file(found, unfinished)
    return found


def encode_sample(
    processor: Any, facts: Facts, questions: Sequence[Question], words: dict[str, list[str]]
) -> tuple[Tensor, Tensor]:
    """Ids and labels of a conversation; slots of the branches in `words` hold words in place of a medium."""
    media = []
    streams: tuple[tuple[Literal["video", "audio"], Any], ...] = (("video", facts.things), ("audio", facts.sounds))
    for branch, present in streams:
        if present is not None:
            media.append(Medium(kind=branch, branch=branch, num_tokens=processor.num_tokens(branch, 1)))
    turns = [Turn(question=q.text, answer=q.answer, media=() if i else tuple(media)) for i, q in enumerate(questions)]
    encoded = processor.encode(turns, form="train")
    ids, labels = torch.tensor(encoded.input_ids), torch.tensor(encoded.labels)
    for branch, said in words.items():
        said = said + [FILLER] * (processor.num_tokens(branch, 1) - len(said))
        ids[ids == processor.slot_ids[branch]] = torch.tensor([slot_word_ids(branch)[word] for word in said])
    return ids, labels


class VideoSource:
    """See `NanoVideo`."""

    def __init__(self, config: NanoVideo, context: Any) -> None:
        self.config, self.processor = config, context.processor
        self.scenes = [draw_scene(config.seed, index, config.unnamed) for index in range(config.clips)]
        branch = context.model.branches["video"]
        options = (config.clips, config.seed, config.unnamed)
        made = stored(
            context, "video", branch, options,
            lambda: {"features": video_features(branch, context.processor, self.scenes)},
        )  # fmt: skip
        self.features = made["features"]

    def __len__(self) -> int:
        return len(self.scenes)

    def clip(self, index: int, rng: np.random.Generator) -> tuple[Facts, Tensor]:
        """What a clip shows, and its features [t q d]; sometimes one frame of it alone."""
        facts, features = Facts.of(self.scenes[index], has_audio=False), self.features[index].float()
        things = [*(facts.things or ())]
        if len(things) == 1 and rng.random() < IMAGE_SHARE:
            (colour, name, _), frame = things[0], int(rng.integers(len(features)))
            return Facts(things=((colour, name, "still"),), sounds=None), features[frame : frame + 1]
        return facts, features

    def record(self, index: int, seed: int) -> Record:
        """Reads a sample, see `avllm.data.Source`."""
        rng = np.random.default_rng([seed, 1])
        facts, features = self.clip(index, rng)
        words: dict[str, list[str]] = {}
        kinds = CAPTION_KINDS if self.config.questions == "captions" else SEEN_KINDS
        if self.config.questions == "all" and names_two(facts) and rng.random() < NAMED_SHARE:
            kinds = ("colour_of",)
        elif facts.has_unnamed:
            kinds = SEEN_KINDS
        if rng.random() < self.config.words:
            facts = replace(facts, sounds=tuple(sound.name for sound in fresh_sounds(rng, facts)[0]))
            words = {"audio": facts.audio_words()}
        questions = draw_questions(facts, rng, self.config.turns, kinds=kinds)
        ids, labels = encode_sample(self.processor, facts, questions, words)
        return Record(
            id=f"nano_video {index}", input_ids=ids, labels=labels, uncounted=never_shown(labels, facts),
            features={"video": features},
        )  # fmt: skip


def never_shown(labels: Int[Tensor, " l"], facts: Facts) -> Int[Tensor, " l"]:
    """Beside the names of a thing and of its colour, the one that training never shows with the other; -100 elsewhere.

    Counted as wrong, it would teach that a drum is not blue, and not only that this one is red.
    """
    found = torch.full_like(labels, IGNORED)
    things: list[tuple[str | None, str, str]] = []
    for place, label in enumerate(labels.tolist()):
        if label == IGNORED:
            things = [*(facts.things or ())]  # the next answer names them anew, in their order
            continue
        for thing in things:
            colour, name, _ = thing
            if colour is not None and label == word_id(colour):
                partner = next((other for shown, other in HELD_OUT if shown == name), None)
            elif label == word_id(name):
                partner = next((shown for shown, other in HELD_OUT if other == colour), None)
                things.remove(thing)
            else:
                continue
            if partner is not None:
                found[place] = word_id(partner)
            break
    return found


def names_two(facts: Facts) -> bool:
    """Whether there are two things, at least one of them in a colour with a name."""
    return len(facts.things or ()) == 2 and any(colour for colour, _, _ in facts.things or ())


def fresh_sounds(rng: np.random.Generator, facts: Facts | None = None) -> tuple[tuple[Sound, ...], float]:
    """Sounds and the duration of a new scene; half of the time one is of a thing seen."""
    seen = facts.things[int(rng.integers(len(facts.things)))][1] if facts and facts.things else None
    match = bool(rng.random() < 0.5) if seen and rng.random() < 0.35 else None
    scene = sample_scene(
        rng, num_things=1, thing=seen, match=match, num_sounds=int(rng.choice(4, p=(0.1, 0.3, 0.35, 0.25)))
    )
    return scene.sounds, scene.duration_s


class AudioSource:
    """See `NanoAudio`."""

    def __init__(self, config: NanoAudio, context: Any) -> None:
        self.config, self.processor = config, context.processor
        branch = context.model.branches["audio"]
        options = (config.pictures, config.seed, config.unnamed)
        made = stored(
            context, "pictures", branch, options,
            lambda: picture_vectors(branch, context.processor, config.pictures, config.seed, config.unnamed),
        )  # fmt: skip
        self.vectors = [made["vectors"][made["thing"] == thing].float() for thing in range(len(THINGS) + 1)]
        settings = context.processor.branches["audio"].media
        self.num_segments, self.segment_seconds = settings.num_segments, settings.segment_seconds
        clips = NanoVideo(clips=config.clips, seed=config.seed, unnamed=config.unnamed)
        self.video = VideoSource(clips, context) if config.video else None

    def __len__(self) -> int:
        return self.config.samples

    def record(self, index: int, seed: int) -> Record:
        """Reads a sample, see `avllm.data.Source`."""
        rng = np.random.default_rng([seed, 2])
        facts, features = Facts(things=None, sounds=()), {}
        if self.video is not None and rng.random() < self.config.video:
            facts, features["video"] = self.video.clip(int(rng.integers(len(self.video))), rng)
        sounds, duration_s = fresh_sounds(rng, facts)
        facts = replace(facts, sounds=tuple(sound.name for sound in sounds))
        features["audio"] = self.segments(rng, sounds, duration_s)
        kinds = HEARING_KINDS if self.config.questions == "captions" else HEARD_KINDS
        if facts.things is not None and self.config.questions == "all" and rng.random() < 0.2:
            kinds = tuple(SHARES)
        ids, labels = encode_sample(
            self.processor, facts, draw_questions(facts, rng, self.config.turns, kinds=kinds), {}
        )
        return Record(id=f"nano_audio {index}", input_ids=ids, labels=labels, features=features)

    def segments(self, rng: np.random.Generator, sounds: Sequence[Sound], duration_s: float) -> Float[Tensor, "t 1 d"]:
        """Pictures in place of sounds: a thing's where its sound would fill a segment, mixed with nothing at its ends.

        A segment that holds only the end of a sound is near it or near silence: from which share of it on is drawn per
        sound and end.
        """
        starts = np.linspace(0, max(duration_s - self.segment_seconds, 0), self.num_segments)
        # A sound that dies away ends for the ears before it ends: each edge is read in its own way.
        edges, is_sharp = rng.uniform(0.02, LATEST, (len(sounds), 2)), rng.random(len(sounds)) < SHARP_SHARE
        widths = np.where(is_sharp, 1e-6, rng.uniform(0, WIDEST, len(sounds)))
        mixed = self._draw(rng, BLANK, self.num_segments)
        shares = torch.zeros(self.num_segments, 1)
        total = torch.zeros_like(mixed)
        covers = [cover(starts, self.segment_seconds, sound) for sound in sounds]
        for sound, covered, (first, last), width in zip(sounds, covers, edges, widths, strict=True):
            threshold = np.where(starts < sound.start_s, first, last)
            is_most = covered == np.max(covers, axis=0)  # where two sounds meet, the ears hear the longer
            filled = np.clip((covered - threshold) / width + 0.5, 0, 1) * (is_most & (covered > 0))
            share = torch.from_numpy(np.asarray(filled, dtype=np.float32))[:, None]
            pictures = self._draw(rng, THINGS.index(sound.name), 1 if rng.random() < 0.5 else self.num_segments)
            total, shares = total + share * pictures, shares + share
        shares = shares.clamp(min=1e-6)
        vectors = total / shares.clamp(min=1) + (1 - shares.clamp(max=1)) * mixed
        noise = torch.from_numpy(rng.normal(0, 0.3 * rng.random() / vectors.shape[-1] ** 0.5, vectors.shape)).float()
        return F.normalize(vectors + noise, dim=-1)[:, None]

    def _draw(self, rng: np.random.Generator, thing: int, num: int) -> Float[Tensor, "n d"]:
        pool = self.vectors[thing]
        return pool[torch.from_numpy(rng.integers(len(pool), size=num))]


def cover(starts_s: np.ndarray, seconds: float, sound: Sound) -> np.ndarray:
    """The share of each segment that a sound fills, `[t]`; segments start at `starts_s` and last `seconds`."""
    ends_s = np.minimum(starts_s + seconds, sound.start_s + sound.seconds)
    return np.clip((ends_s - np.maximum(starts_s, sound.start_s)) / seconds, 0, 1)
