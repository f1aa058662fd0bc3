"""From a row of a log to its score: each kind of benchmark has its way, and none needs the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from avllm.answers.words import says
from avllm.answers.yes_no import read_yes_no
from avllm.errors import ConfigError
from avllm.evaluation.captions import bleu, cider_d, rouge_l
from avllm.evaluation.extraction import LETTERS, PUBLISHED, ChoiceRule, first_words_agree, scienceqa_letter
from avllm.evaluation.metrics import Mean, anls, detection, normalise_vqa, tidy, vqa_accuracy, yes_or_no

Rows = Sequence[Mapping[str, Any]]
_YES_OR_NO = {"yes", "no", "是", "否", "是的", "不是"}


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
        published: in place of `rule`, that of a published evaluation: mvbench, videomme, videomme_scorer, egoschema;
            videochat2, which compares first words; sounds, where the right label anywhere in the answer is right, even
            within a word or beside others; scienceqa, which reads "B", "B. text" and "The answer is B" alone.
        empty_is_right: with videochat2, an empty answer counts as right, as published.
    """

    rule: ChoiceRule = field(default_factory=ChoiceRule)
    published: (
        Literal["mvbench", "videomme", "videomme_scorer", "egoschema", "videochat2", "sounds", "scienceqa"] | None
    ) = None
    empty_is_right: bool = False

    def __post_init__(self) -> None:
        if self.published and self.rule != ChoiceRule():
            raise ConfigError(f"score.rule: score.published={self.published} is a rule of its own; give one of them")
        if self.empty_is_right and self.published != "videochat2":
            raise ConfigError("score.empty_is_right: it is a switch of score.published=videochat2")

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """`answer` begins with what the prompt ended with, so that "(" of "Best option:(" is there."""
        options, truth = row["options"], row.get("truth")
        if self.published == "sounds" and truth is not None and options[truth].lower() in answer.lower():
            return Scored(read_as=_letter(truth), score=1.0)
        if self.published in ("sounds", "scienceqa"):
            letter = answer.strip().upper().strip("()") if self.published == "sounds" else scienceqa_letter(answer)
            chosen = LETTERS.find(letter) if letter and letter in LETTERS[: len(options)] else None
            return Scored(read_as=_letter(chosen), score=None if truth is None else float(chosen == truth))
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
        return Scored(read_as=normalise_vqa(answer), score=vqa_accuracy(answer, accepted) if accepted else None)


@dataclass(frozen=True, kw_only=True)
class Anls:
    """How near the answer is to an accepted one, by its letters."""

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        accepted = row.get("accepted")
        return Scored(read_as=tidy(answer), score=anls(answer, accepted) if accepted else None)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """ROUGE-L of each answer against its references; of all together CIDEr-D and BLEU, too."""

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        accepted = row.get("accepted")
        return Scored(read_as=tidy(answer), score=rouge_l(answer, accepted) if accepted else None)

    def measures(self, rows: Rows) -> dict[str, Mean]:
        """CIDEr-D, of which 1 is usually called 100 %, and BLEU-4."""
        answers, truths = [row["answer"] for row in rows], [row["accepted"] for row in rows]
        found = {"CIDEr-D": Mean.of(cider_d(answers, truths)), "BLEU-4": bleu(answers, truths)}
        return {name: mean for name, mean in found.items() if mean is not None}


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
        if set(map(tidy, accepted)) <= _YES_OR_NO:
            said = read_yes_no(answer)
            return Scored(read_as=said, score=float(said in map(read_yes_no, accepted)))
        return Scored(read_as=tidy(answer), score=float(any(says(answer, text) for text in accepted)))


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """Yes or no, read from the first sentence as POPE does.

    Args:
        needs_a_word: it is read as `yes_no.read_yes_no` does, and an answer that says neither is wrong; POPE takes it
            for a yes.
    """

    needs_a_word: bool = False

    def score(self, answer: str, row: Mapping[str, Any]) -> Scored:
        """See the class."""
        said, accepted = (read_yes_no if self.needs_a_word else yes_or_no)(answer), row.get("accepted")
        return Scored(read_as=said, score=float(said in map(tidy, accepted)) if accepted else None)

    def measures(self, rows: Rows) -> dict[str, Mean]:
        """F1, precision and recall of yes, and its share."""
        return detection([(row["read_as"], tidy(row["accepted"][0])) for row in rows])


Scorer = MultipleChoice | Accepted | Vqa | Anls | Contains | YesNo | Caption
SCORERS: dict[str, type] = {
    "choice": MultipleChoice,
    "accepted": Accepted,
    "vqa": Vqa,
    "anls": Anls,
    "contains": Contains,
    "yes_no": YesNo,
    "caption": Caption,
}


def measures(scorer: Scorer, rows: Rows) -> dict[str, dict[str, Mean]]:
    """Figures of rows together, which are no means of their scores: of all, and by category where there are several.

    Args:
        scorer: some have none.
        rows: scored ones of a log; those without a truth do not count.
    """
    if not isinstance(scorer, YesNo | Caption):
        return {}
    scored = [row for row in rows if row.get("score") is not None]
    names = sorted({row["category"] for row in scored if row.get("category")})
    parts = {"all": scored}
    if len(names) > 1:
        parts |= {name: [row for row in scored if row.get("category") == name] for name in names}
    return {name: scorer.measures(part) for name, part in parts.items() if part}


def _letter(index: int | None) -> str:
    return "" if index is None else LETTERS[index]
