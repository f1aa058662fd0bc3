"""Which of the options that an answer names it chooses: what is announced, what it begins with, what alone is left."""

import re
from collections.abc import Sequence
from typing import Literal

from avllm.answers.mentions import TEXT, Answer, Mention
from avllm.answers.vocabulary import (
    ANSWERS,
    CALLED,
    CHOOSES,
    CONCLUDES,
    HELPS,
    IS,
    LINKS,
    NOT,
    NOT_SO,
    OPENS,
    RIGHT,
    SKIPPED,
    STOPS,
    WRONG,
)
from avllm.answers.words import CJK, final_part, in_english, plain, words
from avllm.answers.yes_no import read_yes_no

Standing = Literal["announced", "named", "asked", "ruled out"]
_MARKS_BETWEEN = set(":=-([,>{|\n")
_IDIOMS = (
    (r"\b(?:there(?:'s| is) )?(?:no|(?:without|beyond)(?: a| any)?) (?:doubt|question)\b(?: that)?", " "),
    (r"\bnot only\b", " "),
    (r"\brather than\b|\binstead of\b|\bas opposed to\b|\brul(?:e|es|ing) out\b", " except "),
    (r"\bruled out\b", " excluded "),
    (r"\b(anything|everything|all|nothing|none) but\b", r"\1 except "),
    (r"\b(?:other|else) than\b", " except "),
)  # fmt: skip


def chosen_option(
    output: str, options: Sequence[Sequence[str]], letters: str, *, searches_text: bool = True
) -> int | None:
    """Index of the one option that an answer chooses, by its letter or else by its text.

    The last announced option counts ("the answer is B", "B is correct", "so B", a last line "B"); without one, the
    letter that the answer, or each of its lines, begins with; else the one letter that is named and not ruled out
    ("not B", "A is wrong"); without a letter, the one text, by the same rules.

    Args:
        output: what the model wrote.
        options: the texts by which each is found.
        letters: theirs.
        searches_text: whether texts count.
    """
    text = plain(final_part(output))
    same = [index for index, some in enumerate(options) if _bare(text) in map(_bare, map(plain, some))]
    if len(same) == 1:
        return same[0]
    marked = in_english(_with_texts_replaced(text, options))
    for form, written in _IDIOMS:
        marked = re.sub(form, written, marked, flags=re.IGNORECASE)
    reader = _Reader(Answer(marked, letters))
    found = reader.chosen(by_letter=True)
    if not found and searches_text:
        found = reader.chosen(by_letter=False)
        names_letters = any(mention.by_letter for mention, _ in reader.standings)
        said = read_yes_no(output) if len(found) != 1 and not names_letters else ""
        found = {index for index, some in enumerate(options) if said in some} or found
    return found.pop() if len(found) == 1 else None


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,:;!?'\"()[]")


def _with_texts_replaced(text: str, options: Sequence[Sequence[str]]) -> str:
    """Each whole text of an option, the longest first, as the private character of `mentions.TEXT`.

    An article at its start may be another or missing, unless two options differ in nothing else.
    """
    found = [(words(one), one, index) for index, some in enumerate(options) for one in some]
    for key, one, index in sorted(found, key=lambda item: -len(item[1])):
        is_unique = [other for other, _, _ in found].count(key) == 1
        parts = re.findall(r"[^\W_]+", plain(one))
        if is_unique and len(parts) > 1 and parts[0].lower() in ("a", "an", "the"):
            parts = parts[1:]
        if not parts or re.fullmatch("[A-Za-z]", "".join(parts)):
            continue
        form = r"[\W_]{1,3}".join(map(re.escape, parts))
        if parts[0].isascii():
            form = rf"(?<![^\W_{CJK}])(?<!\d[.,:])" + (r"(?<!-)" if parts[0].isdigit() else "") + form
        if is_unique:
            form = rf"(?:\b(?:a|an|the)\s+)?{form}"
        if parts[-1].isascii():
            form += rf"(?![^\W_{CJK}]|[.,:]\d)"
        text = re.sub(form, f" {chr(TEXT + index)} ", text, flags=re.IGNORECASE)
    return text


class _Reader:
    """What an answer says of each option that it names."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.word = answer, answer.word
        self.standings = [(mention, self._standing(mention)) for mention in answer.mentions]

    def chosen(self, *, by_letter: bool) -> set[int]:
        """The options that are chosen: one, none, or several between which nothing decides."""
        found = [(mention, standing) for mention, standing in self.standings if mention.by_letter == by_letter]
        announced = [mention for mention, standing in found if standing == "announced"]
        if announced:
            return set(announced[-1].options)
        named = [mention for mention, standing in found if standing == "named"]
        heads = [mention for mention in named if by_letter and self._is_heading(mention)]
        if heads and self._is_first(heads[0].start):
            return set(heads[0].options)
        asked = [mention for mention, standing in found if standing == "asked"]
        sets = [{index for mention in some for index in mention.options} for some in (heads, named, asked)]
        if not named and any(standing == "ruled out" for _, standing in found):
            return set()
        return next((one for one in sets if len(one) == 1), sets[1])

    def _standing(self, mention: Mention) -> Standing:
        before, opener = self._before(mention)
        after = self._after(self._end(mention))
        odd = (sum(map(_denies, before)) + self._denied(after)) % 2 == 1
        said = self._said_next(mention)
        if odd or said == "wrong":
            return "ruled out"
        if said == "right" or self._is_announced(mention) or self._is_praised(after) or self._is_last_line(mention):
            return "announced"
        if opener in ("if", "unless") or (not mention.by_letter and opener in ("because", "since", "as")):
            return "asked"
        return "asked" if self._sentence_end(mention) == "?" else "named"

    def _before(self, mention: Mention) -> tuple[list[str], str]:
        """The words of its clause before a mention, back to another one; and the word that opens the clause."""
        others = {other.end for other in self.answer.mentions}
        found: list[str] = []
        index = mention.start - 1
        while not self.answer.is_mark(index) and index + 1 not in others - {mention.end}:
            if self.word(index) in OPENS:
                return found, self.word(index)
            found.append(self.word(index))
            index -= 1
        return found, ""

    def _after(self, start: int) -> list[str]:
        """The words of a clause from a place on, up to another mention."""
        others = {other.start for other in self.answer.mentions}
        found: list[str] = []
        while not self.answer.is_mark(start) and start not in others and self.word(start) not in OPENS | STOPS:
            found.append(self.word(start))
            start += 1
        return [*found, "<option>"] if start in others else found

    def _denied(self, after: Sequence[str]) -> int:
        """How often the words after a mention deny it: "does not fit", "is wrong"."""
        count = 0
        for place, word in enumerate(after):
            if word in IS | HELPS | SKIPPED | {"not", "never", "neither"} or word.endswith(("ly", "n't")):
                # In "A, not B" and "A not B" the next option is meant.
                count += _denies(word) and after[place + 1 : place + 2] != ["<option>"]
            else:
                break
        return count + any(word in WRONG for word in after)

    def _is_praised(self, after: Sequence[str]) -> bool:
        """Whether the words after a mention say that it is right."""
        rest = [word for word in after if word not in SKIPPED and not word.endswith("ly")]
        return bool(rest) and rest[0] in IS | HELPS and any(word in RIGHT for word in rest[1:6])

    def _is_announced(self, mention: Mention) -> bool:
        """Whether the words before a mention announce it: "the answer is", "I choose", "so it must be"."""
        index, is_linked = mention.start - 1, False
        while index >= 0 and (self.word(index) in LINKS | _MARKS_BETWEEN or self.word(index).endswith("ly")):
            is_linked |= self.word(index) in IS | set(":=-")
            if self.word(index) in ANSWERS or (is_linked and self.word(index) in CALLED | RIGHT):
                return True
            index -= 1
        if self.word(index) in ANSWERS | CHOOSES | CONCLUDES:
            return True
        # "The answer to the question of what moves is B."
        starts = {other.start for other in self.answer.mentions}
        while is_linked and index >= 0 and self.word(index) not in set(".!?;\n") and index not in starts:
            if _denies(self.word(index)):
                return False
            if self.word(index) in ANSWERS | CALLED:
                return True
            index -= 1
        return False

    def _said_next(self, mention: Mention) -> str:
        """What the clause after an option says of it where it stands alone in its own: "A? No." "B: correct"."""
        start = self._end(mention)
        marks = 0
        while self.word(start + marks) in set(":?-.()/=") and self.word(start + marks):
            marks += 1
        heads = self.answer.begins_line(mention.start)
        if not marks or (self.word(start) == "." and not heads):
            return ""
        after = self._after(start + marks)
        if after in (["no"], ["nope"]) or (after[:1] and after[0] in {"wrong", "incorrect", "false"}):
            return "wrong"
        if after[:1] == ["not"] and after[1:2] and after[1] in NOT_SO:
            return "wrong"
        if self.word(start) != "." and after[:1] and after[0] in IS | HELPS and self._denied(after) % 2:
            return "wrong"
        return "right" if after == ["yes"] or (after[:1] and after[0] in {"correct", "right", "true"}) else ""

    def _end(self, mention: Mention) -> int:
        """Where a mention ends, with the option's own text, as in "B. a blue car" and "B (a blue car)"."""
        end = mention.end + (self.word(mention.end) in CALLED)
        place = end
        while self.word(place) in set(".:)-,(") and self.word(place):
            place += 1
        own = any(other.start == place and other.options == mention.options for other in self.answer.mentions)
        if not mention.by_letter or not own:
            return end
        return place + 1 + (self.word(place + 1) == ")")

    def _is_heading(self, mention: Mention) -> bool:
        """Whether a line begins with this one option and a mark, or with what gives its reason."""
        if len(mention.options) > 1 or not self.answer.begins_line(self._start(mention)):
            return False
        end = self._end(mention)
        after = end
        while self.answer.is_mark(after) and after < len(self.answer.tokens) and self.word(after) != "\n":
            after += 1
        follows = any(other.by_letter and other.start == after for other in self.answer.mentions)
        return not follows and (self.answer.is_mark(end) or end > mention.end or self._gives_reason(end))

    def _gives_reason(self, index: int) -> bool:
        return self.word(index) in {"because", "since", "as", "so"} or self.answer.is_sure(index - 1)

    def _start(self, mention: Mention) -> int:
        """Where it starts, with "option" and marks before it."""
        start = mention.start
        while self.word(start - 1) in CALLED | set("-([>{"):
            start -= 1
        return start

    def _is_first(self, start: int) -> bool:
        return all(self.answer.is_mark(index) or self.word(index) in CALLED for index in range(start))

    def _is_last_line(self, mention: Mention) -> bool:
        """Whether it alone is the last of several lines."""
        start, end = self._start(mention), self._end(mention)
        rest = range(end, len(self.answer.tokens))
        is_alone = self.answer.begins_line(start) and all(self.answer.is_mark(index) for index in rest)
        return is_alone and not self._is_first(start)

    def _sentence_end(self, mention: Mention) -> str:
        marks = (self.word(index) for index in range(mention.end, len(self.answer.tokens)))
        return next((mark for mark in marks if mark in set(".!?;\n")), "")


def _denies(word: str) -> bool:
    return word in NOT or word.endswith("n't")
