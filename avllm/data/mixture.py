"""Several datasets as one stream of batches, by ratio, in an order that any step can be joined at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from avllm.data.grouping import WINDOW, Outlines, grouped
from avllm.data.records import Record, Source
from avllm.errors import AvllmError, DataError, MediaError, is_fault, named_fault, own_message


class Draw(NamedTuple):
    """One sample to be read: which dataset, which record of it, and the seed of its own random choices."""

    source: int
    index: int
    seed: int


@dataclass(frozen=True)
class Unreadable:
    """A sample that was left out because a medium of it could not be read."""

    id: str
    reason: str


class Mixture(Dataset[Any]):
    """Reads draws: record, then what `prepare` makes of it. A medium that fails is told, not replaced.

    A fault of code that a sample meets is told with the same words, and counts as one that could not be read.

    Args:
        sources: the datasets.
        prepare: record and seed -> sample; raises MediaError when a medium cannot be read.
    """

    def __init__(self, sources: Sequence[Source], prepare: Callable[[Record, int], Any]) -> None:
        self.sources = sources
        self.prepare = prepare

    def __getitem__(self, draw: Draw) -> Any:
        source = self.sources[draw.source]
        name = f"dataset {draw.source}, record {draw.index}"
        try:
            record = source.record(draw.index, draw.seed)
            name = record.id
            return self.prepare(record, draw.seed)
        except MediaError as error:
            return Unreadable(name, own_message(error))
        except AvllmError:  # of the annotation: the run stops
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            return Unreadable(name, str(named_fault(error)))


class Order(Sampler[list[Draw]]):
    """The batches of a whole run: a pure function of seed and step, so that a run goes on exactly where it stopped.

    Each dataset is gone through in a new order every time; which dataset comes next is drawn by ratio.

    Args:
        sizes: samples of each dataset.
        ratios: share of each; only their proportion counts.
        num_batches: batches of the run, over all steps and parts of a step.
        batch: samples per process.
        seed: of order and draws.
        mix: one dataset per batch, or each sample from any.
        outlines: of the datasets, to put samples alike into one batch; None leaves them as they come.
        rank: this process.
        world: number of processes; together they see the batches of one process with `world` times the batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        ratios: Sequence[float],
        *,
        num_batches: int,
        batch: int,
        seed: int,
        mix: str = "batch",
        outlines: Outlines | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for index, size in enumerate(sizes):
            if size < 1:
                raise DataError(f"data.{index}: the dataset is empty; expected at least one sample")
        self.sizes = sizes
        self.num_batches, self.batch, self.seed = num_batches, batch, seed
        self.rank, self.world = rank, world
        self.mix, self.outlines = mix, outlines
        self.start = 0
        draws = num_batches if mix == "batch" else num_batches * batch * world
        shares = np.asarray(ratios, dtype=np.float64) / np.sum(ratios)
        choice = np.random.default_rng([seed, 0]).choice(len(sizes), size=draws, p=shares).astype(np.int16)
        self._choice = np.repeat(choice, batch * world) if mix == "batch" else choice
        self._passes: dict[int, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yields the batches from number `start` on."""
        whole = self.batch * self.world
        window = 1 if self.outlines is None else WINDOW
        first = self.start - self.start % window
        seen = np.bincount(self._choice[: first * whole], minlength=len(self.sizes)).tolist()
        for number in range(first, self.num_batches, window):
            draws = []
            for source in self._choice[number * whole : (number + window) * whole].tolist():
                draws.append(self._draw(source, seen[source]))
                seen[source] += 1
            for batch in self._arranged(draws, number)[max(0, self.start - number) :]:
                yield batch[self.rank * self.batch : (self.rank + 1) * self.batch]

    def _arranged(self, draws: list[Draw], number: int) -> list[list[Draw]]:
        if self.outlines is None:
            return [draws]
        rng = np.random.default_rng([self.seed, 2, number])
        whole = self.batch * self.world
        return grouped(draws, self.outlines, batch=whole, one_source=self.mix == "batch", rng=rng)

    def _draw(self, source: int, position: int) -> Draw:
        number, offset = divmod(position, self.sizes[source])
        current = self._passes.get(source)
        if current is None or current[0] != number:
            order = np.random.default_rng([self.seed, 1, source, number]).permutation(self.sizes[source])
            current = self._passes[source] = (number, order)
        # Odd constants of full width spread the seeds of neighbouring draws.
        seed = (self.seed * 0x9E3779B97F4A7C15 + source * 0xBF58476D1CE4E5B9 + position * 0x94D049BB133111EB) % 2**63
        return Draw(source, int(current[1][offset]), seed)
