"""What a user points at: files and folders of published weights, as sets of tensors that are still in their files."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from avllm.checkpoints.mistaken import AGAIN, is_state, what_file, what_folder
from avllm.checkpoints.reading import HEAD_BYTES, LazyTensor, WeightFile, open_file
from avllm.errors import CheckpointError

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Files of a training beside the weights; none holds weights, and some hold pickled objects.
NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states")
MAX_JSON_BYTES = 64_000_000
MAX_DEPTH = 2
CHECKPOINT = re.compile(r"checkpoint-\d+")
NUMBERED = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(safetensors|bin)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of weights: a file, or the shards of one model.

    Args:
        path: what the user pointed at, or a file or folder in it.
        files: the files that hold the tensors, in order.
        config: `config.json` beside the weights, or the settings inside the file; empty when there is none.
        adapter: `adapter_config.json` beside an adapter's weights.
        tokenizer: folder that holds a tokenizer beside the weights.
        notes: what else there is to say of it.
    """

    path: Path
    files: tuple[WeightFile, ...]
    config: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name

    @cached_property
    def tensors(self) -> dict[str, LazyTensor]:
        """Name -> tensor of all files."""
        return {name: tensor for file in self.files for name, tensor in file.tensors.items()}

    @property
    def left_out(self) -> dict[str, str]:
        """Parts of the files that hold no weights, with why they are left out."""
        return {name: reason for file in self.files for name, reason in file.left_out.items()}

    def meta(self) -> dict[str, Tensor]:
        """Name -> tensor without data."""
        return {name: tensor.meta() for name, tensor in self.tensors.items()}


def open_sources(path: Path) -> list[Source]:
    """Every set of weights in a file or folder; nothing in it is run and no tensor is read.

    A folder with a `config.json` is one model (and what lies beside its shards); another one is a collection of files.

    Raises:
        CheckpointError: there is nothing, or a file is damaged, missing or refused.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; expected published weights")
    found = [_file_source(path)] if path.is_file() else _folder(path, MAX_DEPTH)
    if not found:
        raise CheckpointError(f"{path}: {what_folder(path)}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a source.

    Raises:
        CheckpointError: it is missing, too large, damaged or something else.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_JSON_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: {size} bytes; at most {MAX_JSON_BYTES} are read")
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        mistaken = what_file(content[:HEAD_BYTES], len(content))
        cause = f"is no JSON ({error})" if mistaken is None or content.lstrip()[:1] in (b"{", b"[") else mistaken
        raise CheckpointError(f"{path}: {cause}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected names and values, got a {type(data).__name__}")
    return data


def _file_source(path: Path) -> Source:
    """A file alone; its folder's `config.json` says what it belongs to."""
    file, adapter = open_file(path), path.parent / "adapter_config.json"
    is_adapter = path.stem == "adapter_model" and adapter.is_file()
    return Source(
        path=path,
        files=(file,),
        config=file.config or _config(path.parent),
        adapter=read_json(adapter) if is_adapter else {},
        tokenizer=_tokenizer(path.parent),
    )


def _folder(folder: Path, depth: int) -> list[Source]:
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.startswith(NOT_WEIGHTS) and not is_state(path)]
    found, shards = [], _shards(folder, files)
    if shards:
        files = [path for path in files if path not in shards and not _is_copy(path, shards)]
        opened = tuple(open_file(shard) for shard in shards)
        _check_index(folder, opened)
        found.append(Source(path=folder, files=opened, config=_config(folder), tokenizer=_tokenizer(folder)))
    found += [_file_source(path) for path in files]
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    state = [path.name for path in below if is_state(path)]
    if depth and not shards and not (found and (folder / "config.json").is_file()):
        # Beside an adapter at the end of a training lie its checkpoints, which are older states of the same.
        below = [path for path in below if not is_state(path) and not (found and CHECKPOINT.fullmatch(path.name))]
        checkpoints = [path.name for path in below if CHECKPOINT.fullmatch(path.name)]
        if len(checkpoints) > 1:
            raise CheckpointError(f"{folder}: holds several checkpoints ({', '.join(checkpoints)}); give one of them")
        for child in below:
            found += _folder(child, depth - 1)
    if found and state:
        note = f"{', '.join(state)} beside it: the state of a training, left out"
        found[0] = replace(found[0], notes=(*found[0].notes, note))
    return found


def _shards(folder: Path, files: list[Path]) -> list[Path]:
    """The files of one model: those of its index, those that are numbered, or the one that a model is saved as."""
    for index in INDEXES:
        if (folder / index).is_file():
            names = _weight_map(folder / index)
            return [folder / name for name in sorted(set(names.values()))]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if folder / name in files:
            return [folder / name]
    numbered = [match for path in files if (match := NUMBERED.fullmatch(path.name)) is not None]
    if not numbered:
        return []
    first = max(numbered, key=lambda match: match[3])  # safetensors, if there are both
    names = [f"{first[1]}-{number:05d}-of-{first[2]}.{first[3]}" for number in range(1, int(first[2]) + 1)]
    _require_shards(folder, names, "its shards are numbered")
    return [folder / name for name in names]


def _require_shards(folder: Path, names: Iterable[str], why: str) -> None:
    absent = [name for name in sorted(names) if not os.path.isfile(folder / name)]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise CheckpointError(f"{folder}: {', '.join(absent[:3])}{more} is missing; {why}; {AGAIN}")


def _weight_map(index: Path) -> Mapping[str, str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index}: weight_map is missing or damaged")
    for name in set(names.values()):
        if Path(name).name != name or name.startswith("."):
            raise CheckpointError(f"{index}: {name!r} is no file of this folder; refused")
    _require_shards(index.parent, set(names.values()), f"{index.name} names it")
    return names


def _check_index(folder: Path, shards: tuple[WeightFile, ...]) -> None:
    """The index and the shards hold the same names, each once."""
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    where: dict[str, str] = {}
    for shard in shards:
        for name in shard.tensors:
            if name in where:
                raise CheckpointError(f"{folder}: {name} is in {where[name]} and in {shard.path.name}")
            where[name] = shard.path.name
    names = _weight_map(index) if index else where
    odd = sorted(name for name in names.keys() | where.keys() if names.get(name) != where.get(name))
    if odd:
        raise CheckpointError(
            f"{folder}: {odd[0]} is in {where.get(odd[0], 'no shard')}, its index says {names.get(odd[0], 'nothing')} "
            f"({len(odd)} such weights); download the folder again"
        )


def _is_copy(path: Path, shards: list[Path]) -> bool:
    """The same model saved in the other format beside it."""
    stems = ("model", "pytorch_model", "consolidated")
    return path.suffix != shards[0].suffix and path.stem.split("-0")[0].split(".")[0] in stems


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def _tokenizer(folder: Path) -> Path | None:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    return folder if any((folder / name).is_file() for name in names) else None


def release(sources: list[Source], keep: Callable[[WeightFile], bool] = lambda file: False) -> None:
    """Forgets what reading kept in memory."""
    for source in sources:
        for file in source.files:
            if not keep(file):
                file.release()
