"""What stands in the rows of a log and of a judge's file; they are files that anyone may have edited."""

from collections.abc import Callable, Mapping
from typing import Any

from avllm.errors import DataError
from avllm.evaluation.aspects import HIGHEST
from avllm.evaluation.extraction import LETTERS

_MOST_SECONDS = 1e9


def check_row(row: Mapping[str, Any], where: str) -> None:
    """That a row of a log can be scored and shown.

    Args:
        row: with `answer`, or with `error`.
        where: file and line, for errors.

    Raises:
        DataError: something is missing or of another kind; the key is named.
    """
    if not {"answer", "error"} & set(row):
        raise DataError(f"{where}: the row {str(row['id'])[:60]} holds neither answer nor error; set out=DIR")
    needed = ("id", "error") if "error" in row else ("id", "question", "prompt", "read_as", "score")
    _check(row, _ROW, needed, where)
    if "verdicts" in row:
        raise DataError(f"{where}: verdicts: expected none here, they stand in the judge's file; take the entry out")
    options, order = row.get("options", ()), row.get("order")
    if row.get("truth") is not None and not row["truth"] < len(options):
        raise _odd(where, "truth", f"the number of one of {len(options)} options", row["truth"])
    if order is not None and sorted(order) != list(range(len(options))):
        raise _odd(where, "order", f"the numbers of {len(options)} options", order)


def check_verdict(row: Mapping[str, Any], where: str) -> None:
    """That a row of a judge's file can be counted.

    Raises:
        DataError: see `check_row`.
    """
    _check(row, _VERDICT, tuple(_VERDICT)[:7], where)


def check_header(header: Mapping[str, Any], where: str) -> None:
    """That the first line of a log can be shown and compared.

    Raises:
        DataError: see `check_row`.
    """
    _check(header, _HEADER, (), where)
    name = header.get("benchmark", {}).get("name", "")
    if not isinstance(name, str):
        raise _odd(where, "benchmark.name", "a text", name)


def check_report(report: Any, where: str) -> None:
    """That a report.json says what a new one takes over.

    Raises:
        DataError: see `check_row`.
    """
    if not isinstance(report, Mapping):
        raise DataError(f"{where}: no report of avllm eval; remove it")
    _check(report, _REPORT, (), where)


def _check(row: Mapping[str, Any], kinds: Mapping[str, "_Kind"], needed: tuple[str, ...], where: str) -> None:
    for key, (what, is_right) in kinds.items():
        if key not in row:
            if key in needed:
                raise DataError(f"{where}: {key} is missing; set out=DIR to another folder")
        elif not is_right(row[key]):
            raise _odd(where, key, what, row[key])


def _odd(where: str, key: str, what: str, value: object) -> DataError:
    return DataError(f"{where}: {key}: expected {what}, got {repr(value)[:60]}; set out=DIR to another folder")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_named_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _between(low: float, high: float) -> Callable[[object], bool]:
    def is_right(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return is_right


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _list_of(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


_Kind = tuple[str, Callable[[Any], bool]]
_TEXT: _Kind = ("a text", _is_text)
_TEXTS: _Kind = ("a list of texts", _are_texts)
_NAMED: _Kind = ("names with texts", _are_named_texts)
_SECONDS: _Kind = ("seconds", _between(0, _MOST_SECONDS))
_MAPPING: _Kind = ("keys and values", lambda value: isinstance(value, dict))
_ROW: Mapping[str, _Kind] = {
    **dict.fromkeys(("id", "question", "prompt", "answer", "error", "category", "shuffle_of", "together"), _TEXT),
    **dict.fromkeys(("accepted", "aspects"), _TEXTS),
    **dict.fromkeys(("media", "groups"), _NAMED),
    **dict.fromkeys(("start_s", "end_s"), _SECONDS),
    "options": (
        f"a list of at most {len(LETTERS)} texts",
        lambda value: _are_texts(value) and len(value) <= len(LETTERS),
    ),
    "truth": ("the number of an option", _or_none(_is_count)),
    "order": ("a list of numbers", _list_of(_is_count)),
    "source_fps": ("frames per second", _between(1e-6, 1e6)),
    "frames_s": ("a list of seconds", _list_of(_between(-_MOST_SECONDS, _MOST_SECONDS))),
    "read_as": ("a text", _or_none(_is_text)),
    "score": ("a number from 0 to 1", _or_none(_between(0, 1))),
}
_VERDICT: Mapping[str, _Kind] = {
    **dict.fromkeys(("id", "aspect", "model", "key", "answer_hash"), _TEXT),
    "tokens": ("two counts", lambda value: _list_of(_is_count)(value) and len(value) == 2),
    "cost": ("a number from 0", _or_none(_between(0, 1e15))),
    **dict.fromkeys(("served_by", "error"), _TEXT),
    "score": (f"a number from 0 to {HIGHEST}", _between(0, HIGHEST)),
    "is_match": ("true or false", lambda value: isinstance(value, bool)),
}
_HEADER: Mapping[str, _Kind] = {
    **dict.fromkeys(("benchmark", "versions"), _MAPPING),
    **dict.fromkeys(("model", "weights"), _TEXT),
}
_REPORT: Mapping[str, _Kind] = {"missing_media": _TEXTS, "without_media": ("a count", _is_count)}
