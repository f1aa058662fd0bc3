"""Features of a stage: its distinct media, the frozen part of each branch, and the share of one process."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from avllm.chat.threads import choose_threads
from avllm.checkpoints.load import dtype_of
from avllm.data import Context, Prepare
from avllm.data.feature_shards import Entry, key_number, write_shard
from avllm.data.feature_work import Extractor, Item, Written
from avllm.data.features import FeatureStore, Reading, begin, describe, require_equal
from avllm.data.records import Medium, Record
from avllm.errors import AvllmError, ConfigError, DataError, MediaError, attempted
from avllm.media.isolated import reader_of
from avllm.model import Branch, StoredEnd
from avllm.training.frozen import matches
from avllm.training.stage import Stage
from avllm.training.start import open_branches
from avllm.training.trainer import MAX_LISTED, MIN_JUDGED

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be made, the same in every process.

    Args:
        stage: whose media, and what of them is trained.
        out: folder of the store.
        dtype: of stored features.
        batch: media encoded side by side; None: 8 on a GPU, 1 on a CPU, where more gain nothing.
        shard_size: media in a shard, which is what a crash loses at most.
        decoders: threads that decode, in each process; None: a share of the machine.
        workers: processes on this machine.
    """

    stage: Stage
    out: Path
    dtype: Literal["fp16", "fp32"] = "fp16"
    batch: int | None = None
    shard_size: int = 256
    decoders: int | None = None
    workers: int = 1


@dataclass(kw_only=True)
class Summary:
    """What was done.

    Args:
        wanted: distinct media of the stage (of a process: of its share).
        present: of them, those that the store had.
        stored: new ones.
        silent: without the sound that was asked for.
        unreadable: what could not be read.
        num_shards: written.
        num_bytes: written.
        seconds: of work.
    """

    wanted: int = 0
    present: int = 0
    stored: int = 0
    silent: int = 0
    unreadable: list[Entry] = field(default_factory=list)
    num_shards: int = 0
    num_bytes: int = 0
    seconds: float = 0.0

    def add(self, written: Written) -> None:
        """Counts a shard."""
        states = [entry.state for entry in written.entries]
        self.stored += states.count("stored")
        self.silent += states.count("silent")
        self.unreadable += [entry for entry in written.entries if entry.state == "unreadable"]
        self.num_shards += 1
        self.num_bytes += written.num_bytes

    def merge(self, other: "Summary") -> None:
        """Counts what another process did."""
        for name in ("wanted", "present", "stored", "silent", "unreadable", "num_shards", "num_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def require_readable(self, allowed: float, *, is_all: bool = False) -> None:
        """Raises DataError when a larger share of the media than allowed could not be read, or none of all."""
        seen = self.present + self.stored + self.silent + len(self.unreadable)
        is_none = is_all and allowed < 1.0 and len(self.unreadable) == seen > 0
        if is_none or len(self.unreadable) > allowed * max(seen, MIN_JUDGED):
            listed = "; ".join(f"{entry.source}: {entry.reason}" for entry in self.unreadable[-MAX_LISTED:])
            raise DataError(
                f"{len(self.unreadable)} of {seen} media could not be read, max_unreadable allows {allowed:.1%}; "
                f"the last: {listed}"
            )

    def __str__(self) -> str:
        rate = (self.stored + self.silent + len(self.unreadable)) / self.seconds if self.seconds else 0.0
        return (
            f"stored {self.stored} media ({self.num_bytes / 2**20:.1f} MiB) in {self.num_shards} shards, "
            f"{self.seconds:.1f} s ({rate:.2f} a second); {self.present} were there, {self.silent} have no sound, "
            f"{len(self.unreadable)} could not be read"
        )


class Plan:
    """The distinct media of a stage in shards, the same in every process; a medium is named by dataset and record.

    Args:
        stage: whose media.
        processor: of its system.
        branches: whose media are wanted.
        shard_size: media in a shard.
    """

    def __init__(self, stage: Stage, processor: Any, branches: Sequence[str], *, shard_size: int) -> None:
        context = Context(processor=processor, modality=stage.modality, seed=stage.seed)
        held_out = stage.held_out.data if stage.held_out is not None else ()
        named = {f"data.{i}": config for i, config in enumerate(stage.data)}
        named |= {f"held_out.data.{i}": config for i, config in enumerate(held_out)}
        # Datasets that draw features hold no media.
        kept = {name: config for name, config in named.items() if not getattr(config, "DRAWS_FEATURES", False)}
        self.names, self.sources = list(kept), [config.build(context) for config in kept.values()]
        self.prepare, self.reading = Prepare(processor, modality=stage.modality), Reading(processor)
        rows = np.fromiter(self._rows(branches), dtype="i8,i4,i4,i8,i4")
        self.shards: list[tuple[str, np.ndarray]] = []
        for number, name in enumerate(branches):
            found = rows[rows["f1"] == number]
            first = np.sort(np.unique(found["f0"], return_index=True)[1])
            places = np.stack([found[column][first] for column in ("f2", "f3", "f4")], axis=1)
            self.shards += [(name, places[i : i + shard_size]) for i in range(0, len(places), shard_size)]

    def _rows(self, branches: Sequence[str]) -> Iterator[tuple[int, int, int, int, int]]:
        """Key, branch, dataset, record and place of every medium."""
        total = sum(map(len, self.sources))
        with tqdm(total=total, desc="looking for media", unit="record", disable=None, leave=False) as bar:
            for source, records in enumerate(self.sources):
                for index in range(len(records)):
                    bar.update()
                    for place, medium in enumerate(self._media(source, index)):
                        branch = self.prepare.branch_of(medium)
                        if branch in branches:
                            self.reading.require_fixed(medium, self.names[source])
                            key = key_number(self.reading.key(branch, medium))
                            yield key, branches.index(branch), source, index, place

    def _media(self, source: int, index: int) -> list[Medium]:
        record: Record | AvllmError = attempted(lambda: self.sources[source].record(index, 0))
        if isinstance(record, DataError | ConfigError):
            raise record
        if isinstance(record, AvllmError):  # training counts it
            return []
        return [medium for turn in record.turns for medium in turn.media]

    def items(self, number: int) -> list[Item]:
        """The media of a shard."""
        branch, places = self.shards[number]
        media = (self._media(source, index)[place] for source, index, place in places.tolist())
        return [Item(self.reading.key(branch, medium), branch, medium) for medium in media]


class Work:
    """The share of one process: the system's frozen parts and the plan.

    Args:
        job: what is to be made.
        tell: called with the number of media whenever some are done.
        local_rank: of the process on its machine, which chooses its GPU.
    """

    def __init__(self, job: Job, *, tell: Callable[[int], None], local_rank: int = 0) -> None:
        self.job, self.tell = job, tell
        stage = job.stage
        branches, self.processor = open_branches(stage)
        for name, branch in list(branches.items()):
            end = frozen_end(name, branch, stage.trainable)
            if end is None:
                logger.info("branch %s: its encoder is trained, its media are read in training", name)
                del branches[name]
            else:
                branch.stored_end = end
        self.plan = Plan(stage, self.processor, list(branches), shard_size=job.shard_size)
        used = {name: branches[name] for name, _ in self.plan.shards}
        if not used:
            raise ConfigError(
                "the stage has no media that a frozen encoder sees: features are made of datasets that hold media "
                "(nano's own draw features themselves), for branches whose encoder is not among the trainable parts"
            )
        begin(job.out, job.dtype, {name: describe(branch, name, self.processor) for name, branch in used.items()})
        self.store = FeatureStore(job.out, self.processor)
        self.extractor = self._extractor(used, local_rank)

    def run(self, numbers: Iterable[int]) -> Summary:
        """Makes the shards of these numbers; what the store has already is left out.

        Raises:
            DataError: too many media could not be read.
        """
        return self.run_items(map(self.plan.items, numbers))

    def run_items(self, lists: Iterable[Sequence[Item]]) -> Summary:
        """Makes a shard of each list of media; see `run`."""
        summary, started = Summary(), time.monotonic()

        def shards() -> Iterator[list[Item]]:
            for items in lists:
                missing = [item for item in items if not self.store.is_current(item.key, item.medium)]
                summary.wanted += len(items)
                summary.present += len(items) - len(missing)
                self.tell(len(items) - len(missing))
                if missing:
                    yield missing

        trusted = self.job.stage.trusted_media
        with reader_of(trusted_media=trusted, num_workers=self.extractor.decoders, starts=False) as reader:
            if not trusted:
                self.processor.door = reader
            for written in self.extractor.run(shards()):
                summary.add(written)
                summary.require_readable(self.job.stage.max_unreadable)
        summary.seconds = time.monotonic() - started
        return summary

    def give_up(self, item: Item, reason: str) -> Summary:
        """Makes a shard that says that a medium could not be read.

        Raises:
            DataError: too many media could not be read.
        """
        summary, entry = Summary(wanted=1), self.extractor.refused(item, MediaError(reason))
        path = write_shard(self.job.out, [entry], {})
        summary.add(Written(path=path, entries=[entry], num_bytes=path.stat().st_size))
        summary.require_readable(self.job.stage.max_unreadable)
        return summary

    def _extractor(self, branches: dict[str, Branch], local_rank: int) -> Extractor:
        job, stage = self.job, self.job.stage
        device = _device(local_rank)
        modules = torch.nn.ModuleDict(branches)
        autocast = None
        if stage.quantization is not None:
            modules.to(dtype_of(stage.precision))
        if stage.precision == "fp32" or (stage.precision == "fp16" and device.type == "cpu"):
            modules.float()  # float16 is a hundred times slower on a CPU
        else:
            autocast = dtype_of(stage.precision)
        modules.to(device)
        cores = (os.cpu_count() or 1) // job.workers
        if device.type == "cpu":
            if job.workers > 1 and "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(max(1, cores))
            choose_threads(modules)
        return Extractor(
            branches,
            self.processor,
            job.out,
            dtype=dtype_of(job.dtype),
            batch=job.batch or (1 if device.type == "cpu" else 8),
            decoders=job.decoders or max(1, cores if device.type != "cpu" else cores // 2),
            autocast=autocast,
            tell=self.tell,
        )


def frozen_end(name: str, branch: Branch, trainable: Sequence[str]) -> StoredEnd | None:
    """Where the longest part of a branch ends of which nothing is trained; None if its encoder is.

    Args:
        name: of the branch.
        branch: as its modality feeds it.
        trainable: patterns of the stage.
    """
    ends: tuple[StoredEnd, ...] = ("prefix", "encoder")
    for end in ends:
        weights = [f"branches.{name}.{weight}" for weight in branch.feature_weights(end)]
        if not any(matches(weight, pattern) for weight in weights for pattern in trainable):
            return end
    return None


def use_store(stage: Stage, model: Any, processor: Any) -> FeatureStore | None:
    """The store that a stage trains on, if it names one; the model's branches then begin where it ends.

    Raises:
        ConfigError: the store was made by other weights or settings.
    """
    if stage.features is None:
        return None
    if processor is None:
        raise ConfigError("features: the system has no processor; save it with one beside its weights")
    store = FeatureStore(stage.features, processor)
    now: dict[str, Any] = {}
    for name in store.branches:
        end = frozen_end(name, model.branches[name], stage.trainable) if name in model.branches else None
        if end is not None:
            model.branches[name].stored_end = end
            now[name] = describe(model.branches[name], name, processor)
    require_equal(store.folder, store.branches, now)
    return store


def _device(local_rank: int) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
