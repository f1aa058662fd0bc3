"""What several readers need: media by name, rows of CSV, subtitles."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from avllm.errors import DataError
from avllm.evaluation.extraction import LETTERS

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
_LONGEST_CELL = 2**26  # bytes; MMBench has images in its cells
_TIME = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{3})")


def find_video(folder: Path, name: str) -> Path:
    """The video of that name, with whatever suffix; if there is none, the path where an mp4 would be."""
    exact = folder / name
    if exact.suffix.lower() in SUFFIXES:
        return exact
    named = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in named if path.is_file()), named[0])


def read_csv(path: Path, columns: tuple[str, ...], *, delimiter: str = ",") -> list[Mapping[str, str]]:
    """Rows of a CSV file with a header.

    Args:
        path: of the file.
        columns: that it must have.
        delimiter: between the cells.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(reader.fieldnames or ())}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_subtitles(path: Path) -> tuple[tuple[float, float, str], ...]:
    """Start and end in seconds, and text, of each subtitle of an SRT file; none if there is no file."""
    if not path.is_file():
        return ()
    found = []
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")):
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
