"""Looks a file of your own data through before it is trained on: its form, media, slots, labels, lengths."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from avllm.data.annotations import read_entries
from avllm.data.context import Context
from avllm.data.conversations import Conversations, read_record
from avllm.data.prepare import Prepare
from avllm.data.records import DatasetConfig, Record
from avllm.data.webdataset import WebDataset
from avllm.errors import DataError, MediaError

MAX_SHOWN = 20
What = Literal["entry", "media", "labels", "duplicate"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with one entry.

    Args:
        what: its form, media that cannot be opened, nothing to learn, or the same as an earlier entry.
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
        max_unreadable: share of entries whose media may be unreadable.
    """

    file: str
    entries: int
    good: int
    media: dict[str, int]
    lengths: tuple[int, ...]
    faults: tuple[Fault, ...]
    max_unreadable: float

    @property
    def ok(self) -> bool:
        """Whether a stage would train on it: duplicates are told, but do not stop it."""
        count = self.count
        return not count["entry"] and not count["labels"] and count["media"] <= self.max_unreadable * self.entries

    @property
    def count(self) -> dict[str, int]:
        """How many faults of each kind."""
        found = Counter(fault.what for fault in self.faults)
        return {what: found[what] for what in ("entry", "media", "labels", "duplicate")}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; lengths in short."""
        plain = asdict(self) | {"lengths": self._lengths(), "count": self.count, "ok": self.ok}
        return plain | {"faults": [asdict(fault) for fault in self.faults]}

    def to_table(self) -> str:
        """Lines for people."""
        count, lengths = self.count, self._lengths()
        media = ", ".join(f"{number} {kind}" for kind, number in self.media.items()) or "none"
        lines = [
            f"{self.file}: {'can be trained on' if self.ok else 'has faults'}",
            f"entries     {self.entries}, good {self.good}",
            f"media       {media}; unreadable in {count['media']} entries, allowed {self.max_unreadable:.1%}",
            f"faults      form {count['entry']}, nothing to learn {count['labels']}, duplicates {count['duplicate']}",
        ]
        if lengths:
            lines.append("token ids   " + ", ".join(f"{name} {value}" for name, value in lengths.items()))
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
    modality: Mapping[str, Any] | None = None,
    max_text_tokens: int | None = None,
    max_unreadable: float = 0.01,
) -> Report:
    """Reads every entry as a stage would, media included, and goes on after a fault.

    Args:
        config: a dataset: its file and the folder of its media.
        processor: of the system that is to be trained.
        modality: as of the stage.
        max_text_tokens: as of the stage.
        max_unreadable: as of the stage.

    Raises:
        DataError: the file is missing or has another form; of conversations and tars, single entries are no reason.
    """
    file, rows = _rows(config)
    prepare = Prepare(processor, modality=modality, max_text_tokens=max_text_tokens)
    faults: list[Fault] = []
    lengths: list[int] = []
    media: Counter[str] = Counter()
    seen: dict[Any, str] = {}
    for where, read in tqdm(rows, unit="entry", disable=None):
        try:
            record = read()
        except DataError as error:
            faults.append(Fault(what="entry", message=str(error)))
            continue
        media.update(medium.kind for turn in record.turns for medium in turn.media)
        first = seen.setdefault(_content(record), where)
        if first != where:
            faults.append(Fault(what="duplicate", message=f"{where}: the same as {first}"))
        try:
            lengths.append(len(prepare(record, 0).input_ids))
        except MediaError as error:
            faults.append(Fault(what="media", message=f"{where}: {error}"))
        except DataError as error:
            faults.append(Fault(what="labels", message=str(error)))
    return Report(
        file=file,
        entries=len(rows),
        good=len(lengths),
        media=dict(media),
        lengths=tuple(lengths),
        faults=tuple(faults),
        max_unreadable=max_unreadable,
    )


def _rows(config: Any) -> tuple[str, list[tuple[str, Callable[[], Record]]]]:
    """Name of the dataset; name and reader of each entry."""
    if isinstance(config, Conversations.Config):
        rows = read_entries(Path(config.annotations))
        return config.annotations, [(where, partial(read_record, entry, where, config)) for entry, where in rows]
    if isinstance(config, WebDataset.Config):
        tars = WebDataset(config)
        return config.shards, [(tars.where(index), partial(tars.record, index, 0)) for index in range(len(tars))]
    name = str(getattr(config, "annotations", "") or getattr(config, "root", ""))
    source = config.build(Context())
    return name, [(f"{name}[{index}]", partial(source.record, index, 0)) for index in range(len(source))]


def draw_lengths(lengths: Sequence[int], picture: Path) -> None:
    """Draws how many entries have how many ids."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=min(50, max(1, len(set(lengths)))), color="#1f4e8c")
    axes.set(xlabel="ids of an entry, media included", ylabel="entries")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def _content(record: Record) -> Any:
    return tuple(
        (turn.role, turn.text, tuple((medium.kind, str(medium.source)) for medium in turn.media))
        for turn in record.turns
    )
