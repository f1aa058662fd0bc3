"""Answers of a model to samples: media decoded and encoded once, questions in batches."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from avllm.chat.assistant import Assistant, Request
from avllm.chat.store import Perceived
from avllm.errors import AvllmError, MediaError
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.log import Row, digest
from avllm.evaluation.sample import Sample

Asked = tuple[Sample, list[Perceived]]


def grouped(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that look at the same media, together."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.media_key, []).append(sample)
    return list(groups.values())


def answer(benchmark: Benchmark, samples: Sequence[Sample], assistant: Assistant) -> Iterator[list[Row]]:
    """Rows of all samples, batch by batch; media that cannot be read become rows with an error."""
    ready: list[Asked] = []
    for group, media in _perceived(benchmark, grouped(samples), assistant):
        if isinstance(media, AvllmError):
            yield [_failed(sample, media) for sample in group]
            continue
        ready += [(sample, media) for sample in group]
        while len(ready) >= benchmark.batch:
            yield _answered(benchmark, ready[: benchmark.batch], assistant)
            del ready[: benchmark.batch]
    if ready:
        yield _answered(benchmark, ready, assistant)


def _perceived(
    benchmark: Benchmark, groups: Sequence[list[Sample]], assistant: Assistant
) -> Iterator[tuple[list[Sample], list[Perceived] | AvllmError]]:
    """Each group with its media, which threads decode and encode ahead."""

    def perceive(group: list[Sample]) -> list[Perceived] | AvllmError:
        sample = group[0]
        part = {"start_s": sample.start_s, "end_s": sample.end_s, "source_fps": sample.source_fps}
        options: dict[str, Any] = {name: value for name, value in part.items() if value is not None}
        try:
            return assistant.perceive_all(
                **sample.media,
                audio_mode=benchmark.audio,
                num_frames=benchmark.num_frames if "video" in sample.media else None,
                **options,
            )
        except AvllmError as error:
            return error
        except OSError as error:
            return MediaError(f"{error.filename or ''}: {error.strerror or error}")

    pool = ThreadPoolExecutor(benchmark.workers)
    waiting: deque[tuple[list[Sample], Future[list[Perceived] | AvllmError]]] = deque()
    try:
        for group in groups:
            waiting.append((group, pool.submit(perceive, group)))
            if len(waiting) > benchmark.workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _answered(benchmark: Benchmark, asked: Sequence[Asked], assistant: Assistant) -> list[Row]:
    """Answers side by side; when the batch fails, one by one, so that only the culprit becomes an error."""
    prompt = benchmark.prompt
    requests = [
        Request(question=prompt.text(sample, _times(media)), system=prompt.system, answer_start=prompt.answer_start)
        for sample, media in asked
    ]
    started = time.perf_counter()
    try:
        replies = assistant.answers(
            requests, media=[media for _, media in asked], max_new_tokens=benchmark.max_new_tokens
        )
    except AvllmError as error:
        if len(asked) == 1:
            return [_failed(asked[0][0], error)]
        return [row for one in asked for row in _answered(benchmark, [one], assistant)]
    seconds = (time.perf_counter() - started) / len(asked)
    # "Best option:(" leaves the bracket of "(A)" to the prompt.
    opened = "(" if prompt.answer_start.endswith("(") else ""
    rows = []
    for (sample, media), request, reply in zip(asked, requests, replies, strict=True):
        found = {
            "prompt": request.question,
            "answer": opened + reply.answer,
            "streams": list(reply.streams_used),
            "frames_s": [round(time_s, 3) for time_s in reply.frames],
            "media_hashes": [item.key for item in media],
            "seconds": round(seconds, 4),
        }
        row = {**described(sample), **found}
        rows.append({**row, **scored(benchmark, row)})
    return rows


def _times(media: Sequence[Perceived]) -> tuple[float, ...]:
    """Seconds of the frames of the video, if there is one."""
    return next((item.medium.times_s for item in media if item.medium.kind == "video"), ())


def described(sample: Sample) -> Row:
    """What a row says of its sample: all that scoring and reports need."""
    plain = sample.to_dict()
    return {**plain, "sample_hash": digest(plain)}


def scored(benchmark: Benchmark, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer of a row was read as, and its score."""
    found = benchmark.score.score(row["answer"], row)
    return {"read_as": found.read_as, "score": found.score}


def _failed(sample: Sample, error: Exception) -> Row:
    return {**described(sample), "error": " ".join(str(error).split())}
