"""What a run found: means with intervals, overall and split, as JSON and as a table for the terminal."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from avllm.evaluation.metrics import Mean


@dataclass(frozen=True, kw_only=True)
class Report:
    """The scored rows of a run.

    Args:
        name: of the benchmark.
        rows: of the log, each with `score`, or with `error`.
        missing: media that are not there.
        num_without_media: samples that were not asked for that reason.
        max_missing: highest share of samples without an answer.
        run: the header of the log.
        measures: figures of many answers together, by category ("all" for all) and name.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    num_without_media: int
    max_missing: float
    run: Mapping[str, Any]
    measures: Mapping[str, Mapping[str, Mean]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Mapping[str, Any]]:
        """Rows without an answer."""
        return [row for row in self.rows if "error" in row]

    @property
    def answered(self) -> list[Mapping[str, Any]]:
        """Rows with an answer."""
        return [row for row in self.rows if "error" not in row]

    @property
    def num_samples(self) -> int:
        """Samples asked and not asked."""
        return len(self.rows) + self.num_without_media

    @property
    def missing_share(self) -> float:
        """Share of samples without an answer."""
        return (len(self.errors) + self.num_without_media) / self.num_samples if self.num_samples else 0.0

    @property
    def ok(self) -> bool:
        """Whether enough samples were answered."""
        return self.missing_share <= self.max_missing

    @cached_property
    def overall(self) -> Mean:
        """Over all samples with a truth."""
        return _mean(self.answered)

    @cached_property
    def categories(self) -> dict[str, Mean]:
        """By category, in order of name."""
        return _split(self.answered, lambda row: row.get("category"))

    @cached_property
    def groups(self) -> dict[str, dict[str, Mean]]:
        """The further splits of the benchmark."""
        names = dict.fromkeys(name for row in self.answered for name in row.get("groups", {}))
        return {name: _split(self.answered, lambda row, n=name: row.get("groups", {}).get(n)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The form of report.json."""
        return {
            "name": self.name,
            "model": self.run.get("model"),
            "overall": self.overall.to_dict(),
            "categories": {name: mean.to_dict() for name, mean in self.categories.items()},
            "groups": {name: {k: v.to_dict() for k, v in split.items()} for name, split in self.groups.items()},
            "measures": {part: {k: v.to_dict() for k, v in some.items()} for part, some in self.measures.items()},
            "samples": self.num_samples,
            "answered": len(self.answered),
            "nothing_read": sum(not row["read_as"] for row in self.answered),
            "missing_media": list(self.missing),
            "without_media": self.num_without_media,
            "errors": [{"id": row["id"], "error": row["error"]} for row in self.errors],
            "ok": self.ok,
            "run": dict(self.run),
        }

    def to_json(self) -> str:
        """The text of report.json."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def to_table(self) -> str:
        """For the terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.name}, {self.run.get('model', '')}")
        for title in ("", "score, 95 % interval", "n"):
            table.add_column(title, justify="right" if title == "n" else "left")
        for name, mean in self.categories.items():
            table.add_row(name, mean.percent(), str(mean.n))
        for name, split in self.groups.items():
            table.add_section()
            for value, mean in split.items():
                table.add_row(f"{name}: {value}", mean.percent(), str(mean.n))
        for part, some in self.measures.items():
            table.add_section()
            for name, mean in some.items():
                table.add_row(f"{part}: {name}", mean.percent(), str(mean.n))
        table.add_section()
        table.add_row("all", self.overall.percent(), str(self.overall.n), style="bold")
        console = Console(width=100)
        with console.capture() as captured:
            console.print(table)
        return "\n".join([captured.get().rstrip(), *self._remarks()])

    def _remarks(self) -> Iterable[str]:
        unread = sum(not row["read_as"] for row in self.answered)
        if unread:
            yield f"{unread} of {len(self.answered)} answers choose nothing that could be read"
        if self.errors:
            yield f"{len(self.errors)} samples failed, for example: {self.errors[0]['error']}"
        if self.missing:
            shown = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
            yield f"{len(self.missing)} media of {self.num_without_media} samples are missing: {shown}"
        if not self.ok:
            yield (
                f"{100 * self.missing_share:.1f} % of the samples have no answer, allowed are "
                f"{100 * self.max_missing:.1f} % (max_missing)"
            )


def _split(rows: Iterable[Mapping[str, Any]], key: Any) -> dict[str, Mean]:
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if key(row):
            parts.setdefault(key(row), []).append(row)
    return {name: _mean(parts[name]) for name in sorted(parts)}


def _mean(rows: Iterable[Mapping[str, Any]]) -> Mean:
    return Mean.of(list(scores(rows).values()))


def scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Scores of the questions with a truth; of rows that count as one question, the worst."""
    found: dict[str, float] = {}
    for row in rows:
        if row["score"] is not None:
            name = row.get("together") or row["id"]
            found[name] = min(found.get(name, row["score"]), row["score"])
    return found
