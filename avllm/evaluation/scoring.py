"""From a row of a log to its score: each kind of benchmark has its way, and none needs the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from avllm.evaluation.extraction import LETTERS, PUBLISHED, ChoiceRule, first_words_agree
from avllm.evaluation.metrics import says, tidy, vqa_accuracy, yes_or_no


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What an answer was read as, and its score from 0 to 1; None where the truth is not published."""

    read_as: str
    score: float | None


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """Whether the chosen option is the right one.

    Args:
        rule: how the option is found; see `ChoiceRule`.
        published: in place of `rule`, that of a published evaluation: mvbench, videomme, videomme_scorer, egoschema, or
            videochat2, which compares first words.
        empty_is_right: with videochat2, an empty answer counts as right, as published.
    """

    rule: ChoiceRule = field(default_factory=ChoiceRule)
    published: Literal["mvbench", "videomme", "videomme_scorer", "egoschema", "videochat2"] | None = None
    empty_is_right: bool = False

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """`answer` begins with what the prompt ended with, so that "(" of "Best option:(" is there."""
        options, truth = row["options"], row.get("truth")
        if self.published == "videochat2":
            agree = [
                first_words_agree(answer, f"({LETTERS[index]}) {text}", empty_is_right=self.empty_is_right)
                for index, text in enumerate(options)
            ]
            chosen = agree.index(True) if True in agree else None
            return Scored(read_as=_letter(chosen), score=None if truth is None else float(agree[truth]))
        chosen = (PUBLISHED[self.published] if self.published else self.rule).choose(answer, options)
        return Scored(read_as=_letter(chosen), score=None if truth is None else float(chosen == truth))


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Whether the answer, without case and mark at its end, is one of the accepted ones."""

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        said = tidy(answer)
        accepted = row.get("accepted")
        return Scored(read_as=said, score=float(said in map(tidy, accepted)) if accepted else None)


@dataclass(frozen=True, kw_only=True)
class Vqa:
    """The soft accuracy of VQA."""

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        accepted = row.get("accepted")
        return Scored(read_as=tidy(answer), score=vqa_accuracy(answer, accepted) if accepted else None)


@dataclass(frozen=True, kw_only=True)
class Contains:
    """Whether an accepted answer stands in the answer as whole words; a yes/no question wants the right one of both.

    This is a rule, not a judge: "a man" is not found in "a boy", and "not a dog" holds "dog".
    """

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        accepted = row.get("accepted")
        if not accepted:
            return Scored(read_as=tidy(answer), score=None)
        if {tidy(text) for text in accepted} <= {"yes", "no"}:
            words = {"yes", "no"} & set(tidy(answer).replace(",", " ").split())
            said = words.pop() if len(words) == 1 else ""
            return Scored(read_as=said, score=float(said in map(tidy, accepted)))
        return Scored(read_as=tidy(answer), score=float(any(says(answer, text) for text in accepted)))


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """Yes or no, read from the first sentence as POPE does."""

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        said, accepted = yes_or_no(answer), row.get("accepted")
        return Scored(read_as=said, score=float(said in map(tidy, accepted)) if accepted else None)


Scorer = MultipleChoice | Accepted | Vqa | Contains | YesNo
SCORERS: dict[str, type] = {
    "choice": MultipleChoice,
    "accepted": Accepted,
    "vqa": Vqa,
    "contains": Contains,
    "yes_no": YesNo,
}


def _letter(index: int | None) -> str:
    return "" if index is None else LETTERS[index]
