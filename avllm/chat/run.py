"""The work of `avllm run`: many questions from a file, unattended, resumable; one row per question."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from avllm.chat.ahead import answer_each
from avllm.chat.assistant import Assistant, Request, load
from avllm.chat.perceiver import AudioMode
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.chat.threads import choose_threads
from avllm.errors import AvllmError, DataError
from avllm.media import read_ahead

KINDS = ("video", "image", "audio")
KEYS = {"id", "question", "system", "num_frames", "audio_mode", *KINDS}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the input.

    Args:
        id: its name in the output.
        request: what is asked; None if the line is wrong.
        error: what is wrong with it.
    """

    id: str | int
    request: Request | None = None
    error: str = ""

    @property
    def media(self) -> tuple[Any, ...]:
        """What is looked at and how; lines with equal media share the work."""
        item = self.request
        return () if item is None else (item.video, item.image, item.audio, item.audio_mode, item.num_frames)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did.

    Args:
        done: rows written now.
        failed: those of them that are errors.
        skipped: rows that were there already.
        seconds: of work, without loading the model.
    """

    done: int
    failed: int
    skipped: int
    seconds: float

    def __str__(self) -> str:
        rate = self.done / self.seconds if self.seconds else 0.0
        before = f", {self.skipped} were there already" if self.skipped else ""
        return f"{self.done} rows in {self.seconds:.1f} s ({rate:.2f} a second), {self.failed} errors{before}"


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
    max_new_tokens: int | None = None,
    assistant: Assistant | None = None,
) -> Summary:
    """Answers every line of a JSONL file and appends one row per line to another.

    A row is written as soon as its answer is there. Lines about the same medium are answered together: it is decoded
    and encoded once. A medium that cannot be read, or a wrong line, becomes an error row.

    Args:
        source: lines `{"id", "video" | "image" | "audio", "question"}`; also `system`, `num_frames`, `audio_mode`.
        target: gets `{"id", "answer", "streams_used", ...}` or `{"id", "error"}`, each id once, in any order.
        model: a name or a folder.
        workers: threads that decode and encode the media to come.
        batch: questions answered side by side.
        resume: keeps the rows that `target` holds and answers the others.
        audio: whether a video's sound is used, where a line does not say it.
        media_root: folder that relative paths start from.
        max_new_tokens: the longest answer.
        assistant: in place of `model`.

    Raises:
        DataError: the input cannot be read, an id occurs twice, or `target` is there and `resume` is off.
    """
    lines = read_lines(Path(source), audio=audio, media_root=Path(media_root))
    target = Path(target)
    if target.exists() and not resume:
        raise DataError(f"{target} exists; go on with --resume, or name another file")
    written = _written(target)
    todo = [line for line in lines if line.id not in written]
    assistant = assistant or load(model)
    choose_threads(assistant.model)
    started, failed = time.perf_counter(), 0
    with target.open("a", encoding="utf-8") as out, tqdm(total=len(todo), unit="row", disable=None) as bar:
        for row in _rows(assistant, todo, workers, batch, max_new_tokens):
            _append(out, row)
            failed += "error" in row
            bar.update()
            bar.set_postfix(errors=failed, refresh=False)
    seconds = time.perf_counter() - started
    return Summary(done=len(todo), failed=failed, skipped=len(lines) - len(todo), seconds=seconds)


def read_lines(source: Path, *, audio: AudioMode, media_root: Path) -> list[Line]:
    """The lines of the input; wrong ones that have an id carry their fault.

    Raises:
        DataError: no file, a line without id, or an id twice; the line is named.
    """
    try:
        texts = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    lines: dict[str | int, int] = {}
    found = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{source}, line {number}: not JSON ({error})") from error
        name = row.get("id") if isinstance(row, dict) else None
        if not isinstance(name, str | int):
            raise DataError(f"{source}, line {number}: expected an object with an id, got {text[:60]}")
        if name in lines:
            raise DataError(f"{source}, line {number}: id {name!r} is that of line {lines[name]} too; make it unique")
        lines[name] = number
        found.append(_line(name, row, audio, media_root))
    return found


def _line(name: str | int, row: Mapping[str, Any], audio: AudioMode, media_root: Path) -> Line:
    unknown = sorted(set(row) - KEYS)
    if unknown:
        return Line(id=name, error=f"unknown key {', '.join(unknown)}; known are: {', '.join(sorted(KEYS))}")
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        return Line(id=name, error="question: expected a text")
    wrong = [kind for kind in KINDS if not isinstance(row.get(kind, ""), str)]
    if wrong or row.get("audio_mode", "auto") not in ("auto", "require", "off"):
        return Line(id=name, error=f"{wrong[0] if wrong else 'audio_mode'}: got {row.get(wrong[0] if wrong else '')!r}")
    media = {kind: str(media_root / row[kind]) for kind in KINDS if row.get(kind)}
    asked = {key: row[key] for key in ("question", "system", "num_frames") if row.get(key) is not None}
    return Line(id=name, request=Request(**media, **asked, audio_mode=row.get("audio_mode", audio)))


def _written(target: Path) -> set[str | int]:
    """Ids of the rows that are there; a last row that was cut off by a kill is removed."""
    if not target.exists():
        return set()
    kept, names = 0, set()
    data = target.read_bytes()
    for text in data.splitlines(keepends=True):
        try:
            names.add(json.loads(text)["id"])
        except (ValueError, KeyError, TypeError):
            if kept + len(text) != len(data):
                raise DataError(f"{target}: byte {kept} begins what is no row of a run; name another file") from None
            break
        if not text.endswith(b"\n"):
            break
        kept += len(text)
    if kept != len(data):
        names = {json.loads(text)["id"] for text in data[:kept].splitlines()}
        os.truncate(target, kept)
    return names


def _append(out: TextIO, row: Mapping[str, Any]) -> None:
    out.write(json.dumps(row, ensure_ascii=False) + "\n")
    out.flush()


def _rows(
    assistant: Assistant, lines: Sequence[Line], workers: int, batch: int, max_new_tokens: int | None
) -> Iterator[dict[str, Any]]:
    """A row for every line, those of one medium next to each other."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        if line.request is None:
            yield {"id": line.id, "error": line.error}
        else:
            groups.setdefault(line.media, []).append(line)
    ready: list[tuple[Line, list[Perceived]]] = []

    def perceive(group: list[Line]) -> list[Perceived]:
        assert group[0].request is not None
        return assistant.perceive_request(group[0].request)

    for group, media in read_ahead(list(groups.values()), perceive, workers):
        if isinstance(media, AvllmError):
            yield from (_failed(line, media) for line in group)
            continue
        ready += [(line, media) for line in group]
        while len(ready) >= batch:
            yield from _answered(assistant, ready[:batch], max_new_tokens)
            del ready[:batch]
    if ready:
        yield from _answered(assistant, ready, max_new_tokens)


def _answered(
    assistant: Assistant, ready: Sequence[tuple[Line, list[Perceived]]], max_new_tokens: int | None
) -> Iterator[dict[str, Any]]:
    requests = [line.request for line, _ in ready if line.request is not None]
    replies = answer_each(assistant, requests, [media for _, media in ready], max_new_tokens=max_new_tokens)
    for (line, _), reply in zip(ready, replies, strict=True):
        yield _failed(line, reply) if isinstance(reply, AvllmError) else _row(line, reply)


def _row(line: Line, reply: Reply) -> dict[str, Any]:
    plain = reply.to_dict()
    del plain["question"]
    return {"id": line.id, **plain}


def _failed(line: Line, error: AvllmError) -> dict[str, Any]:
    return {"id": line.id, "error": " ".join(str(error).split())}
