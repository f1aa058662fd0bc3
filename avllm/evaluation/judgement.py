"""What a judge's verdicts say together, beside what rules without a judge say of the same answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avllm.answers.words import says
from avllm.evaluation.aspects import HIGHEST
from avllm.evaluation.metrics import Mean, normalise_vqa, tidy

Row = Mapping[str, Any]
# Judges that need no network, from the strictest to the kindest.
OFFLINE: Mapping[str, Callable[[Row], bool]] = {
    "exact": lambda row: tidy(row["answer"]) in map(tidy, row["accepted"]),
    "normalised": lambda row: normalise_vqa(row["answer"]) in map(normalise_vqa, row["accepted"]),
    "rule": lambda row: any(says(row["answer"], truth) for truth in row["accepted"]),
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One judge on one aspect.

    Args:
        score: the mean of the scores as shares of the highest one.
        accuracy: how many answers it took for right, where that was asked.
        agreement: with the rule offline, over the same answers.
        failed: answers without a verdict.
    """

    score: Mean
    accuracy: Mean | None
    agreement: float | None
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the score on its own scale."""
        scale = {
            key: value * HIGHEST for key in ("mean", "low", "high") if (value := getattr(self.score, key)) is not None
        }
        return {
            "score": {**self.score.to_dict(), **{key: round(value, 6) for key, value in scale.items()}},
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "agreement_with_rule": self.agreement,
            "failed": self.failed,
        }

    def words(self) -> str:
        """For a table: the accuracy if there is one, and the score."""
        low, high = self.score.low, self.score.high
        if self.score.mean is None or low is None or high is None:
            return "-"
        score = f"{HIGHEST * self.score.mean:.2f} of {HIGHEST} ({HIGHEST * low:.2f} to {HIGHEST * high:.2f})"
        return f"{self.accuracy.percent()}, {score}" if self.accuracy else score


def judgements(rows: Sequence[Row], model: str) -> dict[str, Judgement]:
    """What one judge said, by aspect."""
    found: dict[str, list[tuple[Row, Mapping[str, Any]]]] = {}
    for row in rows:
        for aspect, verdict in row.get("verdicts", {}).get(model, {}).items():
            found.setdefault(aspect, []).append((row, verdict))
    return {aspect: _judgement(pairs) for aspect, pairs in found.items()}


def _judgement(pairs: Sequence[tuple[Row, Mapping[str, Any]]]) -> Judgement:
    given = [(row, verdict) for row, verdict in pairs if "score" in verdict]
    asked = [(row, verdict["is_match"]) for row, verdict in given if "is_match" in verdict]
    same = [OFFLINE["rule"](row) == is_match for row, is_match in asked]
    return Judgement(
        score=Mean.of([verdict["score"] / HIGHEST for _, verdict in given]),
        accuracy=Mean.of([float(is_match) for _, is_match in asked]) if asked else None,
        agreement=round(sum(same) / len(same), 6) if same else None,
        failed=len(pairs) - len(given),
    )
