"""What a run of the fuzzer found, for people."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.fuzz.lane import Told

VARIES = re.compile(r"0x\w+|'[^']*'|b?\"[^\"]*\"|/\S+|\d+")
SLOWEST = 10
GROWN_KIB = 64 * 1024  # more than this between the second and the last quarter of a child's life is growth
FEWEST = 200  # cases from which growth can be told


@dataclass(frozen=True)
class Fault:
    """One thing that must not happen, and what makes it happen again."""

    what: str
    entry: str
    message: str
    kind: str
    name: str
    number: int
    kept: str = ""

    @property
    def place(self) -> str:
        """What equal faults have in common: where it was raised, or the message without what varies."""
        if self.message.endswith(")") and ".py" in self.message:
            return self.message.rpartition("(")[2]
        return VARIES.sub("#", self.message.partition(": ")[2] or self.message)[:80]


@dataclass
class Report:
    """Everything that a run counts.

    Args:
        seed: of the run.
        memory_kib: a case may take so much more than its child had before.
    """

    seed: int
    memory_kib: int
    files: Counter[str] = field(default_factory=Counter)
    goods: int = 0
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[Fault] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    resident: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    peak: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    is_stopped: bool = False

    def add(self, kind: str, name: str, number: int, told: Told, child: str, kept: str) -> bool:
        """Counts a case; whether it has a fault."""
        self.files[kind] += number >= 0
        self.goods += number < 0
        before = len(self.faults)
        for entry, outcome in told.outcomes.items():
            self.classes[f"{kind}.{entry}"][outcome["class"]] += 1
            if outcome["fault"]:
                self.faults.append(Fault(outcome["fault"], entry, outcome["message"], kind, name, number, kept))
        if number < 0 and not any(not o["class"].endswith("Error") and not o["fault"] for o in told.outcomes.values()):
            said = "; ".join(f"{entry}: {outcome['message']}" for entry, outcome in told.outcomes.items())
            self.faults.append(Fault("a good file is read by nothing", "all", said[:600], kind, name, number, kept))
        took = told.memory.get("peak", 0) - told.memory.get("before", 0)
        if took > self.memory_kib:
            message = f"{took / 1024:.0f} MiB over the {told.memory['before'] / 1024:.0f} before"
            self.faults.append(Fault("memory over the bound", "all", message, kind, name, number, kept))
        if told.memory:
            series = f"{child} {self.starts[child]}"
            self.resident[series].append(told.memory["after"])
            self.peak[series] = max(self.peak[series], told.memory["peak"])
        shown = max(told.outcomes, key=lambda entry: told.outcomes[entry]["seconds"], default="?")
        self.slowest = sorted([*self.slowest, (told.seconds, f"{number} {name} ({shown})")], reverse=True)[:SLOWEST]
        return len(self.faults) > before

    def end(self, seconds: float) -> None:
        """Looks at memory over the whole run."""
        self.seconds = seconds
        for series, sizes in self.resident.items():
            grown = _grown(sizes)
            if grown > GROWN_KIB:
                message = (
                    f"{series}: {grown / 1024:.0f} MiB between the second and the last quarter of {len(sizes)} cases"
                )
                self.faults.append(Fault("growth", "all", message, series.split()[0], "all", -1))

    @property
    def ok(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.faults

    def to_text(self) -> str:
        """Lines for people."""
        total, rate = sum(self.files.values()), sum(self.files.values()) / self.seconds if self.seconds else 0.0
        counted = ", ".join(f"{kind} {count}" for kind, count in self.files.items())
        lines = [
            f"{total} damaged files ({counted}) of {self.goods} good ones, seed {self.seed}, {self.seconds:.0f} s, "
            f"{rate:.0f} a second{', stopped early' if self.is_stopped else ''}",
            "what came of them, by entry point:",
        ]
        for entry, classes in sorted(self.classes.items()):
            lines.append(f"  {entry:28} " + ", ".join(f"{name} {count}" for name, count in classes.most_common()))
        lines.append("slowest:")
        lines += [f"  {seconds:7.2f} s  {name}" for seconds, name in self.slowest]
        lines.append("memory of the children, MiB: first, last, peak, slope a thousand files")
        for series, sizes in self.resident.items():
            slope = _grown(sizes) / max(1, len(sizes) / 2) * 1000
            figures = (sizes[0], sizes[-1], self.peak[series], slope)
            lines.append(f"  {series:28} " + " ".join(f"{figure / 1024:8.1f}" for figure in figures))
        return "\n".join([*lines, *self._fault_lines()])

    def _fault_lines(self) -> list[str]:
        """Equal faults once, with how many there are and the first that makes it happen again."""
        groups: dict[tuple[str, str, str], list[Fault]] = defaultdict(list)
        for fault in self.faults:
            groups[fault.what, fault.kind, fault.place].append(fault)
        if not groups:
            return ["faults: none"]
        lines = [f"faults: {len(self.faults)}, of {len(groups)} kinds"]
        for found in sorted(groups.values(), key=len, reverse=True):
            first, entries = found[0], ", ".join(sorted({fault.entry for fault in found}))
            again = f"python -m tests.fuzz --seed {self.seed} --kinds {first.kind} --only {first.number}"
            lines += [
                f"  {len(found)} x {first.what} in {first.kind} ({entries}), file {first.name}: {first.message}",
                f"      again: {again}{f'; kept as {first.kept}' if first.kept else ''}",
            ]
        return lines


def _grown(sizes: Sequence[int]) -> float:
    """KiB between the second and the last quarter; 0 of a life too short to tell."""
    if len(sizes) < FEWEST:
        return 0.0
    quarter = len(sizes) // 4
    return median(sizes[-quarter:]) - median(sizes[quarter : 2 * quarter])
