"""Clips of nano's world as mp4 files, with the questions that can be asked about them and the right answers."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from avllm.media import write_video
from avllm.nano.language import Facts, Question, ask
from avllm.nano.render import render_frames
from avllm.nano.sound import render_audio
from avllm.nano.world import Scene, scene_rng
from avllm.nano.world_sampling import sample_scene

TRUTH = "truth.jsonl"
HELD_OUT_EVERY = 5  # in a sampled folder each fifth clip shows a pair of thing and colour that training never does
# What is scored, and the kinds of question of avllm.nano.language that count for it. One of them is asked of a clip;
# of the yes/no questions, one about what is seen and one about what is heard.
TYPES: dict[str, tuple[str, ...]] = {
    "thing": ("thing",),
    "colour": ("colour", "colour_of"),
    "motion": ("motion",),
    "caption": ("caption",),
    "first": ("first", "second"),
    "hearing": ("hearing",),
    "sound_order": ("sound_order", "sound_first", "sound_last"),
    "sound_count": ("sound_count", "silence", "any_sound"),
    "match": ("match",),
    "yes_no": ("sees", "hears"),
}
Job = TypeVar("Job")
Result = TypeVar("Result")
WORKERS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that can be made: the scene, and what is asked about it, as (type, question) pairs."""

    file: str
    scene: Scene
    questions: tuple[tuple[str, Question], ...]

    @property
    def is_held_out(self) -> bool:
        """Whether it shows a pair of thing and colour that training never does."""
        return self.scene.shows_held_out

    def to_dict(self) -> dict:
        """One line of truth.jsonl."""
        asked = [
            {"type": kind, "kind": q.type, "question": q.text, "answer": q.answer, "accepted": list(q.accepted)}
            for kind, q in self.questions
        ]
        return {"file": self.file, "held_out": self.is_held_out, "questions": asked, "scene": asdict(self.scene)}


def make_clip(purpose: str, seed: int, index: int, *, held_out: bool) -> Clip:
    """Draws the scene and the questions of one clip; purpose, seed and index decide everything.

    Args:
        purpose: keeps the clips of different uses apart; "train" is for training alone.
        held_out: shows a held-out pair, and may name one in a question.
    """
    rng = scene_rng(purpose, seed, index)
    draw = rng.random()
    if draw < 0.25:
        scene = sample_scene(rng, split="held_out" if held_out else "train", match=bool(rng.random() < 0.5))
    elif held_out:
        scene = sample_scene(rng, split="held_out", num_things=2 if draw < 0.5 else 1)
    else:
        scene = sample_scene(rng, split="train")
    return Clip(file=f"clip_{index:04d}.mp4", scene=scene, questions=tuple(_questions(scene, rng, held_out)))


def _questions(scene: Scene, rng: np.random.Generator, held_out: bool) -> Iterator[tuple[str, Question]]:
    facts = Facts.of(scene)
    for name, kinds in TYPES.items():
        # Half of the wordings are such as training never saw.
        wording = "test" if rng.random() < 0.5 else "any"
        found = (ask(facts, kind, rng, wording=wording, held_out=held_out) for kind in rng.permutation(kinds))
        open_ones = [question for question in found if question is not None]
        for question in open_ones[: 2 if name == "yes_no" else 1]:
            yield name, question


def write_clip(scene: Scene, path: str | Path, *, preset: str = "ultrafast") -> Path:
    """Renders a scene into a real mp4, H.264 and AAC, compressed as the scene says.

    Args:
        preset: of the H.264 encoder; slower ones make smaller files.

    Raises:
        MediaError: the file cannot be written.
    """
    return write_video(
        path,
        _frames(scene),
        float(scene.fps),
        waveform=render_audio(scene, scene.sample_rate)[None],
        sample_rate=scene.sample_rate,
        crf=scene.crf,
        audio_bit_rate=scene.audio_bit_rate,
        preset=preset,
    )


def _frames(scene: Scene, chunk: int = 16) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    times_s = np.arange(max(round(scene.duration_s * scene.fps), 1)) / scene.fps
    for start in range(0, len(times_s), chunk):
        yield from render_frames(scene, times_s[start : start + chunk], (scene.height, scene.width))


def sample(folder: str | Path, *, num_clips: int, seed: int) -> Path:
    """Writes clip_0000.mp4, ... and their truth.jsonl; the same seed gives the same files.

    Returns:
        Path of truth.jsonl: per line a file, its questions with the answers, and its scene.

    Raises:
        MediaError: a clip cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(str(folder), seed, index) for index in range(num_clips)]
    truth = folder / TRUTH
    lines: list[str] = []
    with tqdm(total=num_clips, desc="clips", unit="clip", disable=None) as progress:
        for line in in_processes(_write_sample, jobs):
            lines.append(line)
            progress.update()
    truth.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return truth


def _write_sample(job: tuple[str, int, int]) -> str:
    folder, seed, index = job
    clip = make_clip("sample", seed, index, held_out=index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1)
    write_clip(clip.scene, Path(folder) / clip.file)
    return json.dumps(clip.to_dict())


def in_processes(function: Callable[[Job], Result], jobs: Sequence[Job], *, few: int = 8) -> Iterator[Result]:
    """Results of `function` over jobs, in their order, from a few processes; a few jobs are done right here."""
    if WORKERS < 2 or len(jobs) <= few:
        yield from map(function, jobs)
        return
    # Fresh processes: a fork of one in which torch or FFmpeg has started threads can hang.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C is for the parent, which ends the others.
    with context.Pool(WORKERS, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(function, jobs)
