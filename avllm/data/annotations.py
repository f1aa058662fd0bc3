"""JSON annotations: reading a file, and values of an entry with errors that name file, index and key."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avllm.errors import DataError
from avllm.textfile import json_lines, read_text

Entry = tuple[Any, str]  # plain data, and the file and line or index that name it
LINES = (".jsonl", ".ndjson", ".jsonlines")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: it is missing or no JSON; the line is named.
    """
    try:
        return parse_json(read_text(path), str(path))
    except json.JSONDecodeError as error:
        advice = "; a file with an entry on each line is named .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: no valid JSON: {error.msg}{advice}") from error


def parse_json(text: str, where: str) -> Any:
    """JSON as plain data.

    Raises:
        JSONDecodeError: it is no JSON.
        DataError: it cannot be read in another way: a key that is written twice would lose a value.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets of thousands of levels
        raise DataError(f"{where}: no JSON that can be read: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is written twice in one object")
    return found


def read_entries(path: Path, *, lines: bool = False) -> list[Entry]:
    """Reads the entries of a JSON list, or of a `.jsonl` with one on each line.

    Args:
        path: of the file.
        lines: there is one on each line, whatever the file is called.

    Returns:
        Each entry with its name in errors: `file[index]`, or `file:line` of a JSONL.

    Raises:
        DataError: the file is missing, no JSON, or without entries; the line is named.
    """
    if path.suffix.lower() not in LINES and not lines:
        return [(item, f"{path}[{index}]") for index, item in enumerate(entries(read_json(path), str(path)))]
    rows: list[Entry] = []
    for number, line in json_lines(path):
        try:
            rows.append((parse_json(line, f"{path}:{number}"), f"{path}:{number}"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: no valid JSON: {error.msg}") from error
    return entries(rows, str(path))


def entries(data: Any, where: str) -> list[Any]:
    """The value as a list with at least one entry.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(data, list) or not data:
        raise DataError(f"{where}: expected a list of entries, got {show(data)}")
    return data


def text(entry: Any, key: str, where: str) -> str:
    """A text of an entry; a number is taken as its text (ids and answers are written both ways).

    Raises:
        DataError: the key is missing, or its value is empty or no text.
    """
    value = as_text(member(entry, key, where))
    if value is None or not value.strip():
        raise DataError(f"{where}.{key}: expected a text, got {show(entry[key])}")
    return value


def as_text(value: Any) -> str | None:
    """A text or number as text; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return str(value) if is_number or isinstance(value, str) else None


def member(entry: Any, key: str, where: str) -> Any:
    """A value of an entry.

    Raises:
        DataError: the entry has no such key.
    """
    if key not in mapping(entry, where):
        raise DataError(f"{where}.{key}: missing; the entry has: {', '.join(map(str, entry)) or 'nothing'}")
    return entry[key]


def mapping(entry: Any, where: str) -> Mapping[str, Any]:
    """The value as keys and values.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected keys and values, got {show(entry)}")
    return entry


def show(value: Any) -> str:
    """A value as JSON for messages, in short."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
