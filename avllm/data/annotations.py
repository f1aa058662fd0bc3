"""JSON annotations: reading a file, and values of an entry with errors that name file, index and key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avllm.errors import DataError

Entry = tuple[Any, str]  # plain data, and the file and line or index that name it


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: it is missing or no JSON; the line is named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected an annotation file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: no valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text: {error.reason} at byte {error.start}") from error


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
    if path.suffix != ".jsonl" and not lines:
        return [(item, f"{path}[{index}]") for index, item in enumerate(entries(read_json(path), str(path)))]
    rows: list[Entry] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append((json.loads(line), f"{path}:{number}"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected an annotation file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: no valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text: {error.reason} at byte {error.start}") from error
    return entries(rows, str(path))


def entries(data: Any, where: str) -> list[Any]:
    """The value as a list with at least one entry.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(data, list) or not data:
        raise DataError(f"{where}: expected a list of entries, got {_show(data)}")
    return data


def text(entry: Any, key: str, where: str) -> str:
    """A text of an entry; a whole number is taken as one (ids are written both ways).

    Raises:
        DataError: the key is missing, or its value is empty or no text.
    """
    value = member(entry, key, where)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}.{key}: expected a text, got {_show(value)}")
    return value


def member(entry: Any, key: str, where: str) -> Any:
    """A value of an entry.

    Raises:
        DataError: the entry has no such key.
    """
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected keys and values, got {_show(entry)}")
    if key not in entry:
        raise DataError(f"{where}.{key}: missing; the entry has: {', '.join(map(str, entry)) or 'nothing'}")
    return entry[key]


def _show(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
