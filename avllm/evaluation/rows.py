"""A benchmark that is a list of entries, in JSON, CSV or TSV: the YAML says what stands where."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from avllm.data.annotations import Entry, entries, member, read_entries, read_json
from avllm.errors import ConfigError, DataError
from avllm.evaluation.aspects import ASPECTS
from avllm.evaluation.files import AnswerIs, as_text, find_video, is_null, option_index, read_csv
from avllm.evaluation.sample import Sample

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_KINDS = {"video", "image", "audio"}
_MARKS = re.compile(r"<(?:image|video|audio)>\n?")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A second file, with what the first does not say; its entry is found in an entry of the first as `truth`.

    Args:
        file: below the folder, with fields of the first entry in braces; entries by name, or a list of them.
        entries: where in the file they are, as `annotations`; by default the whole file.
        lines: the file has an entry a line, whatever it is called.
        key: where in an entry of this file its key stands; nothing where entries have names.
        own: where in an entry of the first file the same key stands.
    """

    file: str
    entries: str = ""
    lines: bool = False
    key: tuple[str, ...] = ()
    own: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Reader of JSON, JSON lines, CSV or TSV.

    A place in an entry is written `conversations.0.value`; `*` means all items.

    Args:
        folder: what all paths are below.
        file: with the questions.
        entries: where in the file they are; by default the whole file.
        truth: a second file, joined to the first.
        media: kind -> path below the folder, with fields of the entry in braces; `{audio.name}` is the last part of a
            path.
        text_only: entries without the fields of `media` are asked as text alone; a group says which these are.
        question: where the question stands.
        asked: the question of all entries, in place of one that stands in them.
        answers: where the right answers stand, one text or several.
        answer: in a multiple choice, where the right option stands, as text, letter or number.
        answer_is: which of these it is, where that is not clear; see `avllm.evaluation.files.option_index`.
        options: texts of the options, or where they stand.
        id: where a name stands that no other entry has; by default entries are counted.
        category: where the category stands, if it does; `yes/no` splits by the right answer.
        groups: further splits, name -> where.
        aspects: what a judge looks at; see `avllm.evaluation.aspects`.
    """

    folder: str
    file: str
    entries: str = ""
    truth: Truth | None = None
    media: dict[str, str]
    text_only: bool = False
    question: str = ""
    asked: str = ""
    answers: str = ""
    answer: str = ""
    answer_is: AnswerIs = "auto"
    options: tuple[str | bool | int | float, ...] | str = ()
    id: str = ""
    category: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    aspects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.question) == bool(self.asked):
            raise ConfigError("data: expected question, or asked, and not both")
        if self.answer and not self.options:
            raise ConfigError("data.answer: it is that of a multiple choice, whose options are missing")
        if any(isinstance(option, bool) for option in self.options):
            raise ConfigError("data.options: YAML takes yes, no, true and false for no texts; write them in quotes")
        if self.truth is not None and self.truth.key and len(self.truth.key) != len(self.truth.own):
            raise ConfigError(
                f"data.truth: expected as many places in key as in own, got {len(self.truth.key)} and "
                f"{len(self.truth.own)}"
            )
        if self.answer_is != "auto" and not self.answer:
            raise ConfigError("data.answer_is: it says how data.answer is meant, which is missing")
        for kind in self.media:
            if kind not in _KINDS:
                raise ConfigError(f"data.media: {kind!r} is unknown, known are: {', '.join(sorted(_KINDS))}")
        for name in self.aspects:
            if name not in ASPECTS:
                raise ConfigError(f"data.aspects: {name!r} is unknown, known are: {', '.join(ASPECTS)}")

    def samples(self) -> Iterator[Sample]:
        """The questions, in the order of the file.

        Raises:
            DataError: an entry is wrong or has no truth; file, index and key are named.
        """
        tables: dict[str, Mapping[Any, Any]] = {}
        for index, (entry, where) in enumerate(self._entries()):
            if self.truth is not None:
                entry = {**_mapping(entry, where), "truth": self._joined(self.truth, entry, where, tables)}
            options = self._options(entry, where)
            accepted = tuple(_texts(entry, self.answers, where)) if self.answers else ()
            media = self._media(entry, where)
            groups = {name: found for name, place in self.groups.items() if (found := _maybe(entry, place))}
            yield Sample(
                id=_text(entry, self.id, where) if self.id else str(index),
                question=self.asked or _MARKS.sub("", _text(entry, self.question, where)).strip(),
                media=media,
                options=options,
                truth=self._truth(entry, options, where) if self.answer else None,
                accepted=accepted,
                category=self._category(entry, accepted),
                groups={**groups, "media": ", ".join(media) or "none"} if self.text_only else groups,
                aspects=self.aspects,
            )

    def _entries(self) -> list[Entry]:
        path = Path(self.folder) / self.file
        if path.suffix.lower() in _DELIMITERS:
            rows = read_csv(path, (), delimiter=_DELIMITERS[path.suffix.lower()])
            return [(row, f"{path}, row {line}") for line, row in enumerate(rows, start=2)]
        if not self.entries:
            return read_entries(path)
        found = entries(at(read_json(path), self.entries, str(path)), f"{path}: {self.entries}")
        return [(entry, f"{path}: {self.entries}[{index}]") for index, entry in enumerate(found)]

    def _joined(self, truth: Truth, entry: Any, where: str, tables: dict[str, Mapping[Any, Any]]) -> Any:
        name = _filled(truth.file, entry, where)
        if name not in tables:
            tables[name] = _by_key(Path(self.folder) / name, truth)
        key = tuple(_first_line(_text(entry, place, where)) for place in truth.own)
        if key not in tables[name]:
            raise DataError(f"{where}: {', '.join(key)} is not in {Path(self.folder) / name}")
        return tables[name][key]

    def _media(self, entry: Any, where: str) -> dict[str, Path]:
        found = {}
        for kind, form in self.media.items():
            names = re.findall(r"{(\w+)", form)
            if self.text_only and any(_is_empty(_mapping(entry, where).get(name)) for name in names):
                continue
            path = Path(self.folder) / _filled(form, entry, where)
            found[kind] = find_video(path.parent, path.name) if kind == "video" else path
        return found

    def _truth(self, entry: Any, options: tuple[str, ...], where: str) -> int:
        return option_index(at(entry, self.answer, where), options, f"{where}.{self.answer}", self.answer_is)

    def _options(self, entry: Any, where: str) -> tuple[str, ...]:
        if isinstance(self.options, str):
            return tuple(_texts(entry, self.options, where))
        return tuple(map(as_text, self.options))

    def _category(self, entry: Any, accepted: tuple[str, ...]) -> str:
        if self.category == "yes/no":
            return "yes/no" if {text.lower() for text in accepted} <= {"yes", "no"} else "other"
        return _maybe(entry, self.category) if self.category else ""


def at(entry: Any, place: str, where: str) -> Any:
    """What stands at a place in an entry, `a.0.b`; with `*`, a list of what stands there in each item.

    Raises:
        DataError: there is no such place.
    """
    step, _, rest = place.partition(".")
    if not step:
        return entry
    if step == "*":
        return [at(item, rest, f"{where}[{index}]") for index, item in enumerate(entries(entry, where))]
    if step.isdigit() and isinstance(entry, list):
        if int(step) >= len(entry):
            raise DataError(f"{where}[{step}]: missing; the list has {len(entry)} items")
        return at(entry[int(step)], rest, f"{where}[{step}]")
    return at(member(entry, step, where), rest, f"{where}.{step}")


def _by_key(path: Path, truth: Truth) -> dict[tuple[str, ...], Any]:
    rows = read_entries(path, lines=True) if truth.lines else None
    if rows is None:
        data = at(read_json(path), truth.entries, str(path))
        if isinstance(data, Mapping):
            return {(str(name),): entry for name, entry in data.items()}
        rows = [(entry, f"{path}[{index}]") for index, entry in enumerate(entries(data, str(path)))]
    return {tuple(_first_line(_text(entry, place, where)) for place in truth.key): entry for entry, where in rows}


def _filled(form: str, entry: Any, where: str) -> str:
    """The form with the fields of the entry; a text is a path, of which `{name.stem}` and so on are parts."""
    for name in re.findall(r"{(\w+)", form):
        value = _mapping(entry, where).get(name)
        if _is_empty(value) or not isinstance(value, str | int | float):
            raise DataError(
                f"{where}.{name}: expected a text or a number for {form!r}, got {value!r}; the entry has: "
                f"{', '.join(entry)}"
            )
    fields = {
        key: PurePosixPath(value) if isinstance(value, str) else as_text(value) if isinstance(value, float) else value
        for key, value in entry.items()
    }
    try:
        return form.format(**fields)
    except (AttributeError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{where}: {form!r} cannot be filled ({error})") from error


def _first_line(text: str) -> str:
    """By which a question is found again: without the lines that a prompt puts around it, in lower case."""
    lines = [line for line in text.strip().split("\n") if not line.startswith("Reference OCR token")]
    return lines[0].strip().lower() if lines else ""


def _texts(entry: Any, place: str, where: str) -> list[str]:
    found = at(entry, place, where)
    values = list(found) if isinstance(found, list) else [found]
    while values and is_null(values[-1]):  # pandas fills lists of several lengths up
        values.pop()
    if not values or not all(isinstance(value, str | int | float) and not is_null(value) for value in values):
        raise DataError(f"{where}.{place}: expected a text or a list of them, got {json.dumps(found)[:60]}")
    return [as_text(value) for value in values]


def _text(entry: Any, place: str, where: str) -> str:
    (value,) = _texts(entry, place, where)[:1]
    if not value:
        raise DataError(f"{where}.{place}: expected a text, got nothing")
    return value


def _maybe(entry: Any, place: str) -> str:
    """The text at a place; nothing when it is not there."""
    try:
        return ", ".join(_texts(entry, place, ""))
    except DataError:
        return ""


def _is_empty(value: Any) -> bool:
    return is_null(value) or value == ""


def _mapping(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected keys and values, got {json.dumps(entry)[:60]}")
    return entry
