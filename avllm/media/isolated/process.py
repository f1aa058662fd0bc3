"""One decoder process, as its parent has it: started, asked, watched by a clock, and replaced."""

import base64
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from avllm import confinement
from avllm.errors import InternalError, MediaError
from avllm.media.isolated.channel import Ended, Malformed, ParentEnd
from avllm.media.isolated.lent import Lender
from avllm.media.isolated.results import read_error, read_result, read_warnings, require
from avllm.media.limits import Limits
from avllm.media.source import Source

logger = logging.getLogger(__name__)
_END_SECONDS = 5.0
# A child is replaced after so many media, or so many times the clock of one: what a library loses stays small, and the
# hard limit of CPU time, which counts over its life, is never met by an honest file.
_MOST_CALLS, _MOST_CLOCKS, _CPU_CLOCKS = 1000, 6, 8
_BUFFER_BYTES = 1 << 20
# What libraries take from the environment. All else stays here: keys and passwords, for example.
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
_KEPT += ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_BOOT = (
    "import json, sys; given = json.loads(sys.stdin.buffer.readline()); sys.path[:] = given.pop('path');"
    "from avllm.confinement.start import start; start(**given)"
)


class _Lost(Exception):
    """The child is lost.

    Args:
        error: what that means for the medium.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class DecoderProcess:
    """A child that is started when it is needed.

    Args:
        memory_bytes: its address space.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.num_lost = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: ParentEnd | None = None
        self._end: socket.socket | None = None
        self._is_ready, self._is_killed = False, False
        self._num_calls, self._clock, self._busy = 0, 0.0, 0.0

    @property
    def pid(self) -> int | None:
        """Of the child; None without one."""
        return self._process.pid if self._process is not None else None

    def begin(self, seconds: float) -> None:
        """Starts the child without waiting for it, unless there is one.

        Args:
            seconds: the clock of one medium.

        Raises:
            InternalError: the system does not start it.
        """
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        is_posix = os.name == "posix"
        cpu_seconds = math.ceil(_CPU_CLOCKS * max(seconds, 1.0)) * (os.cpu_count() or 1)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=(theirs.fileno(),) if is_posix else (),
                # Ctrl-C in the terminal is the parent's to handle, and the terminal is none of the child's.
                start_new_session=is_posix,
            )
            end = theirs.fileno() if is_posix else base64.b64encode(theirs.share(process.pid)).decode()  # type: ignore[attr-defined]
            given = {"end": end, "memory_bytes": self.memory_bytes, "cpu_seconds": cpu_seconds, **_places()}
            assert process.stdin is not None
            with process.stdin as stdin, suppress(BrokenPipeError):  # it ended, as the first answer tells
                stdin.write(json.dumps(given).encode() + b"\n")
        except OSError as error:
            ours.close()
            raise InternalError(f"a decoder process cannot be started ({error.strerror or error})") from error
        finally:
            theirs.close()
        self._process, self._end, self._channel = process, ours, ParentEnd(ours)
        self._is_ready, self._is_killed = False, False
        self._num_calls, self._clock, self._busy = 0, max(seconds, 1.0), 0.0

    def call(
        self, name: str, source: Source, args: Sequence[Any], options: Mapping[str, Any], limits: Limits, seconds: float
    ) -> Any:
        """Runs a function of `avllm.media` in the child.

        Args:
            name: of the function.
            source: a resolved medium.
            args: behind it.
            options: of the function.
            limits: of the medium.
            seconds: wall clock for all of it, the start of the child included.

        Raises:
            MediaError: the medium cannot be read, takes too long, or made the child fail.
            InternalError: what failed is no fault of the medium.
        """
        deadline = time.monotonic() + seconds
        if self._is_stale():
            self.stop()
        is_fresh = self._process is None or self._num_calls == 0
        work = (name, source, args, options, limits, seconds, deadline)
        try:
            return self._attempt(*work)
        except _Lost as lost:
            if is_fresh or self._is_killed:
                raise lost.error from lost
            first = lost.error
        # A file that it read before may have damaged it, or somebody ended it: only a fresh one tells.
        try:
            return self._attempt(*work)
        except _Lost as lost:
            raise lost.error from lost
        except InternalError as error:
            if self._is_ready:
                raise
            raise first from error  # it could not be started in what was left of the time

    def _attempt(
        self,
        name: str,
        source: Source,
        args: Sequence[Any],
        options: Mapping[str, Any],
        limits: Limits,
        seconds: float,
        deadline: float,
    ) -> Any:
        started, lender = time.monotonic(), Lender(limits)
        try:
            self.begin(seconds)
            self._await_ready(deadline, seconds)
            given = lender.lend(source) if hasattr(socket, "send_fds") else source
            self._the_channel.send((name, given, tuple(args), dict(options)), deadline)
            result = self._answer(name, options, limits, lender, deadline)
        except TimeoutError as error:
            self._lose(f"was stopped after {seconds:g} s")
            raise MediaError(
                f"reading the file took more than {seconds:g} s and was stopped; cut or re-encode it"
            ) from error
        except Ended as error:
            raise _Lost(self._ended()) from error
        except Malformed as error:
            self._lose(f"gave no proper answer ({error})")
            found = MediaError(
                f"the decoder process gave no proper answer ({error}) and was stopped; do not trust this file"
            )
            raise _Lost(found) from error
        except BaseException:  # in the midst of an answer
            self.stop()
            raise
        finally:
            lender.close()
            self._num_calls += 1
            self._busy += time.monotonic() - started
        if isinstance(result, Exception):
            raise result
        return result

    def kill(self) -> None:
        """Ends the child from another thread than the one that waits for it."""
        process, channel = self._process, self._channel
        self._is_killed = True
        if process is not None:
            process.kill()
            process.wait()
        if channel is not None:
            channel.shut()

    def stop(self) -> None:
        """Ends the child, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Lets go of the child without ending it, in a process that inherited it from its parent."""
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = self._end = None

    @property
    def _the_channel(self) -> ParentEnd:
        assert self._channel is not None
        return self._channel

    def _await_ready(self, deadline: float, seconds: float) -> None:
        if self._is_ready:
            return
        try:
            header = self._the_channel.header(deadline)
        except TimeoutError as error:
            self.stop()
            raise InternalError(
                f"a decoder process did not start within {seconds:g} s; is the machine overloaded?"
            ) from error
        except Ended as error:
            code = self._exit_code()
            self.stop()
            raise InternalError(f"a decoder process ended with code {code} at its start") from error
        if header.get("is") == "error":
            self.stop()
            raise read_error(header)
        require(header.get("is") == "ready" and isinstance(header.get("confined"), dict), "no word that it is ready")
        self._is_ready = True
        _log_confinement(*sorted((str(name), str(what)) for name, what in header["confined"].items()))

    def _answer(self, name: str, options: Mapping[str, Any], limits: Limits, lender: Lender, deadline: float) -> Any:
        channel = self._the_channel
        while True:
            header = channel.header(deadline)
            if header.get("is") != "open":
                break
            self._lend(header, lender, deadline)
        for text in read_warnings(header):
            logger.warning("%s", text)
        if header.get("is") == "error":
            return read_error(header)
        return read_result(name, header, options, limits, lambda shape, dtype: channel.array(shape, dtype, deadline))

    def _lend(self, header: Mapping[str, Any], lender: Lender, deadline: float) -> None:
        number, member = header.get("number"), header.get("member")
        require(type(number) is int and number >= 0, "a wish for no file")
        require(member is None or isinstance(member, str), "a wish for no file of a folder")
        try:
            source, descriptor = lender.open(number, member)  # type: ignore[arg-type]
        except LookupError as error:
            raise Malformed("a wish for another file") from error
        except MediaError as error:
            self._the_channel.send(error, deadline)
            return
        try:
            self._the_channel.send(source, deadline, descriptor)
        finally:
            os.close(descriptor)

    def _is_stale(self) -> bool:
        """Whether the child should be replaced: it ended or talks unasked, or did enough."""
        if self._process is None or self._end is None:
            return False
        if self._num_calls >= _MOST_CALLS or self._busy >= _MOST_CLOCKS * self._clock:
            return True
        if not self._is_ready:
            return False
        if self._process.poll() is not None or select.select([self._end], [], [], 0)[0]:
            self._lose("ended between two files")
            return True
        return False

    def _exit_code(self) -> int | None:
        assert self._process is not None
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _ended(self) -> Exception:
        if self._is_killed:
            self.stop()
            return InternalError("the decoder process was closed")
        code = self._exit_code()
        self._lose(f"ended with {_shown(code)}")
        if code is None or code >= 0:  # no signal: it was Python that ended, for a reason that is no file's
            return InternalError(f"a decoder process ended with code {code}")
        return MediaError("the file made the decoder fail; it is damaged or not a media file")

    def _lose(self, how: str) -> None:
        self.num_lost += 1
        logger.warning("a decoder process %s; %d were replaced so far", how, self.num_lost)
        self.stop()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "MALLOC_ARENA_MAX": "2"}  # each reserves address space, of which the limit counts all


@cache
def _places() -> dict[str, list[str]]:
    """Where modules and libraries are found."""
    package = str(Path(confinement.__file__).resolve().parents[2])
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    return {"path": [*path, package], "readable": confinement.readable_files()}


def _shown(code: int | None) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"code {code}"
    except ValueError:
        return f"signal {-code}" if code is not None else "no code"


@cache
def _log_confinement(*parts: tuple[str, str]) -> None:
    """Once, what the system keeps decoder processes from."""
    logger.info("decoder processes are confined: %s", ", ".join(f"{name}: {what or 'no'}" for name, what in parts))
