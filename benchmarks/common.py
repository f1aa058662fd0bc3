"""What every benchmark shares: the facts of the machine, arms in turn, medians, one form of result.

With `--json` a benchmark prints `{"machine": {...}, "figures": {NAME: {...}}}`, a figure as in `Figure`.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Args:
        value: the median.
        goal: what it should reach; None for a number that is only shown.
        better: which direction is better.
        against: the peer and its version, or what the value counts.
        note: what a reader should know.
    """

    value: float | None
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"
    against: str = ""
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the machine and the figures as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm runs (default: 5)")
    return parser


def machine(*packages: str) -> dict[str, Any]:
    """Processor, memory, load, Python, and the versions of packages."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_average_1min": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "scheduling": _scheduling(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("avllm", *packages)},
        "command": " ".join(["python", *map(_shown, sys.argv)]),
        "date": time.strftime("%Y-%m-%d"),
    }


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def interleaved(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Runs every arm once per round, so that a change of the machine's load hits all alike.

    The order turns from round to round.
    """
    results: dict[str, list[Any]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            results[name].append(arms[name]())
    return results


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def in_child(module: str, *args: str) -> dict[str, Any]:
    """Runs `python -m module args` and reads the JSON of its last line; for peak memory and cold starts."""
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def resident_mib() -> float:
    """Memory that this process holds now (Linux), else its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mib()
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def report(figures: Mapping[str, Figure], facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints the result for a person or for a program."""
    if as_json:
        print(json.dumps({"machine": facts, "figures": {name: asdict(f) for name, f in figures.items()}}, indent=2))
        return
    shown = {key: value for key, value in facts.items() if key != "versions"}
    print("\n".join(f"{key}: {value}" for key, value in shown.items()))
    print("versions:", ", ".join(f"{name} {number or 'absent'}" for name, number in facts["versions"].items()))
    width = max(map(len, figures), default=0)
    for name, figure in figures.items():
        value = "skipped" if figure.value is None else f"{figure.value:.3g}"
        sign = ">=" if figure.better == "higher" else "<="
        goal = "" if figure.goal is None else f"goal {sign} {figure.goal:g}"
        word = {True: "met", False: "MISSED", None: ""}[figure.is_met]
        print(f"{name:{width}}  {value:>8}  {goal:12} {word:7} {figure.against:28} {figure.note}".rstrip())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _scheduling() -> str:
    if not hasattr(os, "sched_getscheduler"):
        return "normal"
    is_real_time = os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
    return "real-time priority, so other load does not count" if is_real_time else "normal"


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _shown(argument: str) -> str:
    path = Path(argument)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else argument
