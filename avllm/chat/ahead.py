"""Many questions about many media: media read ahead, questions answered side by side, faults kept to their own."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from avllm.chat.assistant import Assistant, Request
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.errors import AvllmError

Item = TypeVar("Item")


def read_ahead(
    items: Sequence[Item], perceive: Callable[[Item], list[Perceived]], workers: int
) -> Iterator[tuple[Item, list[Perceived] | AvllmError]]:
    """Each item with its media, or with what is wrong with them.

    Args:
        items: in the order in which they come back.
        perceive: decodes and encodes the media of one item.
        workers: threads that work ahead.
    """

    def attempt(item: Item) -> list[Perceived] | AvllmError:
        try:
            return perceive(item)
        except AvllmError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Item, Future[list[Perceived] | AvllmError]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(attempt, item)))
            if len(waiting) > workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def answer_each(
    assistant: Assistant, requests: Sequence[Request], media: Sequence[list[Perceived]], **options: Any
) -> list[Reply | AvllmError]:
    """Answers side by side; when the batch fails, one by one, so that only the culprit becomes an error.

    Args:
        assistant: who answers.
        requests: the questions.
        media: what `Assistant.perceive_request` gave for each.
        options: what `generate` of `transformers` takes.
    """
    try:
        return [*assistant.answers(requests, media=media, **options)]
    except AvllmError as error:
        if len(requests) == 1:
            return [error]
    pairs = zip(requests, media, strict=True)
    return [reply for request, one in pairs for reply in answer_each(assistant, [request], [one], **options)]
