"""The work of `avllm run`: many questions from a file, unattended, resumable; one row per question."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from avllm.chat.ahead import answer_each, named_fault
from avllm.chat.asked import AudioMode, audio_mode_of
from avllm.chat.assistant import Assistant, load
from avllm.chat.generate_options import settled
from avllm.chat.perceiver import reading_through
from avllm.chat.reply import Reply
from avllm.chat.rows import Line, read_lines
from avllm.chat.store import Perceived
from avllm.chat.threads import choose_threads
from avllm.errors import AvllmError, ConfigError, DataError
from avllm.media import read_ahead
from avllm.media.isolated import reader_of
from avllm.model.options import VideoOptions, checked, named

READING = ("num_frames", "sampling", "fps", "max_frames", "start_s", "end_s")


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
        DataError: the input cannot be read, or `target` is there and `resume` is off.
        ConfigError: an argument is wrong.
    """
    _require_positive(workers=workers, batch=batch)
    reading = named({name: options.pop(name) for name in READING if name in options})
    checked(VideoOptions, reading)
    settled(options)
    lines = read_lines(Path(source), {"audio_mode": audio_mode_of(audio), **reading}, Path(media_root))
    target = Path(target)
    written = _written(target, resume)
    todo = [line for line in lines if line.id not in written]
    with reader_of(trusted_media=trusted_media, num_workers=workers, starts=assistant is None and bool(todo)) as reader:
        assistant = reading_through(assistant or load(model), reader)
        choose_threads(assistant.model)
        if "video" in assistant.processor.branches:
            assistant.processor.check_reading("video", **reading)
        started, failed = time.perf_counter(), 0
        with target.open("a", encoding="utf-8") as out, tqdm(total=len(todo), unit="row", disable=None) as bar:
            for row in _rows(assistant, todo, workers, batch, options):
                _append(out, row)
                failed += "error" in row
                bar.update()
                bar.set_postfix(errors=failed, refresh=False)
    skipped, seconds = len(lines) - len(todo), time.perf_counter() - started
    return Summary(done=len(todo), failed=failed, skipped=skipped, seconds=seconds)


def _require_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name}: expected a whole number above 0, got {value}")


def _written(target: Path, resume: bool) -> set[str | int | float]:
    """Ids of the rows that are there; a last row that was cut off by a kill is removed."""
    if target.exists() and not resume:
        raise DataError(f"{target} exists; go on with --resume, or name another file")
    if not target.exists():
        return set()
    kept, names = 0, set()
    data = target.read_bytes()
    for text in data.splitlines(keepends=True):
        try:
            row = json.loads(text)
            name, _ = row["id"], row["error" if "error" in row else "answer"]
        except (ValueError, KeyError, TypeError):
            if kept + len(text) != len(data):
                raise DataError(f"{target}: byte {kept} begins what is no row of a run; name another file") from None
            break
        if not text.endswith(b"\n"):
            break
        names.add(name)
        kept += len(text)
    if kept != len(data):
        os.truncate(target, kept)
    return names


# Line ends to some readers, though not to JSON.
_SEPARATORS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}


def _append(out: TextIO, row: Mapping[str, Any]) -> None:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_SEPARATORS)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair in an id or a file's name
        text = json.dumps(row)
    out.write(text + "\n")
    out.flush()


def _rows(
    assistant: Assistant, lines: Sequence[Line], workers: int, batch: int, options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for every line, those of one medium next to each other."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        error = line.error or _fault_of(assistant, line, options)
        if error:
            yield {"id": line.id, "error": error}
        else:
            groups.setdefault(line.media, []).append(line)
    ready: list[tuple[Line, list[Perceived]]] = []

    def perceive(group: list[Line]) -> list[Perceived]:
        assert group[0].request is not None
        try:
            return assistant.perceive_request(group[0].request)
        except Exception as error:
            raise named_fault(error) from error

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


def _fault_of(assistant: Assistant, line: Line, options: Mapping[str, Any]) -> str:
    """What is wrong with a line, as far as it can be said before its media are opened."""
    assert line.request is not None
    try:
        assistant.check_request(line.request, options.get("max_new_tokens"))
    except Exception as error:
        return " ".join(str(named_fault(error)).split())
    return ""


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
    return {"id": line.id, "error": " ".join(str(error).split())}
