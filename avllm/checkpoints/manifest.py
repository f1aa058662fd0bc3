"""The manifest of a folder: checksums of all tensors; of a converted one, what it was made of and what was left out.

Weights whose bytes changed since they were written are refused when they are loaded. Reading a large model for that
takes seconds: which files were found right is remembered, by their sizes and times, in the user's cache.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avllm.checkpoints.reading import open_file
from avllm.checkpoints.shards import digest
from avllm.checkpoints.sources import Source, read_json
from avllm.durable import write_whole
from avllm.errors import AvllmError, CheckpointError
from avllm.model.stored import MANIFEST, weight_files

if TYPE_CHECKING:  # which takes longer to import than nano to load
    from avllm.checkpoints.mapping import Mapped

SETTINGS = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
ALWAYS_BYTES = 100_000_000  # up to which weights are read each time, in a tenth of a second or so
THREADS, THREADS_FROM_BYTES = 4, 20_000_000
MAX_NAMED = 8


def build(mapped: "Mapped", given: Iterable[Source], sums: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """What the manifest says.

    Args:
        mapped: the sources on our model.
        given: the sources as the user gave them, a delta and its base apart.
        sums: our name -> checksum of its bytes.
        folder: of the converted model, for the checksums of its settings.
    """
    files = sorted({file.path.resolve() for source in given for file in source.files})
    return {
        "format": 1,
        "system": mapped.family,
        "sources": [
            {"file": f"{path.parent.name}/{path.name}", "bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in files
        ],
        "parts": [{"source": part.source.name, "kind": part.kind.name} for part in mapped.parts],
        "dropped": {
            part.source.name: {**part.renamed.dropped, **part.source.left_out}
            for part in mapped.parts
            if part.renamed.dropped or part.source.left_out
        },
        "versions": _versions(),
        "settings": _settings(folder),
        "tensors": dict(sorted(sums.items())),
    }


def of_saved(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says that was just saved; reads its weights once."""
    sums = {name: value for _, name, value in _sums(weight_files(folder))}
    return {
        "format": 1,
        "versions": _versions(),
        "settings": _settings(folder),
        "tensors": dict(sorted(sums.items())),
    }


def require_as_written(folder: Path) -> bool:
    """That the weights of a folder are those that were written.

    Returns:
        Whether it has a manifest that tells.

    Raises:
        CheckpointError: a tensor has other bytes, is missing or left over; it is named.
    """
    if not (folder / MANIFEST).is_file():
        return False
    files = weight_files(folder)
    is_large = sum(path.stat().st_size for path in files) > ALWAYS_BYTES
    if is_large and _remembered(folder) == _state(folder):
        return True
    faults = _weight_faults(files, read(folder)["tensors"])
    if faults:
        more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise CheckpointError(
            f"model folder {folder}: {'; '.join(faults[:MAX_NAMED])}{more}; its copy or its disk is damaged, get it "
            f"again (or, if you changed it yourself, remove its {MANIFEST})"
        )
    if is_large:
        _remember(folder)
    return True


def check(folder: Path) -> list[str]:
    """What in a converted folder differs from its manifest; each line names the tensor or file.

    Reads every tensor, one at a time.

    Raises:
        CheckpointError: there is no manifest, or it cannot be read.
    """
    manifest = read(folder)
    faults = _weight_faults(weight_files(folder), manifest["tensors"])
    for name, value in manifest["settings"].items():
        path = folder / str(name)
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif file_digest(path) != value:
            faults.append(f"{name} has other bytes than were written")
    return faults


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes it beside the weights."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _versions() -> dict[str, str]:
    names = ("avllm", "torch", "transformers")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _settings(folder: Path) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in SETTINGS if (folder / name).is_file()}


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        CheckpointError: it is damaged.
    """
    told = read_json(folder / MANIFEST)
    if not isinstance(told.get("tensors"), dict) or not told["tensors"]:
        raise CheckpointError(f"{folder / MANIFEST}: lists no tensors; convert or save it again")
    dropped = told.setdefault("dropped", {})
    is_odd = not isinstance(told.setdefault("settings", {}), dict) or not isinstance(dropped, dict)
    is_odd |= not all(isinstance(reasons, dict) for reasons in (() if is_odd else dropped.values()))
    parts = told.setdefault("parts", [])
    is_odd |= not isinstance(parts, list) or not all(
        isinstance(part, dict) and {"source", "kind"} <= part.keys() for part in parts
    )
    if is_odd:
        raise CheckpointError(f"{folder / MANIFEST}: is damaged; convert or save it again")
    return told


def _weight_faults(files: Iterable[Path], sums: Mapping[str, str]) -> list[str]:
    faults, seen, whole = [], set(), []
    for path in files:
        try:
            open_file(path)
            whole.append(path)
        except CheckpointError as error:
            faults.append(str(error))
    for path, name, value in _sums(whole):
        seen.add(name)
        if name not in sums:
            faults.append(f"{name} in {path.name} is not in the manifest")
        elif value != sums[name]:
            faults.append(f"{name} in {path.name} has other bytes than were written")
    return faults + [f"{name} is missing" for name in sums if name not in seen]


def _sums(files: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """(file, tensor, checksum of its bytes) of all tensors."""
    tensors = [(path, name, tensor) for path in files for name, tensor in open_file(path).tensors.items()]
    if sum(tensor.nbytes for _, _, tensor in tensors) < THREADS_FROM_BYTES:
        yield from ((path, name, digest(tensor.read())) for path, name, tensor in tensors)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        sums = pool.map(lambda item: digest(item[2].read()), tensors)
        yield from ((path, name, value) for (path, name, _), value in zip(tensors, sums, strict=True))


def _state(folder: Path) -> list[list[Any]]:
    """What changes when a file is written: its size, times and place on the disk."""
    facts = [(path, path.stat()) for path in (*weight_files(folder), folder / MANIFEST)]
    return [[path.name, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino] for path, at in facts]


def _memory(folder: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "avllm" / "checked" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()}.json"


def _remembered(folder: Path) -> Any:
    try:
        return json.loads(_memory(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # none, half of one, or no home
        return None


def _remember(folder: Path) -> None:
    try:
        write_whole(_memory(folder), json.dumps(_state(folder)))
    except (OSError, RuntimeError, AvllmError):  # a cache that cannot be written; it is read again next time
        return


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
