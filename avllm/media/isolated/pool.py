"""The functions of `avllm.media`, in a few decoder processes."""

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from avllm import media
from avllm.errors import InternalError, MediaError
from avllm.media.isolated.process import DecoderProcess
from avllm.media.limits import Limits
from avllm.media.source import Source

logger = logging.getLogger(__name__)
_NAMES = frozenset({"probe", "open_video", "open_audio", "open_image"})
# Wall clock for one file where many are worked through unattended: a film without an index is read from end to end.
BATCH_SECONDS = 300.0
_POOLS: "weakref.WeakSet[IsolatedMedia]" = weakref.WeakSet()


class IsolatedMedia:
    """The functions of `avllm.media`, of which those that decode a file run in a child process.

    It takes the place of the module: `isolated.open_video(path, sampling)`. A child that crashed or was too slow is
    replaced by a fresh one; the parent and all other files go on. Arrays and images of Pillow, which are decoded
    already, are read here. It can be pickled and forked: each process then has children of its own.

    Args:
        seconds: wall clock for one file, without the wait for a process that is free.
        limits: what a medium may cost where a call does not say so itself.
        memory_bytes: address space of a child, where the operating system can bound it.
        num_workers: files decoded at the same time.
    """

    def __init__(
        self,
        *,
        seconds: float = 60.0,
        limits: Limits | None = None,
        memory_bytes: int = 4 * 2**30,
        num_workers: int = 2,
    ) -> None:
        self.seconds, self.limits, self.memory_bytes = seconds, limits or Limits(), memory_bytes
        self.num_workers = num_workers
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._is_closed = False
        self._free: SimpleQueue[DecoderProcess] = SimpleQueue()
        self._processes = [DecoderProcess(self.memory_bytes) for _ in range(self.num_workers)]
        for process in self._processes:
            self._free.put(process)

    @property
    def num_lost(self) -> int:
        """Children that a file ended, or that were stopped at one."""
        return sum(process.num_lost for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the children that run."""
        return [process.pid for process in self._processes if process.pid is not None]

    def start(self) -> "IsolatedMedia":
        """Starts the children ahead of their first file, without waiting for them."""
        for process in self._processes:
            process.begin(self.seconds)
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMES:
            return getattr(media, name)

        def call(source: Any, *args: Any, **options: Any) -> Any:
            options = {**options, "limits": options.get("limits") or self.limits}
            # What only this process holds (a file object, a tensor) is fetched here; nothing is decoded here.
            resolved = media.resolve(source, options["limits"])
            if not _is_decoded(resolved):
                return self._call(name, resolved, args, options)
            return getattr(media, name)(resolved, *args, **options)

        return call

    def _call(self, name: str, source: Source, args: Sequence[Any], options: dict[str, Any]) -> Any:
        if self._is_closed:
            raise InternalError("the decoder processes are closed")
        process = self._free.get()
        try:
            return process.call(name, source, args, options, options["limits"], self.seconds)
        except OSError as error:  # a folder that may not be listed
            raise MediaError(f"{source.name}: cannot be read ({error.strerror or error})") from error
        finally:
            self._free.put(process)

    def close(self) -> None:
        """Ends the child processes, also those at work; who waits for them gets an error."""
        self._is_closed = True
        for process in self._processes:
            process.kill()
        with suppress(Empty):
            while True:  # those that nobody waits for
                self._free.get_nowait().stop()

    def __enter__(self) -> "IsolatedMedia":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.seconds, self.limits, self.memory_bytes, self.num_workers)

    def forget(self) -> None:
        """In a process that was forked: lets go of the children of its parent."""
        for process in self._processes:
            process.forget()
        self._reset()


def _made_again(seconds: float, limits: Limits, memory_bytes: int, num_workers: int) -> IsolatedMedia:
    return IsolatedMedia(seconds=seconds, limits=limits, memory_bytes=memory_bytes, num_workers=num_workers)


def _is_decoded(source: Source) -> bool:
    """Whether nothing is left in it that a stranger encoded."""
    if isinstance(source.frames, Sequence):
        return not any(isinstance(item, Source) for item in source.frames)
    return source.path is None and source.data is None


@contextmanager
def reader_of(
    *, trusted_media: bool, num_workers: int, seconds: float = BATCH_SECONDS, starts: bool = True
) -> Iterator[Any]:
    """What reads media: this package itself where they are trusted, else decoder processes.

    Args:
        trusted_media: whether all files come from people who are trusted.
        num_workers: files decoded at the same time.
        seconds: wall clock for one file.
        starts: at once, and not with the first file: while a model is loaded, for example.
    """
    if trusted_media:
        yield media
        return
    with IsolatedMedia(seconds=seconds, num_workers=num_workers) as isolated:
        yield isolated.start() if starts else isolated


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
