"""Scores of single answers, and what a list of scores says: mean, interval, paired test."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from avllm.answers.vqa import normalise_vqa

_DRAWS, _SEED = 2000, 0
_FEW = 50


def vqa_accuracy(answer: str, truths: Sequence[str]) -> float:
    """Soft accuracy: over the people asked, the mean of min(1, how many of the others said so / 3).

    Source: VQA v2; ten people answered each question. With one truth alone, whether it is the answer.
    """
    said, right = normalise_vqa(answer), [normalise_vqa(truth) for truth in truths]
    if len(right) == 1:
        return float(said == right[0])
    matches = right.count(said)
    others = [matches - (truth == said) for truth in right]
    return sum(min(1.0, count / 3) for count in others) / len(right) if right else 0.0


def tidy(text: str) -> str:
    """Lower case, single spaces, without a mark at the end."""
    return " ".join(text.lower().split()).rstrip(".! ")


def yes_or_no(answer: str) -> str:
    """Yes or no, as POPE reads it: no where the first sentence has the word no or not, else yes."""
    return "no" if {"no", "not"} & set(re.findall(r"[a-z']+", answer.split(".")[0].lower())) else "yes"


def anls(answer: str, truths: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest truth; under a half it counts as none.

    Source: Biten et al. (arXiv:1905.13648), equation 1.
    """
    said = " ".join(answer.lower().split())
    near = [
        1 - _edits(said, right) / max(len(said), len(right), 1)
        for right in (" ".join(t.lower().split()) for t in truths)
    ]
    best = max(near, default=0.0)
    return best if best > 0.5 else 0.0


def _edits(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for index, letter in enumerate(first, start=1):
        before, row = row, [index]
        for other, place in zip(second, range(1, len(second) + 1), strict=True):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (letter != other)))
    return row[-1]


def detection(pairs: Sequence[tuple[str, str]]) -> dict[str, "Mean"]:
    """F1, precision and recall of yes, and the share of yes among the answers, as POPE reports them.

    Args:
        pairs: what was said and what is right, yes or no each; what is neither is no yes.
    """
    found = [(said == "yes", right == "yes") for said, right in pairs]
    sides = ((True, True), (True, False), (False, True), (False, False))
    counts = np.array([found.count(side) for side in sides], dtype=np.float64)
    # The four counts of a resample follow this law; no sample has to be drawn one by one.
    drawn = np.random.default_rng(_SEED).multinomial(len(pairs), counts / max(len(pairs), 1), size=_DRAWS)
    figures = {}
    for name, value, many in zip(("F1", "precision", "recall", "yes"), _rates(counts), _rates(drawn.T), strict=True):
        low, high = np.percentile(many, [2.5, 97.5])
        figures[name] = Mean.near(float(value), float(low), float(high), n=len(pairs))
    return figures


def _rates(counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """F1, precision, recall and share of yes from true yes, false yes, false no, true no; 0 where nothing counts."""
    hits, false_yes, false_no, _ = counts
    least = 1e-12
    precision, recall = hits / np.maximum(hits + false_yes, least), hits / np.maximum(hits + false_no, least)
    f1 = 2 * hits / np.maximum(2 * hits + false_yes + false_no, least)
    return f1, precision, recall, (hits + false_yes) / np.maximum(counts.sum(axis=0), least)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of n scores with its 95 % bootstrap interval; None where there are no scores."""

    mean: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Mean":
        """Percentiles of the means of resamples; the same scores give the same interval, in any order.

        Resamples of equal scores have no spread; if all are right or all wrong, the interval is Wilson's.
        """
        values = np.sort(np.asarray(scores, dtype=np.float64))
        if not len(values):
            return cls(mean=None, low=None, high=None, n=0)
        low, high = np.percentile(_resampled_means(values), [2.5, 97.5])
        if values[0] == values[-1] in (0.0, 1.0):
            edge = len(values) / (len(values) + 1.959964**2)
            low, high = (0.0, 1 - edge) if values[0] == 0 else (edge, 1.0)
        rounded = [round(float(value), 6) for value in (values.mean(), low, high)]
        return cls(mean=rounded[0], low=rounded[1], high=rounded[2], n=len(values))

    @classmethod
    def near(cls, mean: float, low: float, high: float, *, n: int) -> "Mean":
        """A figure of n samples together, which is no mean of theirs, with its interval."""
        return cls(mean=round(mean, 6), low=round(low, 6), high=round(high, 6), n=n)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def percent(self) -> str:
        """In percent, for people: `81.0 (72.0 to 89.0)`."""
        if self.mean is None or self.low is None or self.high is None:
            return "-"
        return f"{100 * self.mean:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two runs on the same samples: the mean difference (first minus second), its 95 % interval, and a test.

    Args:
        p: of a sign-flip test of no difference, two-sided.
        only_first: samples on which the first scored higher.
        only_second: samples on which the second scored higher.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> "Paired":
        """Raises ValueError when the scores are not of the same, at least one, samples."""
        if len(first) != len(second) or not first:
            raise ValueError(f"expected scores of the same samples, got {len(first)} and {len(second)}")
        gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
        low, high = np.percentile(_resampled_means(np.sort(gaps)), [2.5, 97.5])
        rng, nonzero = np.random.default_rng(_SEED), gaps[gaps != 0]
        flipped = np.array([(2 * rng.integers(0, 2, len(nonzero)) - 1) @ nonzero for _ in range(_DRAWS)])
        extreme = int((np.abs(flipped) >= abs(nonzero.sum()) - 1e-9).sum())
        return cls(
            difference=round(float(gaps.mean()), 6),
            low=round(float(low), 6),
            high=round(float(high), 6),
            p=round((extreme + 1) / (_DRAWS + 1), 6),
            n=len(gaps),
            only_first=int((gaps > 0).sum()),
            only_second=int((gaps < 0).sum()),
        )


def _resampled_means(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " draws"]:
    """Means of resamples with replacement."""
    rng, (found, counts) = np.random.default_rng(_SEED), np.unique(values, return_counts=True)
    if len(found) > _FEW:
        return np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(_DRAWS)])
    # Of few different scores, how often each is drawn is multinomial: the same, and far quicker.
    return rng.multinomial(len(values), counts / len(values), _DRAWS) @ found / len(values)
