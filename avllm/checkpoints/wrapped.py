"""Sources without what DDP, FSDP, torch.compile or a wrapper put before the names of all weights."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avllm.checkpoints.adapters import is_ours
from avllm.checkpoints.kinds import AVLLM, kind_of_keys
from avllm.checkpoints.sources import Source, open_sources, read_json
from avllm.errors import CheckpointError

PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
# These stand before the names of a part as well, where only the part is compiled or sharded.
INSIDE = re.compile(r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Names of weights begin with it in earnest; it is taken off where they are known without it alone.
USUAL = "model."


def open_given(paths: Sequence[str | Path]) -> list[Source]:
    """Every set of weights in files and folders.

    Raises:
        CheckpointError: there is nothing, a file is damaged, missing or refused, or it is a model or adapter of ours.
    """
    for path in map(Path, paths):
        if is_ours(path):
            raise CheckpointError(
                f"{path}: is an adapter of avllm already; it opens as it is, or as a whole model after: "
                f"avllm merge {path} --out FOLDER"
            )
        if (path / "config.json").is_file() and read_json(path / "config.json").get("model_type") == AVLLM.name:
            raise CheckpointError(f"{path}: is a model folder of avllm already; it opens as it is")
    return [unwrapped(source) for path in paths for source in open_sources(Path(path))]


def unwrapped(source: Source) -> Source:
    """The source with such prefixes taken off all names; what was taken off is in its notes.

    Raises:
        CheckpointError: two weights would get one name.
    """
    names, taken = {name: name for name in source.tensors}, []
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names.values())), None):
        names = {old: name.removeprefix(prefix) for old, name in names.items()}
        taken.append(prefix)
    inside = {match[0] for name in names.values() for match in INSIDE.finditer(name)}
    names, taken = {old: INSIDE.sub("", name) for old, name in names.items()}, [*taken, *sorted(inside)]
    if names and all(name.startswith(USUAL) for name in names.values()):
        without = {old: name.removeprefix(USUAL) for old, name in names.items()}
        if kind_of_keys(names.values(), source.config) is None and kind_of_keys(without.values(), source.config):
            names, taken = without, [*taken, USUAL]
    if not taken:
        return source
    if len(set(names.values())) != len(names):
        raise CheckpointError(f"{source.path}: two weights have one name without {', '.join(taken)} before it")
    files = tuple(replace(f, tensors={names[name]: tensor for name, tensor in f.tensors.items()}) for f in source.files)
    note = f"{', '.join(map(repr, taken))} before the names of its weights (DDP, torch.compile, a wrapper): taken off"
    return replace(source, files=files, notes=(*source.notes, note))
