"""Weight files opened without running anything in them, and read one tensor at a time.

A file is opened by its list of tensors alone; a tensor's bytes are read when they are asked for, with plain reads, so
that no file is ever held in memory. safetensors headers are checked here; `.pth`, `.bin` and `.pt` go through
`torch.load(weights_only=True)` on the meta device, which gives places in the file in place of data.
"""

import json
import pickle
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from avllm.checkpoints.mistaken import AGAIN, what_file
from avllm.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # what safetensors itself allows
MAX_PICKLE_BYTES = 64_000_000  # names, shapes and settings; the tensors lie beside it
MAX_TENSORS = 1_000_000
HEAD_BYTES = 512  # enough to tell what a file is
# Where published files keep their weights; what lies beside them is the state of a training.
CONTAINERS = ("model", "state_dict", "module")
SAFETENSORS = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is still in its file.

    Args:
        shape: its shape.
        dtype: its type in the file.
        read: reads it into memory, contiguous.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return prod(self.shape) * self.dtype.itemsize

    def meta(self) -> Tensor:
        """The same without data."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The tensors of one file.

    Args:
        path: the file.
        tensors: name -> tensor in the file.
        config: settings that a container holds beside the weights (`cfg` of BEATs).
        left_out: parts of a container that hold no weights -> why they are left out.
        release: forgets what reading kept in memory.
    """

    path: Path
    tensors: dict[str, LazyTensor]
    config: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None


def open_file(path: Path) -> WeightFile:
    """Opens a weight file by its content.

    Raises:
        CheckpointError: it is damaged, holds something else than tensors, or would have to be executed to be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        mistaken = what_file(head, path.stat().st_size)
        if mistaken is not None:
            raise CheckpointError(f"{path}: {mistaken}")
        if head[8:9] == b"{":  # first, as the length before it may begin like anything else
            return WeightFile(path=path, tensors=_safetensors(path))
        if head[:4] == b"PK\x03\x04":
            return _open_zip(path)
        if head[:1] == b"\x80":  # a pickle
            return _open_legacy(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    raise CheckpointError(f"{path}: is no weight file; expected safetensors, or a .pth, .pt or .bin of torch.save")


def _safetensors(path: Path) -> dict[str, LazyTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: its safetensors header says that it has {length} bytes; at most {MAX_HEADER_BYTES} are read"
            )
        if length > size - 8:
            raise CheckpointError(
                f"{path}: cut off within its header, which has {length} bytes, the file {size}; {AGAIN}"
            )
        try:
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: its safetensors header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its safetensors header is no list of tensors")
    about = header.pop("__metadata__", None)
    if about is not None and not (isinstance(about, dict) and all(isinstance(text, str) for text in about.values())):
        raise CheckpointError(f"{path}: __metadata__ of its safetensors header is damaged; expected names with texts")
    start, end, tensors = 8 + length, 0, {}
    for name, entry in sorted(header.items(), key=_begins(path)):
        dtype, shape = SAFETENSORS.get(entry["dtype"]), entry["shape"]
        if dtype is None or not _is_shape(shape):
            raise CheckpointError(f"{path}: {name} has dtype {entry['dtype']!r} and shape {shape!r}; not supported")
        begin, after = entry["data_offsets"]
        if begin != end or after - begin != prod(shape) * dtype.itemsize or start + after > size:
            raise CheckpointError(
                f"{path}: {name} lies at bytes {begin} to {after}, which does not fit its shape {shape}, its neighbour "
                f"or the file's {size} bytes; the file is damaged or cut off, {AGAIN}"
            )
        end = after
        tensors[name] = LazyTensor(tuple(shape), dtype, partial(_read, path, start + begin, tuple(shape), dtype))
    if start + end != size:
        raise CheckpointError(f"{path}: {size - start - end} bytes follow the last tensor; the file is damaged")
    return {name: tensors[name] for name in header}


def _begins(path: Path) -> Callable[[tuple[str, Any]], tuple[int, int]]:
    def key(item: tuple[str, Any]) -> tuple[int, int]:
        entry = item[1]
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or not _is_shape(offsets) or len(offsets) != 2:
            raise CheckpointError(f"{path}: the header's entry of {item[0]} is damaged")
        if not isinstance(entry.get("dtype"), str) or "shape" not in entry:
            raise CheckpointError(f"{path}: the header's entry of {item[0]} lacks its type or shape")
        return offsets[0], offsets[1]

    return key


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**48 for size in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is written twice")
    return found


def _read(path: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    raw = torch.empty(prod(shape) * dtype.itemsize, dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        view, done = memoryview(cast(Any, raw.numpy())), 0
        while done < len(view):
            got = file.readinto(view[done:])
            if not got:
                raise CheckpointError(f"{path}: ends before its last tensor; the file is cut off")
            done += got
    return raw.view(dtype).reshape(shape)


def _open_zip(path: Path) -> WeightFile:
    records = _checked_zip(path)
    found = _Container.find(path, _load(path, mmap=False))
    tensors = {name: _in_zip(path, name, tensor, records) for name, tensor in found.tensors.items()}
    return WeightFile(path=path, tensors=tensors, config=found.config, left_out=found.left_out)


def _checked_zip(path: Path) -> list[tuple[int, int]]:
    """(first byte, last byte + 1) of the records; a bomb or an archive with code is refused before it is opened."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"{path}: its zip directory is damaged ({error}) or cut off; {AGAIN}") from error
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(entries)} entries; at most {MAX_TENSORS} are read")
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(f"{path}: {packed[0]} is compressed; torch.save never does that, so it is not unpacked")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path}: its entries say they hold more than the file's {size} bytes; refused")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1 or any("/code/" in entry.filename for entry in entries):
        raise CheckpointError(f"{path}: is no file of torch.save (a TorchScript archive or another zip); refused")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path}: its data.pkl has {pickles[0].file_size} bytes; at most {MAX_PICKLE_BYTES}")
    starts = sorted(entry.header_offset for entry in entries)
    return list(zip(starts, [*starts[1:], directory], strict=True))


def _in_zip(path: Path, name: str, tensor: Tensor, records: list[tuple[int, int]]) -> LazyTensor:
    shape, dtype, size = tuple(tensor.shape), tensor.dtype, tensor.dtype.itemsize
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if start is None:  # torch before 2.7 does not tell
        return LazyTensor(shape, dtype, partial(_from_whole, path, name, mmap=True))
    begin = start + tensor.storage_offset() * size
    extent = sum((n - 1) * stride for n, stride in zip(shape, tensor.stride(), strict=True)) + 1 if prod(shape) else 0
    place = records[bisect_right(records, (start - 1, 1 << 62)) - 1]
    if not (place[0] < start and begin + extent * size <= place[1]):
        raise CheckpointError(f"{path}: {name} of shape {list(shape)} does not fit its place in the file; damaged")
    if tensor.is_contiguous():
        return LazyTensor(shape, dtype, partial(_read, path, begin, shape, dtype))
    if extent > 4 * prod(shape) + 1024:
        raise CheckpointError(f"{path}: {name} of shape {list(shape)} is a thin slice of {extent} values; refused")
    return LazyTensor(shape, dtype, partial(_strided, path, begin, (shape, tensor.stride(), extent), dtype))


def _strided(path: Path, begin: int, layout: tuple[Any, Any, int], dtype: torch.dtype) -> Tensor:
    shape, stride, extent = layout
    return _read(path, begin, (extent,), dtype).as_strided(shape, stride).contiguous()


def _open_legacy(path: Path) -> WeightFile:
    """A file of torch before 1.6; it holds no places, so reading one tensor reads the file once and keeps it."""
    found = _Container.find(path, _load(path, mmap=False))
    kept: dict[str, Tensor] = {}

    def read(name: str) -> Tensor:
        if not kept:
            kept.update(_Container.find(path, _load(path, mmap=False, device="cpu")).tensors)
        return kept[name].contiguous()

    tensors = {name: LazyTensor(tuple(t.shape), t.dtype, partial(read, name)) for name, t in found.tensors.items()}
    return WeightFile(
        path=path, tensors=tensors, config=found.config, left_out=found.left_out, release=lambda: kept.clear()
    )


def _from_whole(path: Path, name: str, *, mmap: bool) -> Tensor:
    return _Container.find(path, _load(path, mmap=mmap, device="cpu")).tensors[name].contiguous()


def _load(path: Path, *, mmap: bool, device: str = "meta") -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders at damaged files before it fails
            return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        first = " ".join(str(error).split())
        cause = first.split("WeightsUnpickler error:")[-1].split("Please use")[0].split("Check the doc")[0].strip()
        raise CheckpointError(
            f"{path}: holds something else than tensors and plain settings, and is not run to find out ({cause[:300]})"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its operations raise
        cause = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{path}: cannot be read as weights ({cause})") from error


@dataclass
class _Container:
    """The weights inside what was unpickled."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, path: Path, data: Any) -> "_Container":
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{path}: holds a {type(data).__name__}; expected names and tensors")
        inner = next((key for key in CONTAINERS if isinstance(data.get(key), Mapping)), None)
        weights = data if inner is None else data[inner]
        tensors = dict(_tensors(path, weights))
        if inner is None:
            return cls(tensors)
        config = next((data[key] for key in ("cfg", "config") if isinstance(data.get(key), Mapping)), {})
        rest = {str(key): "state of the training beside the weights" for key in data if key != inner}
        return cls(tensors, dict(config), rest)


def _tensors(path: Path, weights: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in weights.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            raise CheckpointError(f"{path}: {name!r} is a {type(value).__name__}; expected names and tensors only")
        if value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(f"{path}: {name} is sparse or quantised; expected plain tensors")
        yield name, value.detach()
