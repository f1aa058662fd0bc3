"""Answers by Ray Data: an actor per process with a model of its own, on any machines that see the same media."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from avllm.evaluation.answering import answer, assistant_of, grouped
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.log import Row
from avllm.evaluation.sample import Sample

BATCHES = 4  # questions that an actor gets at a time, in batches, so that most of these are full


def answer_on_ray(benchmark: Benchmark, samples: Sequence[Sample], processes: int | None = None) -> Iterator[list[Row]]:
    """Rows of all samples, share by share as they are done; an actor that dies is replaced and its share done again.

    Args:
        benchmark: what to run.
        samples: to answer.
        processes: actors; by default one for each GPU of the cluster, or for every second core.
    """
    import ray  # pyright: ignore[reportMissingImports]  (an extra)
    from ray.data import ActorPoolStrategy  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    shares = _shares(samples, BATCHES * benchmark.batch)
    found = ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 1))
    size = min(processes or gpus or max(cores // 2, 1), len(shares))
    # Ray Data itself restarts actors and repeats what they were at. From items, not a range: reading a range takes a
    # core that an actor may be waiting for.
    numbers = ray.data.from_items([{"share": number} for number in range(len(shares))], override_num_blocks=len(shares))
    done = numbers.map(
        _Answering,
        fn_constructor_args=(benchmark, shares),
        compute=ActorPoolStrategy(size=size),
        **({"num_gpus": 1} if gpus else {}),
    )
    for row in done.iter_rows():
        yield json.loads(row["rows"])


def _shares(samples: Sequence[Sample], least: int) -> list[list[Sample]]:
    """Samples in shares of at least so many; those of one medium stay together."""
    shares: list[list[Sample]] = [[]]
    for group in grouped(samples):
        if len(shares[-1]) >= least:
            shares.append([])
        shares[-1] += group
    return shares


class _Answering:
    """An actor: opens the model once, then answers the shares that it is sent."""

    def __init__(self, benchmark: Benchmark, shares: Sequence[Sequence[Sample]]) -> None:
        self.benchmark, self.shares, self.assistant = benchmark, shares, assistant_of(benchmark)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        rows = [row for rows in answer(self.benchmark, self.shares[row["share"]], self.assistant) for row in rows]
        return {"rows": json.dumps(rows)}
