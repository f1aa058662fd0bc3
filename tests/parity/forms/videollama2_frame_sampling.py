"""The form `frame_sampling` of VideoLLaMA 2: indices of the two modes, and of parts of a video."""

from pathlib import Path
from typing import Any

from avllm.errors import ConfigError, MediaError
from avllm.media import Sampling
from tests.parity.check import Check
from tests.parity.common import read_json


def recognises(folder: Path) -> bool:
    """Whether the case holds this form's table."""
    path = folder / "indices.json"
    return path.is_file() and "process_video_windows" in read_json(path)


def run(folder: Path, check: Check) -> None:
    """Checks every row of indices.json exactly."""
    stored = read_json(folder / "indices.json")
    for mode in ("uniform", "fps"):
        rows = [row for row in stored["frame_sample"] if row["mode"] == mode]
        got = [list(sampling(row).indices(row["duration"], row.get("fps") or 25.0)) for row in rows]
        check.same(f"frame_sample.{mode}", got, [row["indices"] for row in rows])
    for row in stored["process_video_windows"]:
        check_window(row, check)


def check_window(row: dict[str, Any], check: Check) -> None:
    """A part of a video: with the published arithmetic where the part is one, else an error.

    The published code swaps, moves or invents the ends of a part that is none; a wrong request is an error here.
    """
    start, end = row["s"], row["e"]
    name = f"{row['total']} frames at {row['fps']}, {start} to {end} s, {row['num_frames'] or 'fps'}"
    is_part = (start is None or start >= 0) and (end is None or end > (start or 0))
    try:
        options = {"start_s": start, "end_s": end, "starts_early": True}
        got: Any = list(sampling(row, **options).indices(row["total"], row["fps"]))
    except (ConfigError, MediaError) as error:
        got = type(error).__name__
    if not is_part:
        check.same(f"{name}: refused", got, "ConfigError")
    elif isinstance(row["indices"], str):
        check.same(f"{name}: no frame", got, "MediaError")
    else:
        check.same(name, got, row["indices"])


def sampling(row: dict[str, Any], **options: Any) -> Sampling:
    """Uniform where the row has a number of frames, else one frame per second."""
    if row.get("num_frames"):
        return Sampling(kind="middle", num_frames=row["num_frames"], **options)
    return Sampling(kind="fps", fps=1.0, **options)
