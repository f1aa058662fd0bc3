"""From what a model wrote to the option that it chose; the rules of published evaluations as named switches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avllm.answers.choosing import chosen_option
from avllm.errors import ConfigError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = dict(enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")))


@dataclass(frozen=True, kw_only=True)
class ChoiceRule:
    """How the chosen option is found. Without any switch: see `avllm.answers.choosing.chosen_option`.

    Of the switches, `letters_inside_words`, `touching_comma_hides`, `keeps_answer_word` and `fall_back_to_c` are faults
    of published evaluations; they are here so that published figures can be computed again.

    Args:
        searches_text: without a letter, the option whose text occurs in the output is taken.
        digits_as_words: an option that is a digit is also found as its English word.
        letters_inside_words: the first capital letter among the options' counts, even within a word ("Because D": B)
            or as an article ("A red car": A); of the options' texts, the first that occurs anywhere.
        touching_comma_hides: the first such letter with a comma beside it is no letter ("A, B": none).
        keeps_answer_word: with `letters_inside_words`, the letters of the words answer and Answer count ("Answer: C":
            A); else both words are removed first.
        fall_back_to_c: when nothing is found, the third option, even where there are only two.
    """

    searches_text: bool = True
    digits_as_words: bool = False
    letters_inside_words: bool = False
    touching_comma_hides: bool = False
    keeps_answer_word: bool = False
    fall_back_to_c: bool = False

    def __post_init__(self) -> None:
        for name in ("touching_comma_hides", "keeps_answer_word"):
            if getattr(self, name) and not self.letters_inside_words:
                raise ConfigError(f"score.rule.{name}: it is a switch of letters_inside_words, which is off")

    def choose(self, output: str, options: Sequence[str], letters: str = "") -> int | None:
        """Index of the chosen option; None when none is chosen, or more than one.

        Args:
            output: what the model wrote.
            options: their texts.
            letters: those of the options; by default A, B, ... as many as there are options.
        """
        letters = letters or LETTERS[: len(options)]
        if self.letters_inside_words:
            found = self._published(output, options, letters)
        else:
            found = chosen_option(output, self._texts(options), letters, searches_text=self.searches_text)
        return 2 if found is None and self.fall_back_to_c else found

    def _published(self, output: str, options: Sequence[str], letters: str) -> int | None:
        if not self.keeps_answer_word:
            output = output.replace("answer", "").replace("Answer", "")
        found = re.search(rf"[(, ]*[{letters}][), ]*" if self.touching_comma_hides else rf"[{letters}]", output)
        letter = found[0].strip().strip("()") if found else ""
        if letter and letter in letters:
            return letters.index(letter)
        if not self.searches_text:
            return None
        texts = self._texts(options[: len(letters)])
        return next((i for i, some in enumerate(texts) if any(text in output.lower() for text in some)), None)

    def _texts(self, options: Sequence[str]) -> list[tuple[str, ...]]:
        """Lower-case texts by which each option is found."""
        words = {str(digit): word for digit, word in DIGITS.items()} if self.digits_as_words else {}
        return [(text.lower(), words[text]) if text in words else (text.lower(),) for text in options]


# The rules of VideoLLaMA 2's evaluation scripts.
PUBLISHED: Mapping[str, ChoiceRule] = {
    "mvbench": ChoiceRule(letters_inside_words=True, touching_comma_hides=True, fall_back_to_c=True),
    "videomme": ChoiceRule(letters_inside_words=True, digits_as_words=True, fall_back_to_c=True),
    "videomme_scorer": ChoiceRule(letters_inside_words=True, keeps_answer_word=True, searches_text=False),
    "egoschema": ChoiceRule(letters_inside_words=True, searches_text=False, fall_back_to_c=True),
}


def first_words_agree(output: str, truth: str, *, empty_is_right: bool = False) -> bool:
    """Whether the first words are the same option, "(A)": one contains the other.

    Source: `check_ans` of VideoChat2's evaluation of MVBench.

    Args:
        output: what the model wrote, with the bracket that its prompt ended with.
        truth: the right option with its letter, "(A) text".
        empty_is_right: an output without a first word, or with brackets alone, is right, as published.
    """
    said, right = (text.lower().split(" ")[0] for text in (output, truth))
    if not empty_is_right and not said.strip("()."):
        return False
    return said.replace(".", "") in right or right in said


def scienceqa_letter(output: str) -> str:
    """The letter that LLaVA's evaluation of ScienceQA reads: alone, before ". ", or after "The answer is "."""
    text = output.replace("\n", ". ").strip()
    found = re.fullmatch(r"([A-E])", text) or re.match(r"([A-E])\. ", text) or re.search(r"The answer is ([A-E])", text)
    return found[1] if found else ""
