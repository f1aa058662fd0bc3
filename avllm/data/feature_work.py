"""Makes features: media are decoded ahead by threads and encoded in batches, shard after shard."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avllm.data.feature_shards import Entry, file_of, stamp_of, write_shard
from avllm.data.features import Reading
from avllm.data.records import Medium
from avllm.errors import AvllmError, MediaError, NoAudioStream, NumericError, attempted, own_message
from avllm.media import read_ahead
from avllm.model import Branch, Loaded


class Item(NamedTuple):
    """A medium whose features are wanted."""

    key: str
    branch: str
    medium: Medium


@dataclass(frozen=True, kw_only=True)
class Written:
    """A shard that is on disk."""

    path: Path
    entries: Sequence[Entry]
    num_bytes: int


@dataclass(kw_only=True)
class _Growing:
    """A shard whose media are being worked on."""

    left: int
    entries: list[Entry] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class _Decoded(NamedTuple):
    loaded: Loaded
    content: str


class Extractor:
    """The work itself: shards of media in, shards of features out, each a function of its media alone.

    Args:
        branches: name -> branch, whose weights up to `stored_end` are used.
        processor: of the system.
        folder: of the store.
        dtype: of stored features.
        batch: media encoded side by side.
        decoders: threads that decode.
        autocast: type of the arithmetic, where it is not that of the weights.
        tell: called with the number of media whenever some are done.
    """

    def __init__(
        self,
        branches: Mapping[str, Branch],
        processor: Any,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float16,
        batch: int = 8,
        decoders: int = 1,
        autocast: torch.dtype | None = None,
        tell: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.branches, self.processor, self.folder = branches, processor, folder
        self.dtype, self.batch, self.decoders, self.autocast, self.tell = dtype, batch, decoders, autocast, tell
        self.reading = Reading(processor)
        self._growing: dict[int, _Growing] = {}
        self._waiting: dict[Any, list[tuple[int, Item, _Decoded]]] = {}

    def run(self, shards: Iterable[Sequence[Item]]) -> Iterator[Written]:
        """Writes shard after shard; the media of the next ones are decoded meanwhile.

        Raises:
            NumericError: features that are not finite, or do not fit into the stored type.
        """
        ahead = self.decoders + 2 * self.batch
        for (number, item), result in read_ahead(self._items(shards), self._decode, self.decoders, ahead=ahead):
            growing = self._growing[number]
            growing.left -= 1
            if isinstance(result, _Decoded):
                # Media of one shape go together; those of several shards too, so that no batch stays small.
                group = (item.branch, result.loaded.values.shape)
                self._waiting.setdefault(group, []).append((number, item, result))
                if len(self._waiting[group]) == self.batch:
                    self._encode(group)
            else:
                growing.entries.append(self.refused(item, result))
                self.tell(1)
            if growing.left == 0:
                for group in [group for group, rows in self._waiting.items() if any(row[0] == number for row in rows)]:
                    self._encode(group)
                yield self._write(number)

    def _items(self, shards: Iterable[Sequence[Item]]) -> Iterator[tuple[int, Item]]:
        for number, shard in enumerate(shards):
            self._growing[number] = _Growing(left=len(shard))
            for item in shard:
                yield number, item

    def _decode(self, row: tuple[int, Item]) -> _Decoded:
        _, (_, branch, medium) = row

        def read() -> _Decoded:
            opened = medium.opened()
            loaded = self.processor.read(opened, medium.kind, branch=branch, **self.reading.options(medium))
            if not bool(torch.isfinite(loaded.values).all()):
                raise MediaError(f"{medium.source}: has values that are not finite")
            return _Decoded(loaded, self.reading.content(branch, medium, opened))

        found = attempted(read)
        if isinstance(found, AvllmError):
            raise _as_medium(found)
        return found

    @torch.inference_mode()
    def _encode(self, group: Any) -> None:
        rows = self._waiting.pop(group)
        branch = self.branches[group[0]]
        weight = next(branch.parameters())
        media = torch.stack([decoded.loaded.values for _, _, decoded in rows])
        with self._arithmetic(weight.device):
            features = branch.features(media.to(weight.device, weight.dtype))
        for (number, item, decoded), values in zip(rows, features.to("cpu"), strict=True):
            growing = self._growing[number]
            growing.tensors[decoded.content] = self._checked(values, item.medium)
            growing.entries.append(_entry(item, content=decoded.content, times_s=decoded.loaded.times_s))
        self.tell(len(rows))

    def _arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)

    def _checked(self, values: Float[Tensor, "t q d"], medium: Medium) -> Float[Tensor, "t q d"]:
        stored = values.to(self.dtype).clone()  # its own memory, not a view of the batch's
        if not bool(torch.isfinite(stored).all()):
            why = "too large for this type; use --dtype fp32" if torch.isfinite(values).all() else "not finite"
            raise NumericError(f"{medium.source}: features in {self.dtype} have values that are {why}")
        return stored

    def refused(self, item: Item, error: AvllmError) -> Entry:
        """What a shard says of a medium that cannot be read; raises the error if it is of another kind."""
        if not isinstance(error, MediaError):
            raise error
        state = "silent" if isinstance(error, NoAudioStream) else "unreadable"
        source = item.medium.source
        return Entry(
            key=item.key,
            source=str(source)[:200],
            stamp=stamp_of(source),
            state=state,
            reason=own_message(error),
        )

    def _write(self, number: int) -> Written:
        done = self._growing.pop(number)
        path = write_shard(self.folder, done.entries, done.tensors)
        return Written(path=path, entries=done.entries, num_bytes=path.stat().st_size)


def _as_medium(error: AvllmError) -> AvllmError:
    """A fault of code that a medium meets counts as one that cannot be read; it is told as what it is."""
    return MediaError(own_message(error)) if type(error) is AvllmError else error


def _entry(item: Item, **about: Any) -> Entry:
    source, file = item.medium.source, file_of(item.medium.source)
    shown = item.medium.kind if file is None else str(file)[:200]
    return Entry(key=item.key, source=shown, stamp=stamp_of(source), **about)
