"""Who does the work of `avllm features`: this process, several on this machine, ranks of torchrun, or Ray Data."""

import logging
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from avllm.data import DATASETS
from avllm.data.feature_shards import SHARDS
from avllm.durable import in_use, remove_unfinished
from avllm.errors import AvllmError, DataError, InternalError
from avllm.training.features import Job, Summary, Work
from avllm.training.stage import read_stage

logger = logging.getLogger(__name__)
MAX_STARTS = 3
Engine = Literal["local", "ray"]


def extract(
    stage: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path,
    engine: Engine = "local",
    workers: int = 1,
    datasets: Mapping[str, type] | None = None,
    **options: Any,
) -> Summary:
    """Stores features of all media of a stage whose encoder is frozen. What is there already is kept.

    Args:
        stage: a YAML, or its name in `train_configs/`.
        overrides: `a.b=c`.
        out: folder of the store.
        engine: this machine, or Ray Data on the cluster that is there.
        workers: processes; under torchrun each rank is one.
        datasets: kinds of datasets beside the published layouts.
        options: the other fields of `Job`.

    Raises:
        ConfigError: a fault in the stage, frames drawn at random, or a folder that holds other features.
        DataError: too many media could not be read.
        InUse: another run writes into the folder.
        DiskError: it cannot be written; the shards that are there are whole.
    """
    settings, _ = read_stage(stage, overrides, datasets={**DATASETS, **(datasets or {})})
    job = Job(stage=settings, out=Path(out), workers=workers, **options)
    started = time.monotonic()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    with in_use(job.out), tqdm(unit="medium", desc="features", disable=None, smoothing=0.1) as bar:
        if world == 1:
            remove_unfinished(job.out / SHARDS)
        if engine == "ray":
            from avllm.training.feature_ray import run_ray

            summary = run_ray(job, bar)
        elif world > 1:
            job = replace(job, workers=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
            summary = run_share(job, rank, world, bar)
        elif workers > 1:
            summary = run_processes(job, bar)
        else:
            summary = run_share(job, 0, 1, bar)
    summary.seconds = time.monotonic() - started
    summary.require_readable(settings.max_unreadable, is_all=True)
    return summary


def run_share(job: Job, rank: int, world: int, bar: Any) -> Summary:
    """Every `world`th shard, in this process."""
    work = Work(job, tell=bar.update, local_rank=int(os.environ.get("LOCAL_RANK", rank)))
    numbers = range(rank, len(work.plan.shards), world)
    bar.reset(sum(len(work.plan.shards[number][1]) for number in numbers))
    return work.run(numbers)


def run_processes(job: Job, bar: Any) -> Summary:
    """One process for each share of the shards. One that dies is started again and loses the shard it was at.

    Raises:
        DataError: it died again and again.
    """
    shares = [_Share(job, rank) for rank in range(job.workers)]
    summary = Summary()
    try:
        while any(share.result is None for share in shares):
            wait([share.process.sentinel for share in shares if share.result is None], timeout=0.2)
            for share in shares:
                share.look()
            bar.total = sum(share.total.value for share in shares)
            bar.update(sum(share.done.value for share in shares) - bar.n)
    finally:
        for share in shares:
            share.stop()
    for share in shares:
        summary.merge(share.result or Summary())
    return summary


class _Share:
    """A process and what it has told."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job, self.rank, self.starts = job, rank, 0
        self.context = multiprocessing.get_context("spawn")  # threads of torch and of FFmpeg do not survive a fork
        self.done, self.total = self.context.Value("q", 0), self.context.Value("q", 0)
        self.result: Summary | None = None
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self.done.value = 0
        self.pipe, other = self.context.Pipe(duplex=False)
        arguments = (self.job, self.rank, self.done, self.total, other)
        self.process = self.context.Process(target=_work, args=arguments, name=f"avllm-features-{self.rank}")
        self.process.start()
        other.close()

    def look(self) -> None:
        """Takes its result, or starts it again if it died."""
        if self.result is not None:
            return
        is_over = not self.process.is_alive()
        try:
            told = self.pipe.recv() if self.pipe.poll() else None
        except EOFError:
            told = None
        if isinstance(told, Exception):
            raise told
        self.result = told
        if told is None and is_over:
            code = self.process.exitcode
            if self.starts == MAX_STARTS:
                raise DataError(
                    f"worker {self.rank} ended {self.starts} times, the last time with code {code}; see its log"
                )
            logger.warning("worker %d ended with code %s; started again, its unfinished shard anew", self.rank, code)
            # It may have been a file that crashes the decoder: from now on that is one unreadable medium.
            self.job = replace(self.job, stage=replace(self.job.stage, trusted_media=False))
            self._start()

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.terminate()
        self.process.join()


def _work(job: Job, rank: int, done: Any, total: Any, pipe: Connection) -> None:
    parent = multiprocessing.parent_process()

    def tell(count: int) -> None:
        done.value += count
        if parent is not None and not parent.is_alive():
            os._exit(1)  # nobody waits for it any more

    try:
        work = Work(job, tell=tell, local_rank=rank)
        numbers = range(rank, len(work.plan.shards), job.workers)
        total.value = sum(len(work.plan.shards[number][1]) for number in numbers)
        pipe.send(work.run(numbers))
    except AvllmError as error:
        pipe.send(error)
    except Exception as error:  # of ours or of a library; starting again would meet it again
        pipe.send(InternalError.of(error))
    except KeyboardInterrupt:  # the parent's to tell
        os._exit(130)
