"""The same work by Ray Data: an actor per worker, on any number of machines that see the same folders."""

from typing import Any

from avllm.data.shares import Ledgers, RayLedger, work_through
from avllm.training.features import Job, Summary, Work


def run_ray(job: Job, bar: Any) -> Summary:
    """Each shard is one block. An actor that dies is replaced, and the shard that it was at is made again.

    A medium at which actors die counts as unreadable, see `avllm.data.shares`.

    Args:
        job: what is to be made, by as many actors as it has workers.
        bar: of progress.
    """
    import ray  # pyright: ignore[reportMissingImports]  (an extra)
    from ray.data import ActorPoolStrategy  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    num_shards, media = _size(job)
    bar.reset(media)
    # From items, not a range: reading a range takes a core that an actor may be waiting for.
    shards = ray.data.from_items([{"shard": number} for number in range(num_shards)], override_num_blocks=num_shards)
    gpus = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {}
    done = shards.map(
        _Shards,
        fn_constructor_args=(job, RayLedger()),
        compute=ActorPoolStrategy(size=job.workers),
        max_restarts=-1,
        **gpus,
    )
    summary = Summary()
    for row in done.iter_rows():
        part: Summary = row["summary"]
        summary.merge(part)
        bar.update(part.wanted)
    return summary


def _size(job: Job) -> tuple[int, int]:
    shards = Work(job, tell=lambda count: None).plan.shards
    return len(shards), sum(len(places) for _, places in shards)


class _Shards:
    """An actor: opens the system once, then makes the shards that it is sent."""

    def __init__(self, job: Job, ledger: Ledgers) -> None:
        self.work, self.ledger = Work(job, tell=lambda count: None), ledger

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"summary": make_shard(self.work, row["shard"], self.ledger)}


def make_shard(work: Work, number: int, ledger: Ledgers) -> Summary:
    """Makes a shard at once, or medium by medium once an actor died at it.

    Args:
        work: of this process.
        number: of the shard.
        ledger: what is known of it.
    """
    summary, items = Summary(), work.plan.items(number)
    for part in work_through(ledger, number, items, lambda some: work.run_items([some]), work.give_up):
        summary.merge(part)
    return summary
