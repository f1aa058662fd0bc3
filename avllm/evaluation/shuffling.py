"""The same multiple choice with its options in other orders: does a model choose what it means, or a place?"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from avllm.evaluation.extraction import LETTERS
from avllm.evaluation.metrics import Mean
from avllm.evaluation.sample import Sample

Row = Mapping[str, Any]


def in_orders(sample: Sample, num_orders: int) -> Iterator[Sample]:
    """The sample, and after it the same question with its options in further orders, as many as there are.

    Args:
        sample: if it has no options, nothing is added.
        num_orders: in all, with the published one.
    """
    yield sample
    num_options = len(sample.options)
    wanted = min(num_orders, math.factorial(num_options)) if num_options else 1
    draw, seen = random.Random(sample.id.encode(errors="backslashreplace")), {tuple(range(num_options))}
    while len(seen) < wanted:
        order = tuple(draw.sample(range(num_options), num_options))
        if order in seen:
            continue
        yield replace(
            sample,
            id=f"{sample.id}~{len(seen)}",
            options=tuple(sample.options[index] for index in order),
            truth=None if sample.truth is None else order.index(sample.truth),
            shuffle_of=sample.id,
            order=order,
        )
        seen.add(order)


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """What several orders of the options say.

    Args:
        consistent: whether one and the same option was chosen in all orders of a question.
        score: of a question, the mean over its orders.
        right_in_all: whether a question was answered right in all its orders.
        num_orders: most orders of a question.
    """

    consistent: Mean
    score: Mean
    right_in_all: Mean
    num_orders: int

    def named(self) -> dict[str, Mean]:
        """For tables."""
        return {
            "same choice in all orders": self.consistent,
            "score over all orders": self.score,
            "right in all orders": self.right_in_all,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        means = {name: getattr(self, name).to_dict() for name in ("consistent", "score", "right_in_all")}
        return {**means, "num_orders": self.num_orders}

    @classmethod
    def of(cls, rows: Sequence[Row], others: Sequence[Row]) -> "Shuffled | None":
        """From answered rows in the published order and in others; None where there are no others."""
        asked: dict[str, list[Row]] = {}
        for row in others:
            asked.setdefault(row["shuffle_of"], []).append(row)
        questions = [[row, *asked[row["id"]]] for row in rows if row["id"] in asked]
        if not questions:
            return None
        choices = [[_chosen(row) for row in question] for question in questions]
        scores = [[row["score"] for row in question] for question in questions]
        scores = [several for several in scores if None not in several]
        return cls(
            consistent=Mean.of([float(None not in chosen and len(set(chosen)) == 1) for chosen in choices]),
            score=Mean.of([sum(several) / len(several) for several in scores]),
            right_in_all=Mean.of([float(min(several) == 1) for several in scores]),
            num_orders=max(map(len, questions)),
        )


def _chosen(row: Row) -> int | None:
    """The option that was chosen, by its place in the published order."""
    index = LETTERS.find(row["read_as"]) if row["read_as"] and len(row["read_as"]) == 1 else -1
    if not 0 <= index < len(row.get("options", LETTERS)):
        return None
    return row["order"][index] if "order" in row else index
