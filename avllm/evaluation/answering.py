"""Answers of a model to samples: media decoded and encoded once, questions in batches."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from avllm.chat.ahead import answer_each
from avllm.chat.assistant import Assistant, Request, load
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.chat.threads import choose_threads
from avllm.checkpoints.adapters import is_adapter
from avllm.checkpoints.load import base_folder, find_model, open_processor
from avllm.errors import AvllmError, ConfigError, attempted, own_message
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.log import Row, digest
from avllm.evaluation.sample import Sample
from avllm.media import read_ahead
from avllm.model import AvllmProcessor

Asked = tuple[Sample, list[Perceived]]


def grouped(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that look at the same media, together."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.media_key, []).append(sample)
    return list(groups.values())


def answer(benchmark: Benchmark, samples: Sequence[Sample], assistant: Assistant) -> Iterator[list[Row]]:
    """Rows of all samples, batch by batch; whatever goes wrong with one sample becomes its row, with the error."""
    ready: list[Asked] = []

    def perceive(group: list[Sample]) -> list[Perceived] | AvllmError:
        sample = group[0]
        part = {"start_s": sample.start_s, "end_s": sample.end_s, "source_fps": sample.source_fps}
        options: dict[str, Any] = {name: value for name, value in part.items() if value is not None}
        num_frames = benchmark.num_frames if "video" in sample.media else None
        options |= {"audio_mode": benchmark.audio, "num_frames": num_frames}
        return attempted(lambda: assistant.perceive_all(**sample.media, **options))

    for group, media in read_ahead(grouped(samples), perceive, benchmark.workers):
        if isinstance(media, AvllmError):
            yield [failed(sample, media) for sample in group]
            continue
        ready += [(sample, media) for sample in group]
        while len(ready) >= benchmark.batch:
            yield _answered(benchmark, ready[: benchmark.batch], assistant)
            del ready[: benchmark.batch]
    if ready:
        yield _answered(benchmark, ready, assistant)


def _answered(benchmark: Benchmark, asked: Sequence[Asked], assistant: Assistant) -> list[Row]:
    requests = [attempted(partial(_request, benchmark, *one)) for one in asked]
    possible = [(one, request) for one, request in zip(asked, requests, strict=True) if isinstance(request, Request)]
    started = time.perf_counter()
    replies = answer_each(
        assistant,
        [request for _, request in possible],
        [media for (_, media), _ in possible],
        max_new_tokens=benchmark.max_new_tokens,
    )
    seconds = (time.perf_counter() - started) / len(asked)
    rows, left = [], iter(replies)
    for (sample, media), request in zip(asked, requests, strict=True):
        reply = request if isinstance(request, AvllmError) else next(left)
        if isinstance(request, Request) and isinstance(reply, Reply):
            found = attempted(partial(_row, benchmark, sample, media, request, reply, seconds))
        else:
            found = reply
        rows.append(failed(sample, found) if isinstance(found, AvllmError) else found)
    return rows


def _request(benchmark: Benchmark, sample: Sample, media: Sequence[Perceived]) -> Request:
    prompt = benchmark.prompt
    text = prompt.text(sample, _times(media))
    return Request(question=text, system=prompt.system, answer_start=prompt.answer_start)


def _row(
    benchmark: Benchmark,
    sample: Sample,
    media: Sequence[Perceived],
    request: Request,
    reply: Reply,
    seconds: float,
) -> Row:
    # "Best option:(" leaves the bracket of "(A)" to the prompt.
    opened = "(" if benchmark.prompt.answer_start.endswith("(") else ""
    found = {
        "prompt": request.question,
        "answer": opened + reply.answer,
        "streams": list(reply.streams_used),
        "frames_s": [round(time_s, 3) for time_s in reply.frames],
        "media_hashes": [item.key for item in media],
        "seconds": round(seconds, 4),
    }
    row = {**described(sample), **found}
    return {**row, **scored(benchmark, row)}


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


def failed(sample: Sample, error: AvllmError) -> Row:
    """The row of a sample that could not be answered."""
    return {**described(sample), "error": own_message(error)}


def require_possible(benchmark: Benchmark, samples: Sequence[Sample], processor: Any) -> None:
    """That the system can look at the media of a benchmark as it wants, said before anything is opened.

    Args:
        benchmark: what to run.
        samples: to answer.
        processor: of the system.

    Raises:
        ConfigError: it has no branch for a kind of medium or for the sound, or holds fewer frames.
    """
    kinds = {kind for sample in samples for kind in sample.media}
    for kind in sorted(kinds):
        processor.check_reading(kind, **({"num_frames": benchmark.num_frames} if kind == "video" else {}))
    if benchmark.audio == "require" and "video" in kinds and "audio" not in processor.branches:
        raise ConfigError("audio: sound is required, but this system has no audio branch; set audio=off")


def processor_of(benchmark: Benchmark) -> AvllmProcessor:
    """The processor of a benchmark's model, without its weights.

    Raises:
        CheckpointError: there is no such model.
    """
    folder = find_model(benchmark.model)
    return open_processor(base_folder(folder) if is_adapter(folder) else folder)


def assistant_of(benchmark: Benchmark) -> Assistant:
    """Opens the model of a benchmark.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: there is no such device.
    """
    if benchmark.device is not None:
        try:
            torch.empty(0, device=benchmark.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"device: {benchmark.device!r} cannot be used here: {str(error).splitlines()[0]}"
            ) from error
    options = {name: value for name in ("dtype", "device") if (value := getattr(benchmark, name)) is not None}
    if "device" not in options and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        options["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
    assistant = load(benchmark.model, **options)
    choose_threads(assistant.model)
    return assistant
