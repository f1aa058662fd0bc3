"""What people read in a terminal: names, answers and errors are text there, never commands to it."""

import re
import sys
from typing import TextIO

# Control characters but for line feeds and tabs, separators and overrides of the direction of writing, tags that no one
# sees, and halves of surrogate pairs, which cannot be printed at all.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\r": "\\r", "\b": "\\b", "\f": "\\f"}


def visible(text: str) -> str:
    """The text with what a terminal would obey, or not show, written as JSON writes it: `\\u001b`.

    Line feeds and tabs stay, and so does JSON, whose escapes they are. Pieces of a text may be passed one by one.
    """
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in _SHORT:
        return _SHORT[letter]
    data = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[place : place + 2].hex()}" for place in range(0, len(data), 2))


def say(text: object, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Prints a text, made visible, at once; letters that the terminal has not are escaped.

    Args:
        text: what to print.
        end: what follows it.
        file: where to; standard output by default.
    """
    file = file or sys.stdout
    assert file is not None
    shown, encoding = visible(str(text)) + end, getattr(file, "encoding", None) or "utf-8"
    file.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()
