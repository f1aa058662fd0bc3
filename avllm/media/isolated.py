"""Untrusted media, decoded in processes of their own: a crash, a hang or a bomb there is a MediaError here.

What is the fault of avllm or of a library, and not of the file, is an `InternalError`.
"""

import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from avllm.errors import AvllmError, InternalError, MediaError
from avllm.media.limits import Limits

logger = logging.getLogger(__name__)
_TOO_LARGE = "the file needs more memory than one file may take; make it smaller"
_NAMES = frozenset({"probe", "open_video", "open_audio", "open_image"})
_START_SECONDS, _END_SECONDS = 60.0, 5.0


class IsolatedMedia:
    """The functions of `avllm.media`, of which those that open a file run in a child process.

    It takes the place of the module: `isolated.open_video(path, sampling)`. A child that crashed or was too slow is
    replaced by a fresh one; the parent and all other files go on. Only an image of Pillow is decoded in the parent.

    Args:
        seconds: wall clock for one file.
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
        self.seconds, self.limits = seconds, limits or Limits()
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [_Worker(memory_bytes) for _ in range(num_workers)]
        for worker in self._workers:
            self._free.put(worker)

    def __getattr__(self, name: str) -> Any:
        from avllm import media

        if name not in _NAMES:
            return getattr(media, name)

        def call(source: Any, *args: Any, **options: Any) -> Any:
            options = {"limits": self.limits, **options}
            # What only this process holds (a file object, a tensor) is fetched here; nothing is decoded here.
            return self._call(name, (media.resolve(source, options["limits"]), *args), options)

        return call

    def _call(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        worker = self._free.get()
        try:
            return worker.call(name, args, options, self.seconds)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """Ends the child processes."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> "IsolatedMedia":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Worker:
    """One child process, started on first use."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._process: Any = None
        self._pipe: Connection | None = None

    def call(self, name: str, args: tuple[Any, ...], options: dict[str, Any], seconds: float) -> Any:
        pipe = self._pipe if self._pipe is not None and self._process.is_alive() else self._start()
        try:
            pipe.send((name, args, options))
            if not pipe.poll(seconds):
                self.stop()
                raise MediaError(f"reading the file took more than {seconds:g} s and was stopped; cut or re-encode it")
            is_done, result = pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(_END_SECONDS)
            code = self._process.exitcode
            self.stop()
            logger.warning("a decoder process ended with code %s", code)
            if code is None or code >= 0:  # no signal: it was Python that ended, for a reason that is no file's
                raise InternalError(f"a decoder process ended with code {code}") from error
            raise MediaError("the file made the decoder fail; it is damaged or not a media file") from error
        if not is_done:
            raise result
        return result

    def _start(self) -> Connection:
        self.stop()
        # Not a fork: threads of torch and of FFmpeg do not survive one.
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, self.memory_bytes), daemon=True, name="avllm-media")
        self._process.start()
        other.close()
        self._pipe = pipe
        if not pipe.poll(_START_SECONDS):
            self.stop()
            raise MediaError(
                f"the decoder process did not start within {_START_SECONDS:g} s; is the machine overloaded?"
            )
        try:
            pipe.recv()
        except EOFError as error:
            self._process.join(_END_SECONDS)
            raise InternalError(f"a decoder process ended with code {self._process.exitcode} at its start") from error
        return pipe

    def stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _work(pipe: Connection, memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the parent's to handle
    from avllm import media

    _bound(memory_bytes)
    pipe.send("ready")
    while True:
        try:
            name, args, options = pipe.recv()
            pipe.send(_outcome(getattr(media, name), args, options))
        except EOFError:
            return
        except MemoryError:  # for the medium on its way here, or what was read of it on its way back
            pipe.send((False, MediaError(_TOO_LARGE)))


def _outcome(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> tuple[bool, Any]:
    try:
        return True, function(*args, **options)
    except AvllmError as error:
        return False, type(error)(str(error))
    except MemoryError:
        return False, MediaError(_TOO_LARGE)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # said by the operating system, about the file
            return False, MediaError(f"the file cannot be read ({error.strerror})")
        return False, InternalError.of(error)


def _bound(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows bounds no process this way
        return
    for limit, value in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, hard))
