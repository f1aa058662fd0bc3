"""Media worked on ahead of the one who waits for them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from avllm.errors import AvllmError

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Result], workers: int, *, ahead: int | None = None
) -> Iterator[tuple[Item, Result | AvllmError]]:
    """Each item with what was read of it, or with what is wrong with it.

    Args:
        items: in the order in which they come back.
        read: opens the media of one item.
        workers: threads that work ahead.
        ahead: items begun or done that wait to be asked for; as many as threads by default.
    """

    def attempt(item: Item) -> Result | AvllmError:
        try:
            return read(item)
        except AvllmError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    is_stopped = False
    waiting: deque[tuple[Item, Future[Result | AvllmError]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(attempt, item)))
            if len(waiting) > (ahead or workers):
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except KeyboardInterrupt:  # nobody waits for what is being read
        is_stopped = True
        raise
    finally:
        pool.shutdown(wait=not is_stopped, cancel_futures=True)
