"""How single media are read where their entry says it: from second to second, and which frames."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avllm.data.annotations import as_text, show
from avllm.data.records import Kind
from avllm.errors import ConfigError, DataError
from avllm.model.options import VideoOptions, checked

# Names that are in use -> the option of `AvllmProcessor.read`, and the kind of medium that it is of.
SPANS: Mapping[str, tuple[str, Kind | None]] = {
    **{f"start{unit}": ("start_s", None) for unit in ("", "_s", "_sec", "_time", "_seconds")},
    **{f"end{unit}": ("end_s", None) for unit in ("", "_s", "_sec", "_time", "_seconds")},
    **{f"{kind}_start{unit}": ("start_s", kind) for kind in ("video", "audio") for unit in ("", "_s", "_time")},  # type: ignore[dict-item]
    **{f"{kind}_end{unit}": ("end_s", kind) for kind in ("video", "audio") for unit in ("", "_s", "_time")},  # type: ignore[dict-item]
}

# Of videos, where a content part or a question of `avllm run` has them.
FRAME_KEYS: Mapping[str, str] = {
    "nframes": "num_frames",
    **{name: name for name in ("num_frames", "sampling", "fps", "max_frames", "source_fps")},
}
WHOLE = ("num_frames", "max_frames")


def frame_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Which frames of a video are taken, as options of `AvllmProcessor.read`; 8.0 and "8" are 8, as tables write them.

    Raises:
        DataError: a wrong value, or two options that do not go together.
    """
    found: dict[str, Any] = {}
    for key, name in FRAME_KEYS.items():
        if key in given:
            if name in found:
                raise DataError(f"{where}.{key}: {name} is given twice; expected one of the keys")
            found[name] = given[key] if name == "sampling" else _number(given[key], f"{where}.{key}", name in WHOLE)
    try:
        checked(VideoOptions, found)
    except ConfigError as error:
        raise DataError(f"{where}.{error}") from error
    return found


def _number(value: Any, where: str, is_whole: bool) -> float:
    said = as_text(value)
    try:
        number = float(said) if said is not None else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf or (is_whole and number != int(number)):
        raise DataError(f"{where}: expected a {'whole ' * is_whole}number above 0, got {show(value)}")
    return int(number) if is_whole else number


def span(part: Mapping[str, Any], where: str) -> dict[str, float]:
    """`start_s` and `end_s` of one medium.

    Raises:
        DataError: no seconds, or the end is not behind the start.
    """
    return spans(part, [None], where)[0]


def spans(entry: Mapping[str, Any], kinds: Sequence[Kind | None], where: str) -> list[dict[str, float]]:
    """`start_s` and `end_s` of each medium of an entry, where they are given.

    Args:
        entry: a number for a single medium, a list with one for each (or null) otherwise.
        kinds: of its media that have a duration, in order; None stands for any.
        where: names the entry.

    Raises:
        DataError: no seconds, not one for each medium, or an end that is not behind its start.
    """
    found: list[dict[str, float]] = [{} for _ in kinds]
    for key in (key for key in SPANS if key in entry):
        option, kind = SPANS[key]
        of = [number for number, other in enumerate(kinds) if kind is None or other in (kind, None)]
        for number, value in zip(of, _values(entry[key], len(of), f"{where}.{key}"), strict=True):
            if option in found[number] and value is not None:
                raise DataError(f"{where}.{key}: {option} of the medium is given twice; expected one of the keys")
            if value is not None:
                found[number][option] = value
    for given in found:
        if not given.get("start_s", 0.0) < given.get("end_s", math.inf):
            start, end = given.get("start_s", 0), given["end_s"]
            raise DataError(f"{where}: expected start < end in seconds, got {start} and {end}")
    return found


def _values(value: Any, count: int, where: str) -> list[float | None]:
    if not count:
        raise DataError(f"{where}: the entry has no video or sound that it could be a part of")
    values = value if isinstance(value, list) else [value]
    if len(values) != count:
        raise DataError(f"{where}: {len(values)} times for {count} media; expected a list with one for each, or null")
    return [None if item is None else _seconds(item, where) for item in values]


def _seconds(value: Any, where: str) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where}: expected seconds from the start of the medium, got {show(value)}")
    return seconds
