"""What several readers need: media by name, rows of CSV, subtitles, the right one of several options."""

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from avllm.errors import DataError
from avllm.evaluation.extraction import LETTERS
from avllm.textfile import read_text

AnswerIs = Literal["auto", "text", "letter", "index", "number"]

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
_LONGEST_CELL = 2**26  # bytes; MMBench has images in its cells
_TIME = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{3})")


def find_video(folder: Path, name: str) -> Path:
    """The video of that name, with whatever suffix; if there is none, the path where an mp4 would be.

    Raises:
        DataError: the name is no text.
    """
    if not isinstance(name, str):
        raise DataError(f"{folder}: expected the name of a video there, got {repr(name)[:60]}")
    exact = folder / name
    if exact.suffix.lower() in SUFFIXES:
        return exact
    named = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in named if os.path.isfile(path)), named[0])


def read_csv(path: Path, columns: tuple[str, ...], *, delimiter: str = ",") -> list[Mapping[str, str]]:
    """Rows of a CSV file with a header.

    Args:
        path: of the file.
        columns: that it must have.
        delimiter: between the cells.

    Raises:
        DataError: it cannot be read, a column is missing, or a row has more cells than there are columns.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(reader.fieldnames or ())}")
        rows: list[Mapping[str, str]] = [*reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no row of a table ({error})") from error
    for number, row in enumerate(rows, start=2):
        short = [name for name in columns if row[name] is None]
        if short:
            raise DataError(f"{path}, row {number}: no cell for {', '.join(short)}")
        if None in row:
            raise DataError(
                f"{path}, row {number}: more cells than the {len(row) - 1} columns; quote cells with {delimiter!r}"
            )
    return rows


def read_subtitles(path: Path) -> tuple[tuple[float, float, str], ...]:
    """Start and end in seconds, and text, of each subtitle of an SRT file; none if there is no file."""
    if not os.path.isfile(path):
        return ()
    data, found = path.read_bytes(), []
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        time = _TIME.search(block)
        if time:
            h, m, s, ms, h2, m2, s2, ms2 = map(int, time.groups())
            words = " ".join(re.sub(r"<[^>]+>", "", block[time.end() :]).split())
            found.append((h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000, words))
    return tuple(found)


def letter_index(value: object, options: tuple[str, ...], where: str) -> int:
    """Index of the right option, published as a letter, "C" or "(C)".

    Raises:
        DataError: it is no letter of an option.
    """
    letter = str(value).strip().strip("().").upper()
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        raise DataError(f"{where}: expected a letter from A to {LETTERS[len(options) - 1]}, got {value!r}")
    return LETTERS.index(letter)


def is_null(value: Any) -> bool:
    """Whether a value is none, as JSON and pandas write it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: str | int | float) -> str:
    """A text or a number as text; 2.0, as pandas writes whole numbers beside missing ones, is 2."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def option_index(value: Any, options: Sequence[str], where: str, answer_is: AnswerIs = "auto") -> int:
    """Index of the right option, published as its text, its letter or a number.

    Args:
        value: what was published.
        options: their texts.
        where: file, entry and key, for errors.
        answer_is: how the value is meant: as `text`, `letter`, `index` (counted from 0) or `number` (from 1). With
            `auto` it is the one option of this text, else a letter, else an index; but where all options are numbers
            and the value is none of them, it is refused, as it could be either count.

    Raises:
        DataError: it is none of the options, or could be more than one.
    """
    if is_null(value) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: expected the right one of {len(options)} options, got {value!r}")
    text, shown = as_text(value), list(options)
    if answer_is in ("auto", "text"):
        same = [index for index, option in enumerate(options) if _same(option, text)]
        if len(same) == 1:
            return same[0]
        if same or answer_is == "text":
            several = "several" if same else "none"
            raise DataError(f"{where}: {value!r} is the text of {several} of the options {shown}")
    count = None if isinstance(value, bool) else _whole(text)
    if answer_is == "letter" or (answer_is == "auto" and count is None):
        if len(text.strip("().")) != 1:
            raise DataError(f"{where}: {value!r} is none of the options {shown}")
        return letter_index(text, tuple(options), where)
    start = 1 if answer_is == "number" else 0
    from_0, from_1 = (_at(options, count, first) for first in (0, 1))
    if answer_is == "auto" and all(_whole(option) is not None for option in options):
        raise DataError(
            f"{where}: {value!r} is none of the options {shown}; counted from 0 it would be {from_0}, from 1 {from_1}: "
            f"say which with data.answer_is=index or data.answer_is=number"
        )
    if count is None or not start <= count < len(options) + start:
        hint = f"; counted from 1 it would be {from_1}: data.answer_is=number" if answer_is == "auto" else ""
        below = f"from {start} to" if start else "below"
        raise DataError(f"{where}: expected a number {below} {len(options)}, got {value!r}{hint}")
    return count - start


def _at(options: Sequence[str], count: int | None, first: int) -> str:
    is_there = count is not None and first <= count < len(options) + first
    return repr(options[count - first]) if is_there and count is not None else "none"


def _whole(text: str) -> int | None:
    """A whole number that is written as text, also as 2.0."""
    return int(text.partition(".")[0]) if re.fullmatch(r"[+-]?\d{1,18}(\.0+)?", text.strip()) else None


def _same(option: str, text: str) -> bool:
    numbers = _whole(option), _whole(text)
    return _plain(option) == _plain(text) or (None not in numbers and numbers[0] == numbers[1])


def _plain(text: str) -> str:
    """A label as it is compared: cafe/restaurant is "cafe or restaurant", grocery_store is "grocery store"."""
    return " ".join(text.lower().replace("_", " ").replace("/", " or ").split())


def whole_number(value: Any, *, below: int, where: str) -> int:
    """A number of an option, counted from 0; 2.0 is taken for 2.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, bool) or value not in range(below):
        raise DataError(f"{where}: expected a number from 0 to {below - 1}, got {value!r}")
    return int(value)
