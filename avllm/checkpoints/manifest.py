"""The manifest of a converted folder: where its weights came from, what was left out, checksums of all tensors."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from avllm.checkpoints.mapping import Mapped
from avllm.checkpoints.reading import open_file
from avllm.checkpoints.shards import digest
from avllm.checkpoints.sources import Source, read_json
from avllm.errors import CheckpointError

MANIFEST = "avllm_manifest.json"
SETTINGS = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def build(mapped: Mapped, given: Iterable[Source], sums: Mapping[str, str], folder: Path) -> dict[str, Any]:
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
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("avllm", "torch", "transformers")},
        },
        "settings": {name: file_digest(folder / name) for name in SETTINGS if (folder / name).is_file()},
        "tensors": dict(sorted(sums.items())),
    }


def check(folder: Path) -> list[str]:
    """What in a converted folder differs from its manifest; each line names the tensor or file.

    Reads every tensor, one at a time.

    Raises:
        CheckpointError: there is no manifest, or it cannot be read.
    """
    manifest = read_json(folder / MANIFEST)
    sums = manifest.get("tensors")
    if not isinstance(sums, dict) or not sums:
        raise CheckpointError(f"{folder / MANIFEST}: lists no tensors; convert again")
    faults, seen = [], set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors = open_file(path).tensors
        except CheckpointError as error:
            faults.append(str(error))
            continue
        for name, tensor in tensors.items():
            seen.add(name)
            if name not in sums:
                faults.append(f"{name} in {path.name} is not in the manifest")
            elif digest(tensor.read()) != sums[name]:
                faults.append(f"{name} in {path.name} has other bytes than were written")
    faults += [f"{name} is missing" for name in sums if name not in seen]
    for name, value in dict(manifest.get("settings", {})).items():
        path = folder / str(name)
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif file_digest(path) != value:
            faults.append(f"{name} has other bytes than were written")
    return faults


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes it beside the weights."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
