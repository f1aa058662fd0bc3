"""Kills a command again and again, resumes it, and compares what it leaves with what an uninterrupted one leaves."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.kill.commands import COMMANDS, Command
from tests.kill.leavings import differences, digests, leavings
from tests.kill.started import Started, warm_up

MOST_A_ROUND = 5  # kills of one output before it may end
UNFINISHED = (".unfinished-", ".partial", ".tmp", ".lock", ".in_use")
HELD = ("writes it right now", "is in use", "another process", "another run")


@dataclass
class Result:
    """What came of a command.

    Args:
        name: of the command.
        seconds: of an uninterrupted run.
        kills: that hit it at work.
        at_writes: of them, in the moment when something half written appeared.
        rounds: outputs that were begun and ended.
        resumes: calls after a kill.
        faults: whatever is not as it must be.
    """

    name: str
    seconds: float = 0.0
    kills: int = 0
    at_writes: int = 0
    rounds: int = 0
    resumes: int = 0
    faults: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        """A line, and one for each fault."""
        end = "equal to the uninterrupted run" if not self.faults else f"{len(self.faults)} FAULTS"
        line = (
            f"{self.name}: {self.kills} kills ({self.at_writes} while something was half written), {self.resumes} "
            f"resumes, {self.rounds} outputs, uninterrupted {self.seconds:.1f} s: {end}"
        )
        return "\n".join([line, *(f"    {fault}" for fault in self.faults[:20])])


class Killed:
    """One command and its folders.

    Args:
        name: of the command.
        root: gets what it reads and writes.
        command: in place of the one of that name.
        warm: see `Started`.
        tell: called after each kill.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        *,
        command: Command | None = None,
        warm: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.command = command or COMMANDS[name]
        self.root, self.work, self.warm, self.tell = root / "read", root / "work", warm, tell
        self.result = Result(name)
        if warm:
            warm_up()
        self.root.mkdir(parents=True)
        self.command.prepare(self.root)
        self._old: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}
        self._before: set[str] = set()

    def run_whole(self) -> None:
        """Once, without a kill; all others are compared with it."""
        self._start_anew()
        self._old = leavings(self.work)
        started, process = time.monotonic(), self._started(again=False)
        code = process.wait()
        self.result.seconds = time.monotonic() - started
        assert code == 0, f"{self.result.name} ended with {code}:\n{process.printed()}"
        self._whole = leavings(self.work)
        assert self._whole != self._old, f"{self.result.name} wrote nothing"

    def run_killed(self, kills: int, rng: Random) -> None:
        """Rounds until so many kills hit; each ends with an output that must be whole."""
        while self.result.kills < kills and not self.result.faults:
            self._start_anew()
            wanted = min(kills - self.result.kills, rng.randint(1, MOST_A_ROUND))
            again, misses = False, 0
            while wanted and misses < 3:
                process = self._started(again=again)
                if self._kill(process, rng):
                    wanted, again = wanted - 1, self._was_begun()
                    self.result.resumes += 1
                    self._require_intact()
                    if self.command.is_new and leavings(self.work) == self._whole:  # killed on its way out
                        self._start_anew()
                        again = False
                elif process.code() == 0:  # too late: it is done, and begins anew
                    misses += 1
                    self._require_whole()
                    self._start_anew()
                    again = False
                else:
                    self._fault(f"ended with {process.code()}: {process.printed()[-600:]}")
                    return
            process = self._started(again=again)
            if process.wait() != 0:
                self._fault(f"the last call ended with {process.code()}: {process.printed()[-600:]}")
                return
            self._require_whole()
            self.result.rounds += 1

    def run_two(self) -> None:
        """A second call while the first is at work says in one line who holds the output, and changes nothing."""
        first = self._stopped_at_work()
        held = digests(self.work)
        second = Started(self.command.module, self._argv(again=True), self.work.with_name("second.txt"), warm=self.warm)
        code, printed = second.wait(), second.printed()
        last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
        if self.command.is_shared:  # unless the first was stopped in the moment in which it holds the list
            if code != 0 and not any(text in last for text in HELD):
                self._fault(f"two at once: the second ended with {code}: {printed[-600:]}")
        elif code == 0:
            self._fault("two at once: the second ended with 0, too")
        elif "Traceback" in printed or not last.startswith("avllm ") or not any(text in last for text in HELD):
            self._fault(f"two at once: the second did not say in one line who holds the output: {printed[-600:]}")
        for fault in [] if self.command.is_shared else differences(held, digests(self.work)):
            self._fault(f"two at once: the second changed something: {fault}")
        first.signal(signal.SIGCONT)
        if first.wait() != 0:
            self._fault(f"two at once: the first ended with {first.code()}: {first.printed()[-600:]}")
        self._require_whole()

    def _stopped_at_work(self) -> Started:
        """A process that has begun to write, and stands still."""
        for _ in range(20):
            self._start_anew()
            first = self._started(again=False)
            while not self._was_begun() and first.code() is None:
                time.sleep(0.0005)
            if first.code() is None:
                first.signal(signal.SIGSTOP)
                if leavings(self.work) != self._whole:
                    return first
                first.signal(signal.SIGCONT)
            first.wait()
        raise AssertionError(f"{self.result.name} was never met at work")

    def _start_anew(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if self.command.old is not None:
            self.command.old(self.root, self.work)
        self._before = _names(self.work)

    def _argv(self, *, again: bool) -> list[str]:
        return self.command.argv(self.root, self.work, again)

    def _started(self, *, again: bool) -> Started:
        log = self.work.with_name("printed.txt")
        return Started(self.command.module, self._argv(again=again), log, warm=self.warm)

    def _was_begun(self) -> bool:
        """Whether something is there that a second call has to do with."""
        return bool(_names(self.work) - self._before)

    def _kill(self, process: Started, rng: Random) -> bool:
        """Kills at a random moment, or when something half written appears; False if it ended before."""
        at_write = rng.random() < 0.5
        moment, appearance = rng.uniform(0, self.result.seconds), rng.randint(1, 6)
        started, before, seen = time.monotonic(), _half(self.work), 0
        while process.code() is None:
            if at_write:
                now = _half(self.work)
                seen += bool(now - before)
                before = now
                if seen >= appearance:
                    break
            elif time.monotonic() - started >= moment:
                break
            time.sleep(0.0005 if at_write else 0.002)
        if process.code() is not None or process.kill() != -9:
            return False
        self.result.kills += 1
        self.result.at_writes += at_write
        self.tell(f"{self.result.name}: killed after {time.monotonic() - started:.2f} s")
        return True

    def _require_intact(self) -> None:
        """What was there before is there, or what replaces it; nothing between."""
        if self._old:
            now = {name: content for name, content in leavings(self.work).items() if not _is_half(name)}
            if now not in (self._old, self._whole):
                self._fault(f"the old output is damaged: {differences(self._old, now)[:3]}")

    def _require_whole(self) -> None:
        for fault in differences(self._whole, leavings(self.work)):
            self._fault(fault)

    def _fault(self, text: str) -> None:
        self.result.faults.append(f"after {self.result.kills} kills: {text}")


def _names(folder: Path) -> set[str]:
    """Files and folders below a folder, which may change meanwhile."""
    return {
        os.path.relpath(os.path.join(top, name), folder)
        for top, dirs, files in os.walk(folder)
        for name in (*dirs, *files)
    }


def _is_half(name: str) -> bool:
    return any(text in part for part in Path(name).parts for text in UNFINISHED)


def _half(folder: Path) -> set[str]:
    """What is half written, and how far files that grow have come."""
    found = set()
    for name in _names(folder):
        if _is_half(name):
            found.add(name)
        elif name.endswith((".jsonl", ".csv")):
            try:
                found.add(f"{name} {os.path.getsize(folder / name)}")
            except OSError:
                continue
    return found
