"""Command lines as processes that can be killed: real ones, or forks of one process that has everything imported."""

import contextlib
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ORPHAN_SECONDS = 60.0
PRELOADED = ["tests.kill.started", "tests.kill.warm"]


class Started:
    """A running command.

    Args:
        module: what is run, see `Command`.
        argv: its words.
        log: gets what it prints.
        warm: a fork, which starts at once; else a new interpreter.
    """

    def __init__(self, module: str, argv: Sequence[str], log: Path, *, warm: bool) -> None:
        self.log, self._process = log, None
        if warm:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(PRELOADED)
            self._process = context.Process(target=_forked, args=(module, list(argv), str(log)))
            self._process.start()
            self._pid: int = self._process.pid or 0
        else:
            with log.open("wb") as file:
                command = [sys.executable, "-m", module, *argv]
                self._popen = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            self._pid = self._popen.pid

    def code(self) -> int | None:
        """The exit code once it ended, negative by a signal."""
        return self._process.exitcode if self._process is not None else self._popen.poll()

    def wait(self, seconds: float = 600.0) -> int:
        """Waits for its end; kills it and raises if that does not come."""
        end = time.monotonic() + seconds
        while (code := self.code()) is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"no end within {seconds:g} s:\n{self.printed()}")
            time.sleep(0.005)
        return code

    def signal(self, number: int) -> None:
        """Sends a signal to it and to the processes that it started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._pid)
            for process in (first, *first.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def kill(self) -> int:
        """kill -9, and waits until its own processes have noticed; the exit code."""
        try:
            children = psutil.Process(self._pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        (self._process if self._process is not None else self._popen).kill()
        code = self.wait()
        _, alive = psutil.wait_procs(children, ORPHAN_SECONDS)
        assert not alive, f"processes of a killed command go on: {alive}"
        return code

    def printed(self) -> str:
        """All that it printed, without bars that were drawn over."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def warm_up() -> None:
    """Starts the process that the others are forked from, and waits until it has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=int)
    process.start()
    process.join()


def _forked(module: str, argv: list[str], log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["avllm", *argv]
    run: Any = importlib.import_module("avllm.cli").main
    if module != "avllm":
        run = importlib.import_module(module).forked
    code = run(argv)
    sys.stdout.flush()
    os._exit(code)
