"""Answers by Ray Data: an actor per process with a model of its own, on any machines that see the same media."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from avllm.chat.assistant import Assistant
from avllm.chat.perceiver import reading_through
from avllm.data.shares import Ledgers, RayLedger, work_through
from avllm.errors import AvllmError, attempted
from avllm.evaluation.answering import answer, assistant_of, failed, grouped
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.log import Row
from avllm.evaluation.sample import Sample
from avllm.media.isolated import BATCH_SECONDS, IsolatedMedia

BATCHES = 4  # questions that an actor gets at a time, in batches, so that most of these are full


def answer_on_ray(benchmark: Benchmark, samples: Sequence[Sample], processes: int | None = None) -> Iterator[list[Row]]:
    """Rows of all samples, share by share as they are done.

    An actor that dies is replaced and its share done again; the questions about a medium at which actors die become
    rows with an error, see `avllm.data.shares`.

    Args:
        benchmark: what to run.
        samples: to answer.
        processes: actors; by default one for each GPU of the cluster, or for every second core.

    Raises:
        AvllmError: Ray cannot go on, for example because no actor can open the model.
    """
    import ray  # pyright: ignore[reportMissingImports]  (an extra)
    from ray.data import ActorPoolStrategy  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    shares = _shares(samples, BATCHES * benchmark.batch)
    found = ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 1))
    size = min(processes or gpus or max(cores // 2, 1), len(shares))
    # Ray Data itself restarts actors and repeats what they were at, without end; the ledger sees that there is one.
    # From items, not a range: reading a range takes a core that an actor may be waiting for.
    numbers = ray.data.from_items([{"share": number} for number in range(len(shares))], override_num_blocks=len(shares))
    done = numbers.map(
        _Answering,
        fn_constructor_args=(benchmark, shares, RayLedger()),
        compute=ActorPoolStrategy(size=size),
        **({"num_gpus": 1} if gpus else {}),
    )
    try:
        for row in done.iter_rows():
            yield json.loads(row["rows"])
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise AvllmError(f"Ray: {lines[-1] if lines else type(error).__name__}") from error


def _shares(samples: Sequence[Sample], least: int) -> list[list[Sample]]:
    """Samples in shares of at least so many; those of one medium stay together."""
    shares: list[list[Sample]] = [[]]
    for group in grouped(samples):
        if len(shares[-1]) >= least:
            shares.append([])
        shares[-1] += group
    return shares


def answer_share(
    benchmark: Benchmark, share: int, samples: Sequence[Sample], assistant: Assistant, ledger: Ledgers
) -> list[Row]:
    """Rows of a share; medium by medium once an actor died at it.

    Args:
        benchmark: what to run.
        share: its number.
        samples: of the share.
        assistant: who answers.
        ledger: what is known of the share.
    """

    def do(groups: Sequence[list[Sample]]) -> list[Row]:
        wanted = [sample for group in groups for sample in group]
        # Whatever is raised in an actor would end the run.
        found = attempted(lambda: [row for rows in answer(benchmark, wanted, assistant) for row in rows])
        return [failed(sample, found) for sample in wanted] if isinstance(found, AvllmError) else found

    def give_up(group: list[Sample], reason: str) -> list[Row]:
        return [failed(sample, AvllmError(reason)) for sample in group]

    return [row for rows in work_through(ledger, share, grouped(samples), do, give_up) for row in rows]


class _Answering:
    """An actor: opens the model once, then answers the shares that it is sent."""

    def __init__(self, benchmark: Benchmark, shares: Sequence[Sequence[Sample]], ledger: Ledgers) -> None:
        self.benchmark, self.shares, self.assistant = benchmark, shares, assistant_of(benchmark)
        if not benchmark.trusted_media:  # children end with the actor
            isolated = IsolatedMedia(seconds=BATCH_SECONDS, num_workers=benchmark.workers)
            self.assistant = reading_through(self.assistant, isolated)
        self.ledger = ledger

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = row["share"]
        return {
            "rows": json.dumps(answer_share(self.benchmark, number, self.shares[number], self.assistant, self.ledger))
        }
