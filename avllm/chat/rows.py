"""The input of `avllm run`: a line of JSON is a question, or says what is wrong with it."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from avllm.chat.assistant import Request
from avllm.config import nearest
from avllm.errors import AvllmError, DataError, attempted, own_message
from avllm.model.options import SYNONYMS, for_kind
from avllm.model.prompts import Kind
from avllm.textfile import byte_lines, line_text

KINDS: tuple[Kind, ...] = ("video", "image", "audio")
KEYS = ("id", *(field.name for field in fields(Request) if field.name != "limits"))
WHOLE = ("num_frames", "max_frames", "max_new_tokens", "source_rate")
LONGEST_SHOWN = 60  # characters of what a line holds that are told in an error
SCHEMES = ("file:", "data:", "http:", "https:")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the input.

    Args:
        id: its name in the output: its id, or "line 7" where it has none that could name it.
        request: what is asked; None if the line is wrong.
        error: what is wrong with it.
        repeats: whether it has the id of an earlier line.
    """

    id: str | int | float
    request: Request | None = None
    error: str = ""
    repeats: bool = False

    @property
    def media(self) -> str:
        """What is looked at and how; lines with equal media share the work."""
        item = self.request
        if item is None:
            return ""
        question = "" if isinstance(item.question, str) else item.question
        return repr(replace(item, question=question, system=None, answer_start="", max_new_tokens=None))


def read_lines(source: Path, defaults: Mapping[str, Any], media_root: Path) -> list[Line]:
    """The lines of the input. A wrong line carries its fault; a line without an id is answered under its number.

    Args:
        source: JSONL in UTF-8, with or without a byte order mark; only a line feed ends a line.
        defaults: fields of `Request` that hold where a line does not say them and has use for them.
        media_root: folder that relative paths start from.

    Raises:
        DataError: the file cannot be read.
    """
    raw = [(number, _parsed(data)) for number, data in byte_lines(source)]
    numbers: dict[str | int | float, int] = {}
    lines: list[Line] = []
    nameless: list[tuple[int, int, dict[str, Any], str, bool]] = []  # place, number, row, fault, whether it repeats
    for number, found in raw:
        row: dict[str, Any] = {} if isinstance(found, AvllmError) else found
        name, fault = (None, own_message(found)) if isinstance(found, AvllmError) else _id_of(row)
        repeats = name is not None and name in numbers
        if name is not None and repeats:
            fault = f"id {_shown(name)} is that of line {numbers[name]} too; make it unique"
        if name is None or repeats:
            nameless.append((len(lines), number, row, fault, repeats))
            lines.append(Line(id=""))
            continue
        numbers[name] = number
        lines.append(_line(name, row, defaults, media_root))
    for place, number, row, fault, repeats in nameless:
        name = f"line {number}"
        while name in numbers:  # an id of another line may read so
            name += "'"
        numbers[name] = number
        is_wrong = Line(id=name, error=fault, repeats=repeats)
        lines[place] = is_wrong if fault else _line(name, row, defaults, media_root)
    return lines


def _parsed(data: bytes) -> dict[str, Any] | AvllmError:
    try:
        row = json.loads(line_text(data, "line"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return DataError(f"not JSON ({error.msg} at character {error.pos} of the line)")
    except AvllmError as error:
        return error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets of thousands of levels
        return DataError(f"not JSON that can be read ({' '.join(str(error).split())})")
    if not isinstance(row, dict):
        return DataError(f"expected an object with a question, got {_shown(row)}")
    return {key: value for key, value in row.items() if not _is_missing(value)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise DataError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is written twice")
    return row


def _shown(value: Any) -> str:
    """The beginning of a value, as the line has it."""
    try:
        return json.dumps(value)[:LONGEST_SHOWN]
    except (ValueError, RecursionError):  # brackets of nearly as many levels as can be read
        return f"a {type(value).__name__}"


def _is_missing(value: Any) -> bool:
    """As tables of pandas write a cell without a value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _id_of(row: Mapping[str, Any]) -> tuple[str | int | float | None, str]:
    """The id, or what is wrong with it; a line may have none."""
    name = row.get("id")
    if name is None:
        return None, ""
    if isinstance(name, bool) or not isinstance(name, str | int | float) or name in (math.inf, -math.inf):
        return None, f"id: expected a text or a number, got {_shown(name)}"
    return name, ""


def _line(name: str | int | float, row: Mapping[str, Any], defaults: Mapping[str, Any], media_root: Path) -> Line:
    request = attempted(lambda: _request(row, defaults, media_root))
    if isinstance(request, AvllmError):
        return Line(id=name, error=own_message(request))
    return Line(id=name, request=request)


def _request(row: Mapping[str, Any], defaults: Mapping[str, Any], media_root: Path) -> Request:
    """Raises AvllmError when a key is unknown or its value is wrong, as far as the row tells."""
    for key in row:
        if key not in KEYS and key not in SYNONYMS:
            shown = key if len(key) <= LONGEST_SHOWN else f"{key[:LONGEST_SHOWN]}..."
            raise DataError(f"unknown key {shown}{nearest(shown, KEYS)}; known are: {', '.join(KEYS)}")
    given = {key: value for key, value in row.items() if key != "id"}
    for key in [key for key in given if key in SYNONYMS]:
        if SYNONYMS[key] in given:
            raise DataError(f"{key}, {SYNONYMS[key]}: mean the same; leave one out")
        given[SYNONYMS[key]] = given.pop(key)
    for key in WHOLE:  # a column of whole numbers with a gap in it is one of floats in pandas
        if isinstance(given.get(key), float) and given[key].is_integer():
            given[key] = int(given[key])
    question = given.get("question")
    if isinstance(question, list):
        given["question"] = [_rooted_part(part, media_root) for part in question]
    elif question is None:
        raise DataError("question: expected a text, got nothing")
    for kind in KINDS:
        if kind in given:
            given[kind] = _rooted(given[kind], kind, media_root)
    if isinstance(given.get("media"), list):
        given["media"] = [_rooted_part(part, media_root) for part in given["media"]]
    request = Request(**given)
    asked = request.asked()
    if not asked.text.strip():
        raise DataError("question: expected a text, got an empty one")
    kinds: list[Kind] = [kind for look in asked.looks for kind in look.sources]
    return replace(request, **_of_use(defaults, kinds, given))


def _of_use(defaults: Mapping[str, Any], kinds: Collection[Kind], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that a row does not say and that its media have use for."""
    useful = {name for kind in kinds for name in for_kind(kind, defaults)} - {"audio_mode"}
    if "video" in kinds:
        useful.add("audio_mode")
    if "fps" in given or "num_frames" in given:  # either of them says how many
        useful -= {"fps", "num_frames"}
    return {name: value for name, value in defaults.items() if name not in given and name in useful}


def _rooted_part(part: Any, media_root: Path) -> Any:
    if not isinstance(part, dict):
        return part
    sources = (*KINDS, "path", "url")
    return {key: _rooted(value, key, media_root) if key in sources else value for key, value in part.items()}


def _rooted(value: Any, key: str, media_root: Path) -> str:
    if isinstance(value, list):
        raise DataError(
            f"{key}: expected one file, got a list; name several as media: "
            f'[{{"type": "video", "video": FILE}}, ...], or a folder of frames as one'
        )
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{key}: expected a file, got {_shown(value)}")
    return value if value.startswith(SCHEMES) else str(media_root / value)
