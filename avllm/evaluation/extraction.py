"""From what a model wrote to the option that it chose; the rules of published evaluations as named switches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = dict(enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")))


@dataclass(frozen=True, kw_only=True)
class ChoiceRule:
    """How the chosen option is found. Without any switch: a letter that stands alone, else the text of one option.

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

    def choose(self, output: str, options: Sequence[str], letters: str = "") -> int | None:
        """Index of the chosen option; None when none is chosen, or more than one.

        Args:
            output: what the model wrote.
            options: their texts.
            letters: those of the options; by default A, B, ... as many as there are options.
        """
        letters = letters or LETTERS[: len(options)]
        found = self._published(output, options, letters) if self.letters_inside_words else None
        if not self.letters_inside_words:
            found = lone_letter(output, options, letters)
            if found is None and self.searches_text:
                found = text_of_one(output, self._texts(options))
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


def lone_letter(output: str, options: Sequence[str], letters: str) -> int | None:
    """Index of the one letter that the output names: at its start, in brackets, after "answer", or standing alone.

    A capital A or I before a small word is an article or a pronoun, not a letter. An output that is the text of an
    option names it.
    """
    text = output.strip()
    same = [index for index, option in enumerate(options) if _tidy(option) == _tidy(text)]
    if len(same) == 1:
        return same[0]
    both = letters + letters.lower()
    whole = re.fullmatch(rf"\W*([{both}])\W*", text)
    first = re.match(rf"\(?([{letters}])(?:\)|[.:](?!\w)|\s*$)(?!\s*(?:,|and\b|or\b|/)\s*\(?[{letters}]\b)", text)
    if whole or first:
        return letters.index((whole or first)[1].upper())  # type: ignore[index]
    others = letters.replace("A", "").replace("I", "")
    words = "AI" if "I" in letters else "A"
    alone = rf"(?<![\w'])([{others}])(?![\w'])|(?<![\w'])([{words}])(?![\w'])(?!\s+(?!and\b|or\b)[a-z])"
    patterns = (
        rf"(?i:answer|option)(?i:\s+is|\s*:)?\s*:?\s*\(?([{letters}])\b(?!\s+[a-z]|')",
        rf"(?i:answer|option)(?i:\s+is|\s*:)?\s*:?\s*\(?([{letters.lower()}])\)?\W*$",
        rf"\(([{both}])\)",
        alone,
    )
    named = {"".join(match) for match in re.findall(alone, text)}
    for pattern in patterns:
        found = {"".join(match).upper() for match in re.findall(pattern, text)}
        if found:
            return letters.index(found.pop()) if len(found) == 1 and len(named | found) <= 1 else None
    return None


def text_of_one(output: str, texts: Sequence[Sequence[str]]) -> int | None:
    """Index of the one option with a text among the whole words of the output.

    An option within the text of another that is found too does not count: "no" beside "not sure, no".
    """
    words = f" {_tidy(output)} "
    found = [(index, _tidy(text)) for index, some in enumerate(texts) for text in some if _tidy(text)]
    found = [(index, text) for index, text in found if f" {text} " in words]
    longest = [
        (index, text)
        for index, text in found
        if not any(f" {text} " in f" {other} " and text != other for _, other in found)
    ]
    indices = {index for index, _ in longest}
    return indices.pop() if len(indices) == 1 else None


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


def _tidy(text: str) -> str:
    """Lower-case words without punctuation around them."""
    return " ".join(word.strip(".,;:!?\"'()[]") for word in text.lower().split()).strip()
