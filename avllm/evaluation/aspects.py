"""What a judge looks at in an open answer: the criteria of the published GPT evaluations, each with its scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HIGHEST = 5  # of the score that a judge gives, a whole number from 0


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One criterion.

    Source: the evaluations of Video-ChatGPT (arXiv:2306.05424) and of VideoLLaMA 2 (MSVC, AVSD). The criteria are
    theirs, point by point; they asked for a Python dictionary where a judge here is asked for JSON.

    Args:
        name: what is judged.
        task: what the judge has to find out.
        points: what to look at.
        asks_verdict: whether a yes or no, "does it match", is wanted beside the score.
    """

    name: str
    task: str
    points: tuple[str, ...]
    asks_verdict: bool = False

    @property
    def instructions(self) -> str:
        """The system text of the judge."""
        points = "\n".join(f"- {point}" for point in self.points)
        return (
            f"You evaluate the {self.name} of answers that a model gave to questions about a video. {self.task}\n"
            f"INSTRUCTIONS:\n{points}\n"
            f"Score the {self.name} with a whole number from 0 to {HIGHEST}, {HIGHEST} being the highest."
        )

    def asked(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """What the judge is shown: one row of a log, or those that belong together.

        Args:
            rows: with `question`, `accepted` and `answer`; more than one share their right answer.
        """
        several = len(rows) > 1
        lines = [f"Question{_number(several, i)}: {row['question']}" for i, row in enumerate(rows, start=1)]
        right = list(rows[0].get("accepted", ()))
        lines.append(f"Correct Answer: {right[0]}" if len(right) == 1 else f"Correct Answers: {right}")
        lines += [
            f"Predicted Answer{' to Question' if several else ''}{_number(several, i)}: {row['answer']}"
            for i, row in enumerate(rows, start=1)
        ]
        return "\n".join(lines)


def _number(several: bool, index: int) -> str:
    return f" {index}" if several else ""


_SAME_WORDS = "Synonyms and paraphrases are valid matches."
ASPECTS: Mapping[str, Aspect] = {
    "match": Aspect(
        name="correctness",
        task="Compare the predicted answer with the correct answer and decide whether they match in meaning.",
        points=("Look at the meaningful match of predicted and correct answer.", _SAME_WORDS),
        asks_verdict=True,
    ),
    "correctness": Aspect(
        name="factual accuracy",
        task="Compare the predicted answer with the correct answers and decide whether they agree in fact.",
        points=(
            "Look at the factual consistency of predicted and correct answer; nothing may be misread or made up.",
            "The predicted answer must be factually accurate and fit the content of the video.",
            _SAME_WORDS,
        ),
    ),
    "detail": Aspect(
        name="detail orientation",
        task="Compare the predicted answer with the correct answers: how complete and how specific is it?",
        points=(
            "Check whether the predicted answer covers all major points of the video and leaves out no key aspect.",
            "Check whether it gives specific details, tied to elements of the video, rather than generic points.",
            _SAME_WORDS,
            "Give one score for completeness and specificity together.",
        ),
    ),
    "context": Aspect(
        name="contextual understanding",
        task="Compare the predicted answer with the correct answer: does it fit the whole context of the video?",
        points=(
            "The predicted answer must fit the overall context of the video; nothing may be out of context.",
            "It must capture the main themes and sentiments of the video.",
            _SAME_WORDS,
        ),
    ),
    "temporal": Aspect(
        name="temporal accuracy",
        task="Compare the predicted answer with the correct answer: does it reflect the order of events in the video?",
        points=(
            "Look at the temporal consistency: the sequence of events or details must be as the video shows it.",
            f"{_SAME_WORDS[:-1]}, but only if the order in time is kept.",
        ),
    ),
    "consistency": Aspect(
        name="consistency",
        task="Two very similar questions share a correct answer. Are the two predicted answers consistent?",
        points=(
            "Both predicted answers must agree with the correct answer and with each other, without contradictions "
            "or significant differences in what they say of the video.",
            f"{_SAME_WORDS[:-1]}, but only if what is said stays consistent.",
        ),
    ),
}
