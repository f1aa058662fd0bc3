"""What a run found: means with intervals, overall and split, as JSON and as a table for the terminal."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from avllm.evaluation.judge import FILE
from avllm.evaluation.judgement import OFFLINE, Judgement, judgements
from avllm.evaluation.metrics import Mean
from avllm.evaluation.shuffling import Shuffled


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
        shuffled: rows of the same questions with their options in other orders.
        judges: by model, the tokens, the cost, and who said that it answered.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    num_without_media: int
    max_missing: float
    run: Mapping[str, Any]
    measures: Mapping[str, Mapping[str, Mean]] = field(default_factory=dict)
    shuffled: tuple[Mapping[str, Any], ...] = ()
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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

    @cached_property
    def orders(self) -> Shuffled | None:
        """What the other orders of the options say, if they were asked."""
        return Shuffled.of(self.answered, [row for row in self.shuffled if "error" not in row])

    @cached_property
    def judgements(self) -> dict[str, dict[str, Judgement]]:
        """What the judges said: model -> aspect."""
        return {model: judgements(self.answered, model) for model in self.judges}

    @cached_property
    def offline(self) -> dict[str, Mean]:
        """Open answers without a judge: equal to an accepted one, equal in VQA's normal form, holding it."""
        rows = [row for row in self.answered if row.get("accepted")]
        return {name: Mean.of([float(rule(row)) for row in rows]) for name, rule in OFFLINE.items()} if rows else {}

    def to_dict(self) -> dict[str, Any]:
        """The form of report.json."""
        return {
            "name": self.name,
            "model": self.run.get("model"),
            "overall": self.overall.to_dict(),
            "categories": {name: mean.to_dict() for name, mean in self.categories.items()},
            "groups": {name: {k: v.to_dict() for k, v in split.items()} for name, split in self.groups.items()},
            "measures": {part: {k: v.to_dict() for k, v in some.items()} for part, some in self.measures.items()},
            "shuffled_options": self.orders.to_dict() if self.orders else None,
            "offline": {name: mean.to_dict() for name, mean in self.offline.items()},
            "judges": {
                model: {**self.judges[model], "aspects": {name: one.to_dict() for name, one in found.items()}}
                for model, found in self.judgements.items()
            },
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
        table.add_section()
        for name, mean in self.orders.named().items() if self.orders else ():
            table.add_row(name, mean.percent(), str(mean.n))
        table.add_section()
        for name, words, n in self.judge_lines():
            table.add_row(name, words, str(n))
        console = Console(width=100, color_system=None, markup=False)
        with console.capture() as captured:
            console.print(table)
        return "\n".join([captured.get().rstrip(), *self._remarks()])

    def judge_lines(self) -> Iterable[tuple[str, str, int]]:
        """What judges said: name, figure and number of answers; beside yes and no, what rules say of these."""
        asks_verdict = False
        for model, found in self.judgements.items():
            for aspect, one in found.items():
                yield f"{model}: {aspect}", one.words(), one.score.n
                asks_verdict |= one.accuracy is not None
        if asks_verdict:
            yield from ((f"offline: {name}", mean.percent(), mean.n) for name, mean in self.offline.items())

    def _remarks(self) -> Iterable[str]:
        unread = sum(not row["read_as"] for row in self.answered)
        if unread:
            yield f"{unread} of {len(self.answered)} answers choose nothing that could be read"
        if self.errors:
            yield f"{len(self.errors)} samples failed, for example: {self.errors[0]['error']}"
        if self.missing:
            shown = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
            yield f"{len(self.missing)} media of {self.num_without_media} samples are missing: {shown}"
        for model, spent in self.judges.items():
            cost = "" if spent["cost"] is None else f", cost {spent['cost']:.4f}"
            yield f"judge {model}: {spent['tokens'][0]} tokens in, {spent['tokens'][1]} out{cost}"
            if len(spent["served_by"]) > 1:
                yield f"judge {model}: changed meanwhile: {', '.join(spent['served_by'])}"
            failed = sum(one.failed for one in self.judgements[model].values())
            if failed:
                yield f"judge {model}: {failed} verdicts failed, --resume asks for them again; see {FILE}"
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
