"""The map from the names of the original Video-LLaVA to those of its port: both must be the same weight of ours."""

from pathlib import Path
from typing import Any

import torch

from avllm.checkpoints import rename
from avllm.checkpoints.decoders import ROTARY
from avllm.checkpoints.video_llava import tables
from avllm.model import System
from tests.parity.common import Row

TEMPORAL = "branches.video.encoder.temporal."


def is_keymap(data: Any) -> bool:
    """Names onto names, or onto nothing."""
    values = [value for key, value in data.items() if key != "_meta"] if isinstance(data, dict) else []
    return bool(values) and all(value is None or isinstance(value, str) for value in values)


def check_keymap(path: Path, data: dict[str, Any]) -> list[Row]:
    """What both have is one weight of ours; what the port lost is attention over time, or is recomputed."""
    pairs = {name: value for name, value in data.items() if name != "_meta"}
    original = targets(list(pairs), "video_llava_7b", "model")
    port = targets([value for value in pairs.values() if value is not None], "video_llava_7b_hf", "hf")
    kept = {name: value for name, value in pairs.items() if value is not None}
    odd = [
        f"{name} is {original[name]}, {value} {port[value]}"
        for name, value in kept.items()
        if original[name] != port[value]
    ]
    lost = {name: original[name] for name, value in pairs.items() if value is None}
    wrong = [name for name, ours in lost.items() if ".temporal_" not in name and ours != ROTARY.reason]
    stayed = [name for name in kept if original[name].startswith(TEMPORAL)]
    return [
        Row(f"{path.name}: kept", None, "one weight of ours", not odd, "; ".join(odd[:3]) or f"{len(kept)} names"),
        Row(f"{path.name}: lost", None, "attention over time", not wrong + stayed,
            "; ".join([*wrong, *stayed][:3]) or f"{len(lost)} names"),
    ]  # fmt: skip


def targets(names: list[str], system: str, kind: str) -> dict[str, str]:
    """Published name -> our name, or the reason why it is left out."""
    weights = {name: torch.empty(1, device="meta") for name in names}
    renamed = rename.rename(weights, tables(System.from_yaml(system))[kind], source=system)
    return {name: ours for ours, origin in renamed.origin.items() for name in origin} | renamed.dropped
