"""The state of a run on disk: written whole or not at all, the last good one is never lost."""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avllm.durable import UNFINISHED, disk_faults, sync, sync_folder
from avllm.errors import CheckpointError

TRAINABLE = "trainable.safetensors"
PREFIX = "step-"


def write(folder: Path, step: int, fill: Callable[[Path], None], *, keep: int, also: Collection[Path] = ()) -> Path:
    """Stores the state after `step`; older ones beyond `keep` go when it is safe on disk.

    Args:
        folder: holds one folder per stored step.
        step: steps done.
        fill: writes the files into an empty folder.
        keep: how many of the newest stay.
        also: older ones that stay as well.
    """
    target = folder_of(folder, step)
    unfinished = folder / f"{UNFINISHED}{target.name}"
    for left in folder.glob(f"{UNFINISHED}{PREFIX}*"):  # by a crash
        shutil.rmtree(left)
    try:
        with disk_faults(target):
            unfinished.mkdir(parents=True)
            fill(unfinished)
            sync(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if target.exists():  # the same step again, after a resume: the same state
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(target)
        sync_folder(folder)
    for old in set(stored(folder)[:-keep]) - set(also):
        # Renamed first: a folder half removed must not look like a checkpoint.
        doomed = folder / f"{UNFINISHED}{old.name}"
        old.rename(doomed)
        shutil.rmtree(doomed)
    return target


def stored(folder: Path) -> list[Path]:
    """Folders of stored states, oldest first; what a crash left half written is not among them."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def folder_of(folder: Path, step: int) -> Path:
    """Where the state after a step is stored."""
    return folder / f"{PREFIX}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Steps done in a stored state."""
    return int(checkpoint.name.removeprefix(PREFIX))


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes named weights."""
    save_file(dict(weights), path, {"format": "pt"})


def load_parameters(model: nn.Module, names: Iterable[str], path: Path) -> None:
    """Fills exactly the named parameters.

    Raises:
        CheckpointError: the file holds more, less, or other shapes; the names are given.
    """
    weights = read_parameters(path)
    fill_parameters(model, weights, path, expected=set(names))


def read_parameters(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        CheckpointError: it is missing or broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); expected the weights of a stage") from error


def fill_parameters(model: nn.Module, weights: Mapping[str, Tensor], source: Path, *, expected: set[str]) -> None:
    """Copies weights into the parameters of the same names.

    Raises:
        CheckpointError: names or shapes differ.
    """
    parameters = dict(model.named_parameters())
    missing, surplus = sorted(expected - set(weights)), sorted(set(weights) - expected)
    if missing or surplus:
        faults = {"missing": missing, "left over": surplus}
        found = [f"{what} {', '.join(names[:8])}" for what, names in faults.items() if names]
        raise CheckpointError(f"{source}: {'; '.join(found)}; expected the trained parts of this stage")
    for name in expected:
        if name not in parameters or parameters[name].shape != weights[name].shape:
            shape = list(parameters[name].shape) if name in parameters else "no such parameter"
            raise CheckpointError(f"{source}: {name}: model has {shape}, file has {list(weights[name].shape)}")
        parameters[name].data.copy_(weights[name])
