"""Makes damaged files by a seed and hands them to child processes until the time or the number is up."""

import importlib
import itertools
import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from tests.fuzz.case import Case, Good, damaged, laid_out
from tests.fuzz.lane import Lane
from tests.fuzz.report import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input.

    Args:
        module: with `corpus(folder) -> list[Good]` and `calls(case) -> pairs of a name and a function`.
        child: kinds of one child share its imports.
        share: of the files, among the other kinds.
    """

    module: str
    child: str
    share: int


KINDS: dict[str, Kind] = {
    "media": Kind(module="tests.fuzz.of_media", child="media", share=10),
    "weights": Kind(module="tests.fuzz.of_weights", child="models", share=2),
    "rows": Kind(module="tests.fuzz.of_rows", child="models", share=3),
    "yaml": Kind(module="tests.fuzz.of_settings", child="models", share=2),
    "http": Kind(module="tests.fuzz.of_requests", child="demo", share=2),
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """When to stop, and what one file may cost.

    Args:
        files: damaged ones in all; None is without end.
        seconds: of wall clock in all, corpus and starts included; None is without end.
        case_seconds: of wall clock for one file; generous, as a busy machine takes its time to import.
        memory_mib: that one file may take.
    """

    files: int | None = None
    seconds: float | None = None
    case_seconds: float = 180.0
    memory_mib: int = 768


def fuzz(
    seed: int,
    bounds: Bounds,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    table: Mapping[str, Kind] = KINDS,
    only: int | None = None,
    keep: Path | None = None,
    shares: Mapping[str, int] | None = None,
    goods_of: Collection[str] | None = None,
) -> Report:
    """Runs and reports; Ctrl-C ends it early.

    Args:
        seed: of everything that is drawn: number N of a seed and a kind is always the same file.
        bounds: time and memory.
        kinds: which.
        table: what they are.
        only: this number alone, of the one kind that is named.
        keep: gets the files that made a fault.
        shares: kind -> share of the files, in place of the table's.
        goods_of: kinds whose undamaged files are handed out first, as something must be able to read each; None: all.
    """
    report = Report(seed, bounds.memory_mib * 1024)
    started = time.monotonic()
    order = [kind for kind in kinds for _ in range((shares or {}).get(kind, table[kind].share))]
    with tempfile.TemporaryDirectory(prefix="avllm-fuzz-") as temp:
        root = Path(temp)
        wanted = kinds if only is None else [_kind_of(order, only)]
        corpora = {kind: importlib.import_module(table[kind].module).corpus(root / kind) for kind in wanted}
        lanes = _lanes(wanted, table, root, bounds)
        try:
            numbers = _numbers(corpora, order, only, kinds if goods_of is None else goods_of)
            with tqdm(total=bounds.files, unit="file", disable=None) as bar:
                for kind, number in numbers:
                    if sum(report.files.values()) == bounds.files:
                        break
                    if bounds.seconds is not None and time.monotonic() - started > bounds.seconds:
                        break
                    name = table[kind].child
                    _one(report, lanes[name], name, kind, corpora[kind], number, root / "case", keep)
                    bar.update(number >= 0)
                    bar.set_postfix(faults=len(report.faults), refresh=False)
        except KeyboardInterrupt:
            report.is_stopped = True
        finally:
            for lane in lanes.values():
                lane.stop()
                if keep is not None and lane.log.exists():
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(lane.log, keep)
        report.end(time.monotonic() - started)
    return report


def _kind_of(order: Sequence[str], number: int) -> str:
    return Random(number).choice(order)


def _lanes(kinds: Sequence[str], table: Mapping[str, Kind], root: Path, bounds: Bounds) -> dict[str, Lane]:
    modules: dict[str, dict[str, str]] = {}
    for kind in kinds:
        modules.setdefault(table[kind].child, {})[kind] = table[kind].module
    room = 4 * bounds.memory_mib * 2**20
    return {
        child: Lane(of, root / f"{child}.log", seconds=bounds.case_seconds, room_bytes=room)
        for child, of in modules.items()
    }


def _numbers(
    corpora: Mapping[str, list[Good]], order: Sequence[str], only: int | None, goods_of: Collection[str]
) -> Iterator[tuple[str, int]]:
    if only is not None:
        yield _kind_of(order, only), only
        return
    for kind in goods_of:
        yield from ((kind, -1 - index) for index in range(len(corpora[kind])))
    for number in itertools.count():
        yield _kind_of(order, number), number


def _one(
    report: Report,
    lane: Lane,
    child: str,
    kind: str,
    goods: list[Good],
    number: int,
    folder: Path,
    keep: Path | None,
) -> None:
    """Makes a file, hands it out, counts what came of it, removes it."""
    if number < 0:
        good, data = goods[-1 - number], None
    else:
        good, data = damaged(goods, report.seed, number)
    folder.mkdir()
    laid_out(good, data, folder)
    case = Case(kind=kind, name=good.name, folder=folder, file=good.file, number=number, more=good.more)
    told = lane.run(case)
    report.starts[child] = lane.starts
    target = keep / f"{report.seed}_{number}_{good.name}" / Path(good.file).name if keep is not None else None
    if report.add(kind, good.name, number, told, child, str(target or "")):
        fault = report.faults[-1]
        logger.warning("%d, %s: %s in %s: %s", number, good.name, fault.what, fault.entry, fault.message)
        if target is not None and data is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    shutil.rmtree(folder)
