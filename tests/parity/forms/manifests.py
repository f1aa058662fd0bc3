"""Full-size key lists of published files: every key is mapped or dropped with a reason, every shape is ours.

This is `avllm inspect` on sources without data: the model is built on the meta device, which takes no memory.
"""

import re
from pathlib import Path
from typing import Any

import torch

from avllm.checkpoints.families import FAMILIES
from avllm.checkpoints.inspect import describe
from avllm.checkpoints.reading import LazyTensor, WeightFile
from avllm.checkpoints.sources import Source
from tests.parity.common import Row, read_json
from tests.parity.keymap import check_keymap, is_keymap

OMITTED = re.compile(r"layers (\d+)\.\.(\d+) omitted")


def recognises(path: Path) -> bool:
    """A folder of key lists."""
    return any(key_list(read_json(file)) for file in path.glob("*.json"))


def run(path: Path) -> list[Row]:
    """One manifest, or every manifest of a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return [row for file in files for row in check_file(file)]


def check_file(path: Path) -> list[Row]:
    """The rows of one manifest: what was mapped, what was dropped and why, what does not fit."""
    data = read_json(path)
    shapes = key_list(data)
    if is_keymap(data):
        return check_keymap(path, data)
    if not shapes:
        return [Row(path.name, None, "", True, "not covered: not a list of keys")]
    report = describe([source(path, shapes, data)], name=path.name, system=system_of(path))
    (part,) = report.parts
    if not part.fills:
        notes = "; ".join([*part.problems, *report.problems, *report.notes])
        return [Row(path.name, None, "", False, f"no name table knows its keys: {notes}")]
    mapped = f"{part.mapped} of {part.keys} keys fill {part.fills} tensors of {report.system}"
    return [
        Row(f"{path.name}: mapped", None, "equal shapes", report.ok, mapped),
        *(
            Row(f"{path.name}: dropped", None, "", True, f"{count} keys: {reason} (as {part.examples[reason]})")
            for reason, count in part.dropped.items()
        ),
        *(Row(f"{path.name}: to add", None, "", True, file) for file in report.missing),
        *(
            Row(f"{path.name}: problem", None, "equal shapes", False, problem)
            for problem in [*part.problems, *report.problems]
        ),
    ]


def source(path: Path, shapes: dict[str, tuple[list[int], torch.dtype]], data: dict[str, Any]) -> Source:
    """The key list as a source whose tensors nobody reads."""

    def unread() -> torch.Tensor:
        raise AssertionError("a key list holds no data")

    tensors = {name: LazyTensor(tuple(shape), dtype, unread) for name, (shape, dtype) in shapes.items()}
    meta = data.get("_meta", {})
    config = meta.get("config") or meta.get("cfg") or {}
    return Source(path=path, files=(WeightFile(path=path, tensors=tensors),), config=config)


def system_of(path: Path) -> str | None:
    """The published system that a folder of key lists belongs to, where the keys alone leave it open."""
    system = path.resolve().parent.parent.name
    return system if system in FAMILIES else None


def key_list(data: Any) -> dict[str, tuple[list[int], torch.dtype]]:
    """Name -> shape and dtype of a manifest, layers that it omits filled in; empty when it is something else."""
    keys = data.get("keys", data) if isinstance(data, dict) else None
    if not isinstance(keys, dict):
        return {}
    found = {
        name: (value[0], getattr(torch, value[1]))
        for name, value in keys.items()
        if isinstance(value, list) and len(value) >= 2 and isinstance(value[0], list) and isinstance(value[1], str)
    }
    omitted = OMITTED.search(str(data.get("_meta", {}).get("note", "")))
    if omitted is not None:
        first, last = int(omitted[1]), int(omitted[2])
        before = f"model.layers.{first - 1}."
        for name, value in list(found.items()):
            if name.startswith(before):
                found |= {name.replace(before, f"model.layers.{i}.", 1): value for i in range(first, last + 1)}
    return found
