"""The work of `avllm run`: many questions from a file, unattended, resumable; one row per question."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avllm.chat.ahead import answer_each
from avllm.chat.asked import AudioMode, audio_mode_of
from avllm.chat.assistant import Assistant, load
from avllm.chat.generate_options import settled
from avllm.chat.perceiver import reading_through
from avllm.chat.reply import Reply
from avllm.chat.rows import Line, read_lines
from avllm.chat.store import Perceived
from avllm.chat.threads import choose_threads
from avllm.durable import Appender, appending, lock_beside, locked, whole_lines
from avllm.errors import AvllmError, ConfigError, DataError, attempted, own_message
from avllm.media import read_ahead
from avllm.media.isolated import reader_of
from avllm.model.options import VideoOptions, checked, named

MAX_LISTED = 10
READING = ("num_frames", "sampling", "fps", "max_frames", "start_s", "end_s")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did.

    Args:
        done: rows written now.
        failed: those of them that are errors.
        skipped: rows that were there already.
        seconds: of work, without loading the model.
        repeats: names in the output of the lines whose id an earlier line has; each of them is an error.
    """

    done: int
    failed: int
    skipped: int
    seconds: float
    repeats: tuple[str, ...] = ()

    def __str__(self) -> str:
        rate = self.done / self.seconds if self.seconds else 0.0
        before = f", {self.skipped} were there already" if self.skipped else ""
        return f"{self.done} rows in {self.seconds:.1f} s ({rate:.2f} a second), {self.failed} errors{before}"

    @property
    def warning(self) -> str:
        """Which lines were not answered as an earlier one has their id; nothing if there are none."""
        if not self.repeats:
            return ""
        listed = ", ".join(f'"{name}"' for name in self.repeats[:MAX_LISTED])
        more = f" and {len(self.repeats) - MAX_LISTED} more" if len(self.repeats) > MAX_LISTED else ""
        return (
            f"{len(self.repeats)} lines have the id of an earlier line and were not answered: their rows are {listed}"
            f"{more}; make their ids unique, and go on with --resume"
        )


def run(
    source: str | Path,
    target: str | Path,
    *,
    model: str | Path = "nano",
    workers: int = 1,
    batch: int = 8,
    resume: bool = False,
    audio: AudioMode = "auto",
    media_root: str | Path = ".",
    trusted_media: bool = False,
    assistant: Assistant | None = None,
    **options: Any,
) -> Summary:
    """Answers every line of a JSONL file and appends one row per line to another.

    A row is written as soon as its answer is there. Lines about the same medium are answered together: it is decoded
    and encoded once. Whatever is wrong with a line or its media, and whatever goes wrong while it is answered, becomes
    an error row.

    Args:
        source: lines `{"id", "video" | "image" | "audio", "question"}`; also the other fields of `Request`. A null or
            NaN is a key that is not there.
        target: gets `{"id", "answer", "streams_used", ...}` or `{"id", "error"}`, each id once, in any order. A line
            whose id is missing, is no text or number, or is that of an earlier line, is named by its number,
            `"line 7"`; without an id it is answered all the same.
        model: a name or a folder.
        workers: threads that decode and encode the media to come.
        batch: questions answered side by side.
        resume: keeps the rows that `target` holds and answers the others.
        audio: whether a video's sound is used, where a line does not say it.
        media_root: folder that relative paths start from.
        trusted_media: decode in this process, and not in others that a file can do less harm in; see docs/media.md.
        assistant: in place of `model`.
        options: `num_frames`, `sampling`, `fps`, `max_frames`, `start_s`, `end_s` where a line does not say them and
            has a medium with use for them; `seed` and what `generate` of `transformers` takes.

    Raises:
        DataError: the input cannot be read, `target` is there and `resume` is off, or it holds something else.
        InUse: another process writes `target`; it is named, before anything is read.
        DiskError: `target` cannot be written; the rows that are there are whole.
        ConfigError: an argument is wrong.
    """
    _require_positive(workers=workers, batch=batch)
    reading = named({name: options.pop(name) for name in READING if name in options})
    checked(VideoOptions, reading)
    settled(options)
    defaults = {"audio_mode": audio_mode_of(audio), **reading}
    target = Path(target)
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise DataError(f"{target}: is the input itself; name another file for the answers")
    with locked(lock_beside(target), target):
        written = _written(target, resume)
        lines = read_lines(Path(source), defaults, Path(media_root))
        todo = [line for line in lines if line.id not in written]
        how = {"num_workers": workers, "starts": assistant is None and bool(todo)}
        with _opened(target) as out, reader_of(trusted_media=trusted_media, **how) as reader:
            assistant = _ready(reading_through(assistant or load(model), reader), reading)
            failed, seconds = _answer_all(_rows(assistant, todo, workers, batch, options), len(todo), out)
    repeats = tuple(str(line.id) for line in lines if line.repeats)
    return Summary(done=len(todo), failed=failed, skipped=len(lines) - len(todo), seconds=seconds, repeats=repeats)


def _checked_apart(options: dict[str, Any]) -> dict[str, Any]:
    """Takes those of reading out of the options; both are checked as far as they can be without a model."""
    reading = named({name: options.pop(name) for name in READING if name in options})
    checked(VideoOptions, reading)
    settled(options)
    return reading


def _other_file(target: Path, source: str | Path) -> Path:
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise DataError(f"{target}: is the input itself; name another file for the answers")
    return target


def _ready(assistant: Assistant, reading: Mapping[str, Any]) -> Assistant:
    """The same, of which it is known that it can read videos as is wanted of all of them."""
    choose_threads(assistant.model)
    if "video" in assistant.processor.branches:
        assistant.processor.check_reading("video", **reading)
    return assistant


def _answer_all(rows: Iterator[dict[str, Any]], count: int, out: Appender) -> tuple[int, float]:
    """Writes rows as they come; returns how many of them are errors, and the seconds it took."""
    started, failed = time.perf_counter(), 0
    with tqdm(total=count, unit="row", disable=None) as bar:
        for row in rows:
            out.add([row])
            failed += "error" in row
            bar.update()
            bar.set_postfix(errors=failed, refresh=False)
    return failed, time.perf_counter() - started


@contextmanager
def _opened(target: Path) -> Iterator[Appender]:
    """The output, open before the model is loaded; a new one without a row goes if the work fails."""
    is_new = not os.path.exists(target)
    try:
        with appending(target) as out:
            yield out
    except BaseException:
        if is_new and os.path.exists(target) and not target.stat().st_size:
            target.unlink()
        raise


def _require_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name}: expected a whole number above 0, got {value}")


def _written(target: Path, resume: bool) -> set[str | int | float]:
    """Ids of the rows that are there."""
    if not os.path.exists(target):
        return set()
    if not target.is_file():
        raise DataError(f"{target}: is no file; expected one for the answers, or a name that is free")
    if not resume:
        raise DataError(f"{target} exists; go on with --resume, or name another file")
    names, start = set(), 0
    for data in whole_lines(target):
        try:
            row = json.loads(data)
            names.add(row["id"])
            row["error" if "error" in row else "answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{target}: byte {start} begins what is no row of a run; name another file") from None
        start += len(data) + 1
    return names


def _rows(
    assistant: Assistant, lines: Sequence[Line], workers: int, batch: int, options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for every line, those of one medium next to each other."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        media = DataError(line.error) if line.error else attempted(partial(_checked, assistant, line, options))
        if isinstance(media, AvllmError):
            yield _failed(line, media)
        else:
            groups.setdefault(media, []).append(line)
    ready: list[tuple[Line, list[Perceived]]] = []

    def perceive(group: list[Line]) -> list[Perceived] | AvllmError:
        request = group[0].request
        assert request is not None
        return attempted(lambda: assistant.perceive_request(request))

    for group, media in read_ahead(list(groups.values()), perceive, workers):
        if isinstance(media, AvllmError):
            yield from (_failed(line, media) for line in group)
            continue
        ready += [(line, media) for line in group]
        while len(ready) >= batch:
            yield from _answered(assistant, ready[:batch], options)
            del ready[:batch]
    if ready:
        yield from _answered(assistant, ready, options)


def _checked(assistant: Assistant, line: Line, options: Mapping[str, Any]) -> str:
    """What is looked at, of a line that can be answered as far as it can be said before its media are opened.

    Raises:
        AvllmError: it cannot.
    """
    assert line.request is not None
    assistant.check_request(line.request, options.get("max_new_tokens"))
    return line.media


def _answered(
    assistant: Assistant, ready: Sequence[tuple[Line, list[Perceived]]], options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    requests = [line.request for line, _ in ready if line.request is not None]
    replies = answer_each(assistant, requests, [media for _, media in ready], **options)
    for (line, _), reply in zip(ready, replies, strict=True):
        yield _failed(line, reply) if isinstance(reply, AvllmError) else _row(line, reply)


def _row(line: Line, reply: Reply) -> dict[str, Any]:
    plain = reply.to_dict()
    del plain["question"]
    return {"id": line.id, **plain}


def _failed(line: Line, error: AvllmError) -> dict[str, Any]:
    return {"id": line.id, "error": own_message(error)}
