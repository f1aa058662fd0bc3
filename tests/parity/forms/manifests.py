"""Full-size key lists of published files: every key is mapped or dropped with a reason, every shape is ours.

The model is built on the meta device from the system's YAML, so this takes no memory for weights.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avllm import config
from avllm.checkpoints.rename import Drop, Table, matches, problems, published_names, rename
from avllm.checkpoints.video_llama import tables
from avllm.model import System
from tests.parity.common import Row, read_json

SYSTEMS = ("video_llama_7b", "video_llama_13b")


def recognises(path: Path) -> bool:
    """A folder of key lists."""
    return any(key_list(read_json(file)) for file in path.glob("*.json"))


def run(path: Path) -> list[Row]:
    """One manifest, or every manifest of a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return [row for file in files for row in check_file(file)]


def check_file(path: Path) -> list[Row]:
    """The rows of one manifest: what was mapped, what was dropped and why, what does not fit."""
    shapes = key_list(read_json(path))
    if not shapes:
        return [Row(path.name, None, "", True, "not covered: not a list of keys")]
    weights = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in shapes.items()}
    system = system_for(weights)
    known = tables(
        depth=system.branches["video"].encoder.depth,
        trunks=[trunk for trunk in ("vision", "audio", "text") if getattr(system.branches["audio"].encoder, trunk)],
    )
    table = max(known.values(), key=lambda table: score(weights, table))
    if not score(weights, table):
        return [Row(path.name, None, "", False, "no name table knows any of its keys")]
    renamed = rename(weights, table, source=path.name)
    expected = {name: tensor.shape for name, tensor in build(system).items() if published_names(name, table)}
    found = problems(expected, renamed)
    counts = Counter(renamed.dropped.values())
    example = {reason: name for name, reason in renamed.dropped.items()}
    mapped = f"{len(weights) - len(renamed.dropped)} of {len(weights)} keys fill {len(expected)} tensors"
    return [
        Row(f"{path.name}: mapped", None, "equal shapes", not found, mapped),
        *(
            Row(f"{path.name}: dropped", None, "", True, f"{count} keys: {reason} (for example {example[reason]})")
            for reason, count in counts.items()
        ),
        *(Row(f"{path.name}: problem", None, "equal shapes", False, problem) for problem in found),
    ]


def key_list(data: Any) -> dict[str, tuple[list[int], torch.dtype]]:
    """Name -> shape and dtype of a manifest; empty when the JSON is something else."""
    keys = data.get("keys", data) if isinstance(data, dict) else {}
    if not isinstance(keys, dict):
        return {}
    entries = {name: value for name, value in keys.items() if isinstance(value, list) and len(value) == 2}
    return {
        name: (shape, getattr(torch, dtype))
        for name, (shape, dtype) in entries.items()
        if isinstance(shape, list) and isinstance(dtype, str)
    }


def system_for(weights: Mapping[str, Tensor]) -> System:
    """The published size whose decoder has the width of this file's projection; 7B when it has none."""
    systems = [config.load(System, config.find_file("configs", name)) for name in SYSTEMS]
    widths = {len(tensor) for name, tensor in weights.items() if name.endswith("llama_proj.weight")}
    return next((system for system in systems if system.decoder["hidden_size"] in widths), systems[0])


def build(system: System) -> dict[str, Tensor]:
    """The state of both branches on the meta device, under the names of the whole model."""
    state = {}
    with torch.device("meta"):
        for name, branch in system.branches.items():
            encoder = branch.encoder.build()
            connector = branch.connector.build(in_width=encoder.width, out_width=system.decoder["hidden_size"])
            parts = nn.ModuleDict({"encoder": encoder, "connector": connector})
            state |= {f"branches.{name}.{key}": tensor for key, tensor in parts.state_dict().items()}
    return state


def score(weights: Mapping[str, Tensor], table: Table) -> int:
    """How many of the keys one of the table's rules maps."""
    kept = {pattern: target for pattern, target in table.items() if not isinstance(target, Drop)}
    return sum(matches(name, kept) for name in weights)
