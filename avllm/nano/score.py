"""How often nano is right about clips it has never seen, by type of question, from the mp4 files themselves."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from avllm.errors import DataError
from avllm.nano.sample import TRUTH, in_processes, make_clip, write_clip
from avllm.nano.score_result import Outcome, Score, tidy

HELD_OUT_SHARE = 4  # one clip with a held-out pair for so many others
CLIPS_AT_ONCE = 8  # whose questions are answered as one batch
MAX_NEW_TOKENS = 40
# What a conversation opens with, before the question whose answer counts as one of a later turn.
OPENINGS = ("What do you see and hear?", "What do you see?", "What do you hear?", "Describe the video.")

# Questions about files, as (file, question) pairs -> answers
Answerer = Callable[[Sequence[tuple[Path, str]]], list[str]]
# A conversation about a file: its questions in order -> the answer to the last
Conversation = Callable[[Path, Sequence[str]], str]
# What may be given in place of a model: a function without arguments, so that each process can have its own
Factory = Callable[[], "Loaded"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Something that answers, and its size. Without `converse` no later turns are scored."""

    answer: Answerer
    converse: Conversation | None = None
    parameters: int = 0
    weights_bytes: int = 0


def score(
    *,
    num_clips: int = 500,
    seed: int = 0,
    source: str | Path | None = None,
    model: str | Path = "nano",
    factory: Factory | None = None,
) -> Score:
    """Asks about unseen clips and compares with the truth.

    Args:
        num_clips: clips of the main figures; a quarter as many with held-out pairs come on top.
        seed: of scenes and wordings; these clips are apart from those of training and of `nano sample`.
        source: a folder written by `nano sample`, in place of new clips.
        model: name or folder of a system.
        factory: makes something else that answers, in place of `model`; it must be picklable.

    Raises:
        DataError: the folder holds no truth.jsonl, or a line of it is not as `nano sample` writes it.
        MediaError: a clip cannot be written or read.
        CheckpointError: there is no such model.
    """
    started = time.perf_counter()
    jobs = list(_new_clips(num_clips, seed) if source is None else _stored_clips(Path(source)))
    maker = factory or _Model(str(model))
    tasks = [(maker, jobs[start : start + CLIPS_AT_ONCE]) for start in range(0, len(jobs), CLIPS_AT_ONCE)]
    parts: list[_Part] = []
    with tqdm(total=len(jobs), desc="clips", unit="clip", disable=None) as progress:
        for part in in_processes(_score_group, tasks, few=1):
            parts.append(part)
            progress.update(part.clips)
    return Score(
        outcomes=tuple(outcome for part in parts for outcome in part.outcomes),
        later_turns=tuple(outcome for part in parts for outcome in part.later_turns),
        clips=sum(not job.held_out for job in jobs),
        seed=seed,
        seconds=time.perf_counter() - started,
        parameters=parts[0].parameters if parts else 0,
        weights_bytes=parts[0].weights_bytes if parts else 0,
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A clip to be asked about: one to make (seed and index), or a file with its questions."""

    held_out: bool
    seed: int = 0
    index: int = 0
    file: Path | None = None
    questions: tuple[dict, ...] = ()


def _new_clips(num_clips: int, seed: int) -> Iterator[_Job]:
    for index in range(num_clips):
        yield _Job(held_out=False, seed=seed, index=index)
    for index in range(max(num_clips // HELD_OUT_SHARE, 1)):
        yield _Job(held_out=True, seed=seed, index=num_clips + index)


def _stored_clips(folder: Path) -> Iterator[_Job]:
    truth = folder / TRUTH
    if not truth.is_file():
        raise DataError(f"{folder}: no {TRUTH} there; expected a folder written by: avllm nano sample {folder}")
    for number, line in enumerate(truth.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            yield _Job(
                held_out=bool(entry["held_out"]),
                index=number,
                file=folder / entry["file"],
                questions=tuple(entry["questions"]),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{truth}, line {number}: expected an object with file, held_out and questions, as `avllm nano sample` "
                f"writes it, got {line[:60]!r}"
            ) from error


@cache
def _load(factory: Factory) -> Loaded:
    """Once in each process, at its first clips: there an error reaches the caller."""
    return factory()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one group of clips gave."""

    outcomes: list[Outcome]
    later_turns: list[Outcome]
    clips: int
    parameters: int
    weights_bytes: int


def _score_group(task: tuple[Factory, Sequence[_Job]]) -> _Part:
    """Writes what is to be made, asks everything about these clips at once, and forgets the files."""
    factory, jobs = task
    loaded = _load(factory)
    with tempfile.TemporaryDirectory(prefix="avllm-score-") as folder:
        asked: list[tuple[_Job, Path, dict]] = []
        later: list[tuple[_Job, Path, dict]] = []
        for job in jobs:
            path, questions = job.file, job.questions
            if path is None:
                clip = make_clip("score", job.seed, job.index, held_out=job.held_out)
                path, questions = write_clip(clip.scene, Path(folder) / clip.file), clip.to_dict()["questions"]
            asked += [(job, path, question) for question in questions]
            if loaded.converse and questions and not job.held_out:
                later.append((job, path, questions[job.index % len(questions)]))
        answers = loaded.answer([(path, question["question"]) for _, path, question in asked])
        later_answers = [
            loaded.converse(path, (OPENINGS[job.index % len(OPENINGS)], question["question"]))
            for job, path, question in later
            if loaded.converse
        ]
    return _Part(
        outcomes=list(_outcomes(asked, answers)),
        later_turns=list(_outcomes(later, later_answers)),
        clips=len(jobs),
        parameters=loaded.parameters,
        weights_bytes=loaded.weights_bytes,
    )


def _outcomes(asked: Iterable[tuple[_Job, Path, dict]], answers: Sequence[str]) -> Iterator[Outcome]:
    for (job, _, question), answer in zip(asked, answers, strict=True):
        yield Outcome(
            type=question["type"],
            kind=question["kind"],
            held_out=job.held_out,
            question=question["question"],
            truth=question["answer"],
            answer=answer,
            is_right=tidy(answer) in question["accepted"],
        )


@dataclass(frozen=True)
class _Model:
    """Loads a system by name or folder, on one thread: there is a process for each core."""

    name: str

    def __call__(self) -> Loaded:
        import torch

        from avllm.chat import load
        from avllm.chat.assistant import Request

        torch.set_num_threads(1)
        assistant = load(self.name)

        def answer(asked: Sequence[tuple[Path, str]]) -> list[str]:
            requests = [Request(question=question, video=path) for path, question in asked]
            return [reply.answer for reply in assistant.answers(requests, max_new_tokens=MAX_NEW_TOKENS)]

        def converse(path: Path, questions: Sequence[str]) -> str:
            session = assistant.chat()
            session.ask(questions[0], video=path, max_new_tokens=MAX_NEW_TOKENS)
            return [session.ask(question, max_new_tokens=MAX_NEW_TOKENS) for question in questions[1:]][-1]

        parameters = list(assistant.model.parameters())
        return Loaded(
            answer=answer,
            converse=converse,
            parameters=sum(parameter.numel() for parameter in parameters),
            weights_bytes=_weights_bytes(self.name, sum(p.numel() * p.element_size() for p in parameters)),
        )


def _weights_bytes(name: str, in_memory: int) -> int:
    """Size of the safetensors files; of the tensors in memory when the model does not come from a folder."""
    from avllm.checkpoints.load import find_model

    return sum(path.stat().st_size for path in find_model(name).glob("*.safetensors")) or in_memory
