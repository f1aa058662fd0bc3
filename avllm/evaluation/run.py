"""The work of `avllm eval`: answer what is not answered yet, score everything, write the report."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tqdm import tqdm

import avllm
from avllm.chat.assistant import Assistant
from avllm.chat.perceiver import reading_through
from avllm.checkpoints.load import find_model
from avllm.config import to_plain
from avllm.data.annotations import read_json
from avllm.durable import in_use, write_whole
from avllm.errors import AvllmError, DataError
from avllm.evaluation import judge, submissions
from avllm.evaluation.answering import answer, assistant_of, described, grouped, processor_of, require_possible, scored
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.log import Log, Row, fingerprint
from avllm.evaluation.logged import check_report
from avllm.evaluation.page import page
from avllm.evaluation.report import Report
from avllm.evaluation.sample import Sample
from avllm.evaluation.scoring import measures
from avllm.extras import require
from avllm.media.isolated import reader_of

Engine = Literal["local", "ray"]
# What may differ between a run and the one that resumes it.
_FREE = {"batch", "workers", "limit", "shuffle_options", "out", "device", "score", "judge", "max_missing", "model"}
_FREE |= {"data", "name", "submission", "trusted_media"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do: samples, those answered already, and those without media."""

    samples: list[Sample]
    done: dict[str, Row]

    @property
    def missing(self) -> list[Sample]:
        """Samples of which a medium is not there."""
        return [sample for sample in self.samples if sample.missing]

    @property
    def todo(self) -> list[Sample]:
        """Samples to answer, those of one medium next to each other."""
        open_ones = [sample for sample in self.samples if sample.id not in self.done and not sample.missing]
        return [sample for group in grouped(open_ones) for sample in group]

    def describe(self, benchmark: Benchmark) -> str:
        """For `--dry-run`: counts, what is missing, and the first prompt."""
        absent = list(dict.fromkeys(path for sample in self.missing for path in sample.missing))
        lines = [
            f"{benchmark.name}: {len(self.samples)} samples about {len(grouped(self.samples))} media; "
            f"{len(self.done)} are answered in {benchmark.out}, {len(self.todo)} are to do with {benchmark.model}",
            f"{len(absent)} media of {len(self.missing)} samples are missing",
            *(f"  {path}" for path in absent[:20]),
            *([f"  and {len(absent) - 20} more"] if len(absent) > 20 else []),
        ]
        if self.samples:
            prompt = benchmark.prompt
            lines += ["the first prompt:", prompt.text(self.samples[0]) + prompt.answer_start]
        return "\n".join(lines)


def plan(benchmark: Benchmark, *, resume: bool = False) -> Plan:
    """Reads annotations and log; touches no media and no model.

    Raises:
        DataError: there is a log and `resume` is off, or its rows are of other samples.
    """
    samples, log = benchmark.samples(), Log(benchmark.out)
    done = log.rows()
    if (done or log.header()) and not resume:
        raise DataError(f"{benchmark.out} holds a run; go on with --resume, score it with --rescore, or set out=DIR")
    for sample in samples:
        if sample.id in done and done[sample.id].get("sample_hash") != described(sample)["sample_hash"]:
            raise DataError(f"{benchmark.out}: the sample {sample.id} is not what it was; set out=DIR to start anew")
    return Plan(samples=samples, done=done)


def evaluate(
    benchmark: Benchmark,
    *,
    resume: bool = False,
    assistant: Assistant | None = None,
    engine: Engine = "local",
    processes: int | None = None,
) -> Report | None:
    """Runs a benchmark. Processes started by torchrun share the samples, and the last one to end writes the report.

    Args:
        benchmark: what to run.
        resume: keeps the rows of an earlier run and answers the other samples.
        assistant: in place of the benchmark's model.
        engine: this process, or a Ray cluster.
        processes: of Ray; see `answer_on_ray`.

    Returns:
        the report; None in a process that ended while others were at work.

    Raises:
        DataError: the annotations are wrong, or the folder holds another run.
        InUse: another process writes into it; said before the model is loaded.
        DiskError: it cannot be written; the rows that are there are whole, and resume goes on from them.
        MissingPackage: that the submission or the judge needs.
        CheckpointError: there is no such model.
    """
    if benchmark.submission == "mmbench":
        require("eval", "openpyxl", purpose="submission: mmbench")
    if benchmark.judge.url:
        require("eval", "httpx", purpose="judge.url")
    rank, num_processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    with in_use(Path(benchmark.out)):
        log = Log(benchmark.out, rank=rank, num_processes=num_processes)
        return _evaluate(benchmark, log, resume=resume, assistant=assistant, engine=engine, processes=processes)


def _evaluate(
    benchmark: Benchmark,
    log: Log,
    *,
    resume: bool,
    assistant: Assistant | None,
    engine: Engine,
    processes: int | None,
) -> Report | None:
    rank, num_processes = log.rank, log.num_processes
    work = plan(benchmark, resume=resume or num_processes > 1)
    header = _header(benchmark, assistant)
    _check_same_run(log.header(), header, benchmark.out)
    if benchmark.judge.url:
        with benchmark.judge.endpoint():  # a key that is missing is said before the work
            pass
    # Shares are cut from all samples: what is answered already differs from process to process.
    mine = {sample.id for group in grouped(work.samples)[rank::num_processes] for sample in group}
    todo = [sample for sample in work.todo if sample.id in mine]
    if todo:
        with ExitStack() as stack:
            if engine == "local":
                assistant = _reading(benchmark, assistant, stack)
            require_possible(benchmark, todo, assistant.processor if assistant else processor_of(benchmark))
            out = stack.enter_context(log.appending(header))
            bar = stack.enter_context(tqdm(total=len(todo), unit="question", disable=None))
            for rows in _answers(benchmark, todo, assistant, processes):
                out.add(rows)
                bar.update(len(rows))
    elif log.path.exists():
        with log.appending(header):  # so that what a kill left of its lock goes
            pass
    rows = log.rows()
    if any(sample.id not in rows for sample in work.samples if not sample.missing):
        return None
    return _report(benchmark, rows, work.samples, header)


def _reading(benchmark: Benchmark, assistant: Assistant | None, stack: ExitStack) -> Assistant:
    """The assistant, with decoder processes unless media are trusted; they start while its model is loaded."""
    isolated = reader_of(trusted_media=benchmark.trusted_media, num_workers=benchmark.workers, starts=assistant is None)
    reader = stack.enter_context(isolated)
    return reading_through(assistant or assistant_of(benchmark), reader)


def _answers(
    benchmark: Benchmark, todo: Sequence[Sample], assistant: Assistant | None, processes: int | None
) -> Iterator[list[Row]]:
    if assistant is not None:
        return answer(benchmark, todo, assistant)
    from avllm.evaluation.on_ray import answer_on_ray

    return answer_on_ray(benchmark, todo, processes)


def rescore(benchmark: Benchmark) -> Report:
    """Scores the answers of a log anew, without model, media or annotations.

    Raises:
        DataError: there is no log.
    """
    log = Log(benchmark.out)
    header, rows = log.header(), log.rows()
    if not rows:
        raise DataError(f"{benchmark.out}: no log.jsonl with rows there; set out=DIR to the folder of a run")
    return _report(benchmark, rows, None, header)


def _report(
    benchmark: Benchmark, rows: Mapping[str, Row], samples: Sequence[Sample] | None, header: Mapping[str, Any]
) -> Report:
    wanted = list(rows) if samples is None else [sample.id for sample in samples if sample.id in rows]
    kept = [rows[name] for name in wanted]
    kept = [row if "error" in row else {**row, **_scored_anew(benchmark, row)} for row in kept]
    path = Path(benchmark.out) / "report.json"
    if samples is None:
        before = read_json(path) if path.is_file() else {}
        check_report(before, str(path))
        absent, num_without_media = before.get("missing_media", []), before.get("without_media", 0)
    else:
        absent = list(dict.fromkeys(path for sample in samples for path in sample.missing))
        num_without_media = sum(bool(sample.missing) for sample in samples if not sample.shuffle_of)
    failed: AvllmError | None = None
    if benchmark.judge.url:
        try:
            judge.ask(benchmark.judge, kept, Path(benchmark.out))
        except AvllmError as error:  # the report is written all the same
            failed = error
    kept, judges = judge.judged(Path(benchmark.out), kept)
    published, shuffled = _parted(kept)
    report = Report(
        name=benchmark.name,
        rows=published,
        shuffled=shuffled,
        measures=measures(benchmark.score, [row for row in published if "error" not in row]),
        missing=tuple(absent),
        num_without_media=num_without_media,
        max_missing=benchmark.max_missing,
        run=dict(header),
        judges=judges,
    )
    if benchmark.submission:
        submissions.write(benchmark.submission, report.answered, path.parent, Path(benchmark.data.folder))
    write_whole(path, report.to_json())
    write_whole(path.with_suffix(".html"), page([report]))
    if failed is not None:
        raise failed
    return report


def _scored_anew(benchmark: Benchmark, row: Row) -> Row:
    try:
        return scored(benchmark, row)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{benchmark.out}: the row {row['id']} lacks what it is scored by ({type(error).__name__}: {error}); "
            f"set out=DIR to another folder"
        ) from error


def _parted(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows with their options in the published order, and in others; each in the order of their ids."""
    ordered = sorted(rows, key=lambda row: row["id"])
    return tuple(r for r in ordered if "shuffle_of" not in r), tuple(r for r in ordered if "shuffle_of" in r)


def stored(folder: str | Path) -> Report:
    """The report of a run that ended, with the scores that its log holds.

    Raises:
        DataError: there is no log.
    """
    log = Log(folder)
    header, rows = log.header(), list(log.rows().values())
    if not rows:
        raise DataError(f"{folder}: no log.jsonl with rows there; expected the folder of a run of avllm eval")
    if not isinstance(header.get("benchmark"), dict) or "name" not in header["benchmark"]:
        raise DataError(f"{folder}: its log does not begin as one of avllm eval; expected the folder of a run")
    rows, judges = judge.judged(Path(folder), rows)
    rows, shuffled = _parted(rows)
    return Report(
        name=header["benchmark"]["name"],
        rows=rows,
        shuffled=shuffled,
        missing=(),
        num_without_media=0,
        max_missing=1.0,
        run=header,
        judges=judges,
    )


def _header(benchmark: Benchmark, assistant: Assistant | None) -> dict[str, Any]:
    """What answers depend on, and the versions they came from."""
    plain = to_plain(benchmark)
    folder = None if assistant is not None else find_model(benchmark.model)
    return {
        "benchmark": plain,
        "model": assistant.name if assistant is not None else benchmark.model,
        "weights": fingerprint(folder) if folder is not None else "",
        "versions": {
            "avllm": avllm.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def _check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], out: str) -> None:
    """A log goes on only with what it was begun with: the same weights, prompt and frames."""
    if not before:
        return
    old, new = (
        {"weights": header.get("weights"), **{k: v for k, v in header.get("benchmark", {}).items() if k not in _FREE}}
        for header in (before, now)
    )
    changed = [key for key in new if old.get(key) != new[key]]
    if changed:
        raise DataError(f"{out} holds a run with another {', '.join(changed)}; set out=DIR to start a new one")
