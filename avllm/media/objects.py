"""Objects of other libraries: arrays, tensors, open files; what they raise themselves is no fault of ours."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avllm.errors import MediaError
from avllm.media.files import shown
from avllm.media.limits import Limits

_READ_BYTES = 1 << 20


@contextmanager
def object_faults(what: str, advice: str) -> Iterator[None]:
    """Around what an object of the caller's does by itself, and nothing else.

    Raises:
        MediaError: in place of any error from in there, of which the type is named: its text may tell of anything.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{what} ({type(error).__name__}); {advice}") from error


def kind_of_object(value: Any) -> str:
    """Name of its type, for messages."""
    return shown(type(value).__name__)


def as_array(value: Any, limits: Limits) -> np.ndarray | None:
    """An array, or numpy's view of a tensor of any library; None of everything else.

    Raises:
        MediaError: values that are no numbers, a tensor that numpy cannot hold, such as a sparse one, or over a limit.
    """
    array = value if isinstance(value, np.ndarray) else _tensor(value, limits)
    if array is None:
        return None
    if np.ma.is_masked(array):
        raise MediaError("an array of which some values are masked; expected all of them: fill it")
    array = np.asarray(array)
    limits.check_file_bytes(array.nbytes)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        values = "structured values" if array.dtype.names else shown(str(array.dtype))
        raise MediaError(f"an array of {values} {array.shape}; expected numbers: frames or samples")
    return array


def _tensor(value: Any, limits: Limits) -> np.ndarray | None:
    if isinstance(value, Image.Image | str | bytes | bytearray | memoryview):
        return None
    with object_faults(f"a {kind_of_object(value)} that cannot become an array", "pass a dense one"):
        if not hasattr(value, "__array__"):
            return None
        if hasattr(value, "detach"):  # torch: numpy knows neither gradients nor devices nor bfloat16
            limits.check_file_bytes(value.numel() * value.element_size())  # before it is fetched from its device
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        elif isinstance(size := getattr(value, "nbytes", None), int):  # before it is computed or loaded
            limits.check_file_bytes(size)
        return np.asarray(value)


def path_behind(file: Any) -> Path | None:
    """Of a file that was opened on disk for reading alone: it need not be held in memory."""
    try:
        name = file.name
        if file.mode != "rb" or not isinstance(name, str):
            return None
        there = os.stat(name)
        return Path(name) if os.path.samestat(os.fstat(file.fileno()), there) and stat.S_ISREG(there.st_mode) else None
    except Exception:  # whatever this object is, it is none
        return None


def read_object(file: Any, limits: Limits) -> tuple[bytes, str]:
    """What an open binary file holds, and its name. It is read from its start and stands where it stood afterwards.

    Raises:
        MediaError: closed, not binary, or over a limit of bytes.
    """
    name = "file object"
    with suppress(Exception):  # a name is a courtesy
        name = shown(Path(file.name).name) or name if isinstance(file.name, str) else name
    with object_faults(f"{name}: cannot be read", "expected a binary file opened for reading"):
        stood = file.tell() if not hasattr(file, "seekable") or file.seekable() else None
    try:
        with object_faults(f"{name}: cannot be read", "expected a binary file opened for reading"):
            if stood is not None:
                size = file.seek(0, os.SEEK_END)
                limits.check_memory_bytes(size if isinstance(size, int) else 0)
                file.seek(0)
            return _all_of(file, name, limits), name
    finally:
        if stood is not None:
            with suppress(Exception):
                file.seek(stood)


def _all_of(file: Any, name: str, limits: Limits) -> bytes:
    parts, total = [], 0
    while part := file.read(_READ_BYTES):
        if isinstance(part, str):
            raise MediaError(f"{name}: gives text; open the file with 'rb'")
        total += memoryview(part).nbytes
        limits.check_memory_bytes(total)
        parts.append(bytes(part))
    return b"".join(parts)
