"""A child process that is used again and again, with a clock; one that crashed or hung is replaced."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.child import work

START_SECONDS = 300.0


@dataclass
class Told:
    """What came of a case.

    Args:
        outcomes: entry point -> its class, fault, message and seconds.
        memory: resident KiB before, at the peak, and after.
        end: how the process ended in it: a signal or a hang; empty if it did not.
    """

    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    end: str = ""
    seconds: float = 0.0


class Lane:
    """Children of one kind, one at a time.

    Args:
        modules: kind -> module with its entry points.
        log: file for what they print.
        seconds: wall clock for a case.
        room_bytes: address space beyond what the imports take.
    """

    def __init__(self, modules: Mapping[str, str], log: Path, *, seconds: float, room_bytes: int) -> None:
        self.modules, self.log, self.seconds, self.room_bytes = dict(modules), log, seconds, room_bytes
        self.starts = 0
        self._process: Any = None
        self._pipe: Any = None

    def run(self, case: Case) -> Told:
        """Hands a case to the child."""
        if self._process is None:
            self._start()
        told, started, entry = Told(), time.monotonic(), "?"
        self._pipe.send(case)
        while True:
            left = started + self.seconds - time.monotonic()
            try:
                if not self._pipe.poll(max(left, 0)):
                    told.end = f"hang: over {self.seconds:g} s"
                    break
                what, value = self._pipe.recv()
            except (EOFError, ConnectionError):
                self._process.join(10)
                code = self._process.exitcode
                name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
                told.end = f"crash: {name}"
                break
            if what == "begin":
                entry, begun = value, time.monotonic()
            elif what == "end":
                told.outcomes[entry] = value
            else:
                told.memory = value
                break
        told.seconds = time.monotonic() - started
        if told.end:
            lasted = time.monotonic() - begun if entry != "?" else told.seconds
            told.outcomes[entry] = {
                **{"class": told.end, "fault": told.end.partition(":")[0], "message": self._tail()},
                "seconds": lasted,
            }
            self.stop()
        return told

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=work, args=(other, self.modules, str(self.log), self.room_bytes), daemon=True
        )
        self._process.start()
        other.close()
        self.starts += 1
        if not self._pipe.poll(START_SECONDS) or self._pipe.recv() != "ready":
            raise RuntimeError(f"a child did not start: {self._tail()}")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-300:].strip()
        return ""

    def stop(self) -> None:
        """Ends the child."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None
