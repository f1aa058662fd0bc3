"""Looks a file of your own data through before it is trained on: its form, media, slots, labels, lengths."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from avllm.data.context import Context
from avllm.data.conversations import Conversations
from avllm.data.frames import TooLong
from avllm.data.llava_instruct import LlavaInstruct
from avllm.data.prepare import NothingLearned, Prepare
from avllm.data.records import DatasetConfig, Medium, Record
from avllm.data.videochat_instruct import VideoChatInstruct
from avllm.data.webdataset import WebDataset
from avllm.durable import file_whole
from avllm.errors import AvllmError, DataError, MediaError, attempted, own_message

MAX_SHOWN = 20
What = Literal["entry", "media", "length", "labels", "duplicate"]
# Readers whose entries can be looked at one by one, so that the first wrong one is not the end.
READERS: Mapping[type, Callable[[Any], Any]] = {
    reader.Config: reader for reader in (Conversations, LlavaInstruct, VideoChatInstruct, WebDataset)
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with one entry.

    Args:
        what: its form, media that cannot be opened, more ids or frames than the system holds, nothing to learn, or the
            same as an earlier entry.
        message: begins with file and line or index.
    """

    what: What
    message: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found in a file.

    Args:
        file: that was looked through.
        entries: in it.
        good: of them, that can be trained on.
        media: kind -> how many.
        lengths: ids of each good entry, media included.
        faults: in the order of the file.
        notes: what is left out or may be meant otherwise, with how many entries.
        max_unreadable: share of entries whose media may be unreadable.
    """

    file: str
    entries: int
    good: int
    media: dict[str, int]
    lengths: tuple[int, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()
    max_unreadable: float

    @property
    def ok(self) -> bool:
        """Whether a stage would train on it; duplicates are told, but do not stop it."""
        count = self.count
        is_stopped = self.good == 0 or any(count[what] for what in ("entry", "length", "labels"))
        return not is_stopped and count["media"] <= self.max_unreadable * self.entries

    @property
    def count(self) -> dict[str, int]:
        """How many faults of each kind."""
        found = Counter(fault.what for fault in self.faults)
        return {what: found[what] for what in get_args(What)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; lengths in short."""
        plain = asdict(self) | {"lengths": self._lengths(), "count": self.count, "ok": self.ok}
        return plain | {"faults": [asdict(fault) for fault in self.faults]}

    def to_table(self) -> str:
        """Lines for people."""
        count, lengths = self.count, self._lengths()
        media = ", ".join(f"{number} {kind}" for kind, number in self.media.items()) or "none"
        verdict = "can be trained on" if self.ok else "has faults" if self.good else "no entry can be trained on"
        lines = [
            f"{self.file}: {verdict}",
            f"entries     {self.entries}, good {self.good}",
            f"media       {media}; unreadable in {count['media']} entries, allowed {self.max_unreadable:.1%}",
            f"faults      form {count['entry']}, too long {count['length']}, nothing to learn {count['labels']}, "
            f"duplicates {count['duplicate']}",
        ]
        if lengths:
            lines.append("token ids   " + ", ".join(f"{name} {value}" for name, value in lengths.items()))
        lines += [f"note        {note}" for note in self.notes]
        lines += [f"  {fault.what}: {fault.message}" for fault in self.faults[:MAX_SHOWN]]
        if len(self.faults) > MAX_SHOWN:
            lines.append(f"  and {len(self.faults) - MAX_SHOWN} more; --json lists all")
        return "\n".join(lines)

    def _lengths(self) -> dict[str, int]:
        if not self.lengths:
            return {}
        row = sorted(self.lengths)
        high = row[min(len(row) - 1, round(0.95 * (len(row) - 1)))]
        return {"min": row[0], "median": int(statistics.median(row)), "p95": high, "max": row[-1]}


def check(
    config: DatasetConfig,
    processor: Any,
    *,
    context: Context | None = None,
    max_text_tokens: int | None = None,
    max_unreadable: float = 0.01,
    max_ids: int | None = None,
) -> Report:
    """Reads every entry as a stage would, media included, and goes on after a fault.

    Args:
        config: a dataset: its file and the folder of its media.
        processor: of the system that is to be trained.
        context: of the stage.
        max_text_tokens: as of the stage.
        max_unreadable: as of the stage.
        max_ids: that the decoder holds; None is without limit.

    Raises:
        DataError: the file is missing or has another form; where entries are looked at one by one, they are no reason.
    """
    context = context or Context(processor=processor)
    source = READERS[type(config)](config) if type(config) in READERS else config.build(context)
    prepare = Prepare(processor, modality=context.modality, max_text_tokens=max_text_tokens, context=max_ids)
    faults: list[Fault] = []
    lengths: list[int] = []
    media, notes = Counter[str](), Counter[str](getattr(source, "notes", ()))
    seen: dict[Any, str] = {}
    for index in tqdm(range(len(source)), unit="entry", disable=None):
        record = attempted(partial(_record, source, index, prepare))
        if isinstance(record, AvllmError):
            what: What = "media" if isinstance(record, MediaError) else "entry"
            faults.append(Fault(what=what, message=own_message(record)))
            continue
        media.update(medium.kind for turn in record.turns for medium in turn.media)
        where = record.id
        notes.update((*record.remarks, *(f"key {key} is not used" for key in record.unused)))
        if record.system and not prepare.has_system(record):
            notes["a text of the system is left out, the prompt form has no place for one"] += 1
        first = seen.setdefault(_content(record), where)
        if first != where:
            faults.append(Fault(what="duplicate", message=f"{where}: the same as {first}"))
        prepared = _length(prepare, record)
        if isinstance(prepared, Fault):
            faults.append(prepared)
        else:
            lengths.append(prepared)
    return Report(
        file=_name(config),
        entries=len(source),
        good=len(lengths),
        media=dict(media),
        lengths=tuple(lengths),
        faults=tuple(faults),
        notes=tuple(f"{note} ({count})" for note, count in sorted(notes.items())),
        max_unreadable=max_unreadable,
    )


def _record(source: Any, index: int, prepare: Prepare) -> Record:
    """An entry whose media the system has branches for."""
    record = source.record(index, 0)
    for medium in (medium for turn in record.turns for medium in turn.media):
        prepare.require_branch(medium, record.id)
    return record


def _length(prepare: Prepare, record: Record) -> int | Fault:
    """Ids of a record with its media, or what keeps it from being trained on."""
    found = attempted(lambda: len(prepare(record, 0).input_ids))
    if isinstance(found, int):
        return found
    if isinstance(found, TooLong):
        return Fault(what="length", message=own_message(found))
    if isinstance(found, DataError):
        return Fault(what="labels" if isinstance(found, NothingLearned) else "entry", message=own_message(found))
    return Fault(what="media", message=f"{record.id}: {own_message(found)}")  # a fault of code counts as this, too


def _name(config: Any) -> str:
    """Of a data set: where it lies, or its kind when it is drawn."""
    names = (getattr(config, name, "") for name in ("annotations", "shards", "root"))
    return next((name for name in names if name), type(config).__name__)


def draw_lengths(lengths: Sequence[int], picture: Path) -> None:
    """Draws how many entries have how many ids."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=min(50, max(1, len(set(lengths)))), color="#1f4e8c")
    axes.set(xlabel="ids of an entry, media included", ylabel="entries")
    axes.grid(alpha=0.3)
    with file_whole(picture) as unfinished:
        figure.savefig(unfinished, dpi=110, format=picture.suffix[1:] or "png")


def _content(record: Record) -> Any:
    if record.input_ids is not None:
        return record.id
    said = tuple((turn.role, turn.text, turn.places, tuple(map(_medium, turn.media))) for turn in record.turns)
    return record.system, said


def _medium(medium: Medium) -> Any:
    return medium.kind, str(medium.source), str(sorted(medium.options.items()))
