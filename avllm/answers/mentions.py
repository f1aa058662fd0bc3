"""Where an answer names options, by letter or by text."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from avllm.answers.vocabulary import (
    BEFORE_NAMES,
    CALLED,
    KEYS,
    MAY,
    NEVER_AFTER_ARTICLE,
    NOUNS_IN_S,
    SKIPPED,
)
from avllm.answers.words import CJK

TEXT = 0xE000  # the private character that stands for the text of option 0; the next ones for the others
_TEXTS = "\ue000-\uf8ff"
_TOKEN = re.compile(
    rf"(?P<text>[{_TEXTS}])|[(\[{{<]\s*(?P<bracketed>[A-Za-z])\s*[)\]}}>]"
    rf"|(?<![^\W{CJK}{_TEXTS}])(?P<closed>[A-Za-z])\)|(?P<abbreviation>(?<![^\W_])(?:[A-Za-z]\.){{2,}})"
    rf"|(?P<number>\d+(?:[.,:]\d+)*[A-Za-z]*)|(?P<cjk>[{CJK}])"
    rf"|(?P<word>(?:(?![{CJK}{_TEXTS}])[^\W\d_])+(?:['-](?:(?![{CJK}{_TEXTS}])[^\W_])+)*\d*)|(?P<mark>\n|[^\w\s\"'])"
)


@dataclass(frozen=True)
class Token:
    """A word, a mark, a letter of an option, or the text of one.

    Args:
        text: in lower case.
        written: as it stands in the answer.
        kind: `letter` is one that its brackets make sure.
    """

    text: str
    written: str
    kind: Literal["word", "mark", "letter", "text"]


@dataclass(frozen=True, kw_only=True)
class Mention:
    """One place that names an option, or several in a row such as "A, B and C".

    Args:
        options: indices.
        by_letter: else by its text.
        start: its first token.
        end: the one after its last.
    """

    options: frozenset[int]
    by_letter: bool
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The tokens of a text in which the texts of options are replaced by private characters."""
    found = []
    for match in _TOKEN.finditer(text):
        group = str(match.lastgroup)
        kind = "letter" if group in ("bracketed", "closed") else group
        written = match[group]
        found.append(Token(written.lower(), written, kind if kind in ("letter", "text", "mark") else "word"))  # type: ignore[arg-type]
    return found


class Answer:
    """An answer as tokens, with the options that it names.

    Args:
        text: `words.plain`, the texts of options replaced.
        letters: of the options.
    """

    def __init__(self, text: str, letters: str) -> None:
        self.tokens, self.letters = tokens(text), letters

    @cached_property
    def mentions(self) -> list[Mention]:
        """In their order; those joined by and, or, a slash and the like are one."""
        found: list[Mention] = []
        for index in range(len(self.tokens)):
            one = self._named(index)
            if one is None:
                continue
            last = found[-1] if found else None
            if last is not None and last.by_letter == one.by_letter and self._joined(last, index):
                found[-1] = Mention(
                    options=last.options | one.options, by_letter=one.by_letter, start=last.start, end=one.end
                )
            else:
                found.append(one)
        return found

    def word(self, index: int) -> str:
        """The token at a place in lower case; nothing beyond the ends."""
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def is_mark(self, index: int) -> bool:
        """Whether there is a mark, or an end."""
        return not 0 <= index < len(self.tokens) or self.tokens[index].kind == "mark"

    def _named(self, index: int) -> Mention | None:
        token = self.tokens[index]
        if token.kind == "text":
            return Mention(options=frozenset({ord(token.written) - TEXT}), by_letter=False, start=index, end=index + 1)
        if len(token.text) != 1 or token.text.upper() not in self.letters or not token.text.isascii():
            return None
        if token.kind == "mark" or (token.kind == "word" and not self._is_letter(index)):
            return None
        option = self.letters.index(token.text.upper())
        return Mention(options=frozenset({option}), by_letter=True, start=index, end=index + 1)

    def _is_letter(self, index: int) -> bool:
        """Whether a letter that stands alone is that of an option: no article, no pronoun, no part of a name."""
        written, before = self.tokens[index].written, self.tokens[index - 1] if index else None
        if self.word(index - 1) in BEFORE_NAMES or self.word(index + 1) in KEYS:
            return False
        if written.isupper() and self._is_name(index):
            return False
        if before is not None and before.text in CALLED and before.kind == "word":
            return written not in "ai" or self._verb_follows(index) or self.is_mark(index + 1)
        if written == "A":
            return self.is_mark(index + 1) or self._verb_follows(index)
        if written == "I":
            return self.word(index + 1) in {"", ".", ")", ":", "is", "because", "since"} or self._shows(index + 1)
        if written in "ai":  # in small letters only where a line consists of it, or "a is right"
            alone = self.begins_line(index) and (self.is_mark(index + 1) and self.word(index + 1) != ",")
            return alone or (written == "a" and (self._verb_follows(index) or self._ends_answer(index)))
        return True

    def _verb_follows(self, index: int) -> bool:
        after = index + 1
        while self.word(after) in SKIPPED or re.fullmatch(r"[a-z]{3,}ly", self.word(after)):
            after += 1
        if after > index + 1 and self.is_mark(after):  # "A then."
            return True
        if self.word(after) in MAY:
            return self.word(after + 1) in {"be", "not", "also", "never", "only"}
        # Before a vowel the article would be "an"; in Chinese there is none.
        vowel = re.match(f"(?!eu|one|once)[aeio]|[{CJK}]", self.word(after))
        return self.word(after) in NEVER_AFTER_ARTICLE or self._shows(after) or vowel is not None

    def _shows(self, index: int) -> bool:
        """Whether a word looks like a verb such as shows, matches, fits."""
        word = self.word(index)
        return re.fullmatch(r"[a-z]{2,}[^suio]s", word) is not None and word not in NOUNS_IN_S

    def _ends_answer(self, index: int) -> bool:
        """Whether "the answer is a" ends here; an answer that was cut off within a sentence does not."""
        is_called = self.word(index - 1) in {"is", ":"} and self.word(index - 2) in CALLED
        return self.is_mark(index + 1) and (is_called or self.word(index - 1) in {"choose", "pick", "select"})

    def _is_name(self, index: int) -> bool:
        """Whether a capital word that begins no sentence stands before: "with Michael B. Jordan"."""
        before = self.tokens[index - 1] if index else None
        if before is None or before.kind != "word" or not before.written.istitle() or len(before.text) < 2:
            return False
        return before.text not in CALLED and not self.begins_line(index - 1) and not self.is_mark(index - 2)

    def is_sure(self, index: int) -> bool:
        """Whether brackets make a letter sure."""
        return 0 <= index < len(self.tokens) and self.tokens[index].kind == "letter"

    def begins_line(self, index: int) -> bool:
        """Whether nothing stands before a token in its line."""
        return index <= 0 or self.word(index - 1) == "\n"

    def _joined(self, last: Mention, index: int) -> bool:
        """Whether the tokens between two mentions make them one list."""
        between = [token.text for token in self.tokens[last.end : index] if token.text not in CALLED | {"both", "the"}]
        if not between or not set(between) <= {",", "and", "or", "nor", "/", "&", "+", "only"}:
            return False
        # Commas alone join only where the list goes on to its "and", or began as one: "A, B and C", "none of A, B".
        has_ended = any(self.word(place) in {"and", "or", "nor", "&"} for place in range(last.start, last.end))
        begins = self.word(last.start - 1) in {"of", "both", "either", "neither"} and not has_ended
        return between != [","] or begins or self._list_goes_on(index)

    def _list_goes_on(self, index: int) -> bool:
        after = index + 1
        while self.word(after) == "," and self._named_at(after + 1):
            after += 2
        after += self.word(after) == ","
        return self.word(after) in {"and", "or", "nor", "&"} and self._named_at(after + 1)

    def _named_at(self, index: int) -> bool:
        index += self.word(index) in CALLED
        return index < len(self.tokens) and self._named(index) is not None
