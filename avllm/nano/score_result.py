"""What a run of `avllm nano score` found: outcomes, accuracies with intervals, the JSON and the table."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from avllm.nano.sample import TYPES


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One question, what was right and what was answered."""

    type: str
    kind: str
    held_out: bool
    question: str
    truth: str
    answer: str
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of right answers out of n, with its 95 % Wilson interval; None where nothing was asked."""

    accuracy: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, rights: Sequence[bool]) -> "Accuracy":
        """Source: E. B. Wilson (1927), the score interval, z = 1.96."""
        n = len(rights)
        if not n:
            return cls(accuracy=None, low=None, high=None, n=0)
        share, z = sum(rights) / n, 1.959964
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        low, high = max(centre - half, 0.0), min(centre + half, 1.0)
        return cls(accuracy=round(share, 4), low=round(low, 4), high=round(high, 4), n=n)

    def to_dict(self) -> dict:
        """Plain data, for JSON."""
        return {"accuracy": self.accuracy, "low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        if self.accuracy is None:
            return "-"
        return f"{100 * self.accuracy:.1f} %  ({100 * (self.low or 0):.1f} - {100 * (self.high or 0):.1f})"


@dataclass(frozen=True, kw_only=True)
class Score:
    """All outcomes, and their summary as JSON or as a table.

    Args:
        outcomes: of questions that are each asked alone.
        later_turns: of questions asked as the second turn of a conversation.
    """

    outcomes: tuple[Outcome, ...] = field(repr=False)
    later_turns: tuple[Outcome, ...] = field(repr=False, default=())
    clips: int
    seed: int
    seconds: float
    parameters: int
    weights_bytes: int

    def accuracies(self, *, held_out: bool) -> dict[str, Accuracy]:
        """By type of question."""
        rights: dict[str, list[bool]] = {name: [] for name in TYPES}
        for outcome in self.outcomes:
            if outcome.held_out == held_out:
                rights[outcome.type].append(outcome.is_right)
        return {name: Accuracy.of(values) for name, values in rights.items()}

    def yes_share(self) -> dict[str, float | None]:
        """Share of yes among the answers to the yes/no questions about things and sounds, and among the truths."""
        asked = [outcome for outcome in self.outcomes if outcome.type == "yes_no" and not outcome.held_out]
        if not asked:
            return {"said": None, "true": None}
        said = sum(tidy(outcome.answer).startswith("yes") for outcome in asked) / len(asked)
        true = sum(outcome.truth == "yes" for outcome in asked) / len(asked)
        return {"said": round(said, 4), "true": round(true, 4)}

    def to_dict(self) -> dict:
        """The form of `avllm nano score --json`."""
        return {
            "clips": self.clips,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "scores": {name: value.to_dict() for name, value in self.accuracies(held_out=False).items()},
            "held_out": {name: value.to_dict() for name, value in self.accuracies(held_out=True).items()},
            "yes_share": self.yes_share(),
            "later_turns": Accuracy.of([outcome.is_right for outcome in self.later_turns]).to_dict(),
            "parameters": self.parameters,
            "weights_bytes": self.weights_bytes,
        }

    def to_table(self) -> str:
        """Accuracies with intervals, then the commonest mistakes."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"nano on {self.clips} unseen clips, seed {self.seed}")
        for title in ("question", "right (95 % interval)", "n", "held-out pairs", "n"):
            table.add_column(title, justify="right" if title == "n" else "left")
        held_out = self.accuracies(held_out=True)
        for name, value in self.accuracies(held_out=False).items():
            table.add_row(name.replace("_", " "), str(value), str(value.n), str(held_out[name]), str(held_out[name].n))
        share = self.yes_share()
        console = Console(width=100, color_system=None, markup=False)
        with console.capture() as captured:
            console.print(table)
            if share["said"] is not None and share["true"] is not None:
                console.print(
                    f"says yes in {100 * share['said']:.1f} % of yes/no questions, true {100 * share['true']:.1f} %"
                )
            if self.later_turns:
                later = Accuracy.of([outcome.is_right for outcome in self.later_turns])
                console.print(f"asked as a second turn: {later} right of {later.n}")
            console.print(
                f"{self.parameters / 1e6:.2f} M parameters, {self.weights_bytes / 1e6:.1f} MB of weights, "
                f"{self.seconds:.0f} s"
            )
        return captured.get().rstrip()

    def mistakes(self, most: int = 20) -> list[tuple[str, str, str, int]]:
        """The commonest wrong answers, as (kind of question, truth, answer, how often)."""
        counts: dict[tuple[str, str, str], int] = defaultdict(int)
        for outcome in self.outcomes:
            if not outcome.is_right:
                counts[outcome.kind, outcome.truth, outcome.answer] += 1
        ordered = sorted(counts.items(), key=lambda item: -item[1])[:most]
        return [(*key, count) for key, count in ordered]


def tidy(answer: str) -> str:
    """An answer as it is compared: lower case, single spaces, without a full stop."""
    return " ".join(answer.lower().split()).rstrip(".! ")
