"""Writes safetensors shard by shard and tensor by tensor, so that one tensor at a time is in memory."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from avllm.checkpoints.reading import SAFETENSORS
from avllm.errors import CheckpointError

SHARD_BYTES = 4_000_000_000
CHUNK = 1 << 24  # values checked at once
NAMES = {dtype: name for name, dtype in SAFETENSORS.items()}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A tensor that will be written.

    Args:
        name: ours.
        shape: its shape.
        dtype: as stored.
        make: reads and converts it.
        origin: published names, for errors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]
    origin: str

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return prod(self.shape) * self.dtype.itemsize


def write_shards(
    folder: Path, planned: Sequence[Planned], *, shard_bytes: int = SHARD_BYTES, wrote: Callable[[Planned], None]
) -> dict[str, str]:
    """Writes all tensors and, when there are several shards, their index.

    Args:
        folder: an existing folder.
        planned: the tensors, in the order in which they are made.
        shard_bytes: a shard is closed before it grows past this.
        wrote: called after each tensor.

    Returns:
        our name -> sha256 of the tensor's bytes.

    Raises:
        CheckpointError: a value is not finite, or does not fit the type it is stored in.
    """
    shards = _split(planned, shard_bytes)
    sums: dict[str, str] = {}
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        where |= {item.name: file for item in shard}
        with (folder / file).open("wb") as out:
            _write_shard(out, shard, sums, wrote)
            out.flush()
            os.fsync(out.fileno())
    if len(shards) > 1:
        total = sum(item.nbytes for item in planned)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sums


def digest(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes."""
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _write_shard(
    out: IO[bytes], shard: Iterable[Planned], sums: dict[str, str], wrote: Callable[[Planned], None]
) -> None:
    items, header, end = list(shard), {}, 0
    header["__metadata__"] = {"format": "pt"}
    for item in items:
        offsets = [end, end := end + item.nbytes]
        header[item.name] = {"dtype": NAMES[item.dtype], "shape": list(item.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    out.write(len(text).to_bytes(8, "little") + text)
    for item in items:
        tensor = checked(item)
        data = _bytes(tensor)
        out.write(data)
        sums[item.name] = hashlib.sha256(data).hexdigest()
        wrote(item)


def checked(item: Planned) -> Tensor:
    """Makes the tensor, of the type it is stored in.

    Raises:
        CheckpointError: a value is not finite, or does not fit the type.
    """
    made = item.make()
    _require_finite(made, item, "holds values that are not finite; the file is damaged or the training diverged")
    tensor = made.to(item.dtype).contiguous()
    if tuple(tensor.shape) != item.shape:
        raise CheckpointError(f"{item.origin}: shape {list(tensor.shape)}, expected {list(item.shape)}")
    if tensor.dtype != made.dtype and tensor.dtype == torch.float16:
        _require_finite(tensor, item, "has values too large for float16; use --dtype bf16")
    return tensor


def _require_finite(tensor: Tensor, item: Planned, fault: str) -> None:
    if not tensor.is_floating_point():
        return
    for values in tensor.contiguous().flatten().split(CHUNK):
        if not bool(torch.isfinite(values).all()):
            raise CheckpointError(f"{item.origin} {fault}")


def _bytes(tensor: Tensor) -> Any:
    return memoryview(cast(Any, tensor.contiguous().flatten().view(torch.uint8).numpy()))


def _split(planned: Sequence[Planned], shard_bytes: int) -> list[list[Planned]]:
    shards: list[list[Planned]] = [[]]
    size = 0
    for item in planned:
        if shards[-1] and size + item.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += item.nbytes
    return shards
