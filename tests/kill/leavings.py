"""What a command left on the disk, without what differs from run to run: seconds, times, process ids."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Keys of JSON and columns of CSV whose values tell how long it took, or when and by whom.
VOLATILE = {
    *("seconds", "minutes", "elapsed_s", "timings_s", "written_s", "created", "when", "time", "process", "pid"),
    *("samples_per_second", "train_runtime", "train_samples_per_second", "train_steps_per_second"),
    "epoch",  # of a checkpoint: transformers counts it from the last resume on, and nothing reads it
}
# Named by what was stored when, or drawn: that they are there is enough.
CACHE = re.compile(r"index-[0-9a-f]+\.npy")  # of a store of features: made anew for the shards that are there
PRESENT = (".png", ".html", ".pt", ".pth", ".checkpoint", ".npy", ".bin")


def leavings(folder: Path) -> dict[str, Any]:
    """Name -> content of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not CACHE.fullmatch(path.name)
    }


def digests(folder: Path) -> dict[str, str]:
    """Name -> digest of the bytes of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of files that only one has, or that differ."""
    found = [f"only in the uninterrupted run: {name}" for name in one.keys() - other.keys()]
    found += [f"left over: {name}" for name in other.keys() - one.keys()]
    found += [f"differs: {name}: {_shown(one[name], other[name])}" for name in one.keys() & other.keys()
              if one[name] != other[name]]  # fmt: skip
    return sorted(found)


def _shown(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        return f"{keys[:3]}: {[(str(one.get(key))[:120], str(other.get(key))[:120]) for key in keys[:1]]}"
    if isinstance(one, list) and isinstance(other, list):
        gone, more = ([row for row in rows if row not in others] for rows, others in ((one, other), (other, one)))
        return f"{len(one)} and {len(other)} rows; gone {str(gone)[:300]}; more {str(more)[:300]}"
    return f"{str(one)[:120]}, {str(other)[:120]}"


def _content(path: Path) -> Any:
    data = path.read_bytes()
    try:
        return _readable(path, data)
    except (ValueError, KeyError):  # not whole yet
        return f"cut off after {len(data)} bytes"


def _readable(path: Path, data: bytes) -> Any:
    if path.suffix in PRESENT:
        return "there"
    if path.suffix == ".safetensors":
        return _weights(data)
    if path.suffix == ".json":
        return _steady(json.loads(data))
    if path.suffix == ".yaml":
        return yaml.safe_load(data)
    if path.suffix == ".jsonl":
        return sorted(json.dumps(_steady(json.loads(line)), sort_keys=True) for line in data.splitlines())
    if path.suffix == ".csv":
        return [_steady(row) for row in csv.DictReader(io.StringIO(data.decode()))]
    return hashlib.sha256(data).hexdigest()


def _weights(data: bytes) -> dict[str, Any]:
    """Tensors by their bytes, whatever their order in the file, and what is said of them."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = {
        key: _steady(_parsed(value)) for key, value in header.pop("__metadata__", {}).items() if key not in VOLATILE
    }
    start = 8 + length
    tensors = {
        name: (item["dtype"], item["shape"],
        hashlib.sha256(data[start + item["data_offsets"][0] : start + item["data_offsets"][1]]).hexdigest())
        for name, item in header.items()
    }  # fmt: skip
    return {"about": about, **tensors}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value
