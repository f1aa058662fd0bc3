"""The weights of a folder against the model that its configuration describes, before any memory is taken for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from avllm.errors import CheckpointError
from avllm.model.untrusted import INDEX, read_settings

# Name of a weight -> its shape and type in the files, while a model of a folder is built; None where it is not known.
Stored = Mapping[str, tuple[tuple[int, ...], str]]
_STORED: ContextVar[Stored | None] = ContextVar("stored", default=None)
WHOLE, OF_ADAPTERS = "model.safetensors", ("adapter_model.safetensors", "trained.safetensors")
MANIFEST = "avllm_manifest.json"  # of the checksums of a folder's weights
MAX_NAMED = 8
FLOATS = ("F64", "F32", "F16", "BF16")


@contextmanager
def built_for(folder: Path) -> Iterator[None]:
    """Within, a model that is built must have the weights of this folder; `require_fit` refuses another one."""
    token = _STORED.set(_shapes(folder))
    try:
        yield
    finally:
        _STORED.reset(token)


def require_fit(model: nn.Module, *, is_tied: bool) -> None:
    """That a model, just built and still without data, has the weights of the folder that it is built for.

    Args:
        model: on the meta device.
        is_tied: its head is its embedding, and is stored once.

    Raises:
        CheckpointError: a weight is missing, left over, of another shape or no floating-point number; it is named.
    """
    stored = _STORED.get()
    if stored is None:
        return
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    faults = {
        "missing": [
            name for name in expected if name not in stored and not (is_tied and name.endswith("lm_head.weight"))
        ],
        "left over": [name for name in stored if name not in expected],
        "of another shape": [
            f"{name} ({list(stored[name][0])}, the configuration says {list(shape)})"
            for name, shape in expected.items()
            if name in stored and stored[name][0] != shape
        ],
        "no floating-point numbers": [
            f"{name} ({stored[name][1]})"
            for name, tensor in model.named_parameters()
            if name in stored and stored[name][1] not in FLOATS
        ],
    }
    told = [f"{what}: {', '.join(sorted(names)[:MAX_NAMED])}" for what, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{'; '.join(told)}; convert or save it again")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a model folder or an adapter, without what lies beside them."""
    index = folder / INDEX
    if index.is_file() and not (folder / WHOLE).is_file():
        names = read_settings(index)
        names = names.get("weight_map") if isinstance(names, Mapping) else None
        return [folder / name for name in sorted(set(map(str, names.values())))] if isinstance(names, Mapping) else []
    return [folder / name for name in (WHOLE, *OF_ADAPTERS) if (folder / name).is_file()]


def _shapes(folder: Path) -> Stored | None:
    """What the safetensors of a folder hold; None when they are damaged, which opening them tells."""
    stored: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        for path in weight_files(folder):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no mapping
                    part = file.get_slice(name)
                    stored[name] = tuple(part.get_shape()), part.get_dtype()
    except (OSError, SafetensorError):
        return None
    return stored
