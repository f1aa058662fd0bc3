"""Commands that measure: eval, compare."""

import argparse
from pathlib import Path

from avllm.cli.common import command, positive
from avllm.errors import ConfigError, DataError

TOO_MUCH_MISSING = 3  # exit code


def add(commands) -> None:
    """Adds them to the parser."""
    for add_one in (_add_eval, _add_compare):
        add_one(commands)


def _add_eval(commands) -> None:
    parser = command(commands, "eval", _eval, "run a benchmark from its YAML")
    parser.add_argument("benchmark", help="a benchmark's YAML, for example eval_configs/nano.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="A.B=C", help="overrides, for example model=DIR limit=60 out=DIR"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="keep the answers of an interrupted run")
    how.add_argument("--dry-run", action="store_true", help="check annotations and media, show a prompt, run nothing")
    how.add_argument("--rescore", action="store_true", help="score the answers of a run again, without its model")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this process, or a Ray cluster")
    parser.add_argument(
        "--processes", type=positive, help="of Ray (default: one for each GPU, or for every second core)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _eval(args: argparse.Namespace) -> int:
    from avllm.evaluation import benchmark, run
    from avllm.nano.benchmark import READERS  # nano's world beside the published benchmarks

    _require_used(args)
    found = benchmark.read_benchmark(args.benchmark, args.overrides, READERS)
    if args.dry_run:
        work = run.plan(found, resume=True)
        print(work.describe(found))
        return 0 if len(work.missing) <= found.max_missing * len(work.samples) else TOO_MUCH_MISSING
    if args.rescore:
        report = run.rescore(found)
    else:
        report = run.evaluate(found, resume=args.resume, engine=args.engine, processes=args.processes)
    if report is None:
        return 0
    files = ", ".join(["report.json", "report.html", *(["the server's file"] if found.submission else [])])
    print(report.to_json() if args.json else f"{report.to_table()}\nwrote {files} to {found.out}")
    return 0 if report.ok else TOO_MUCH_MISSING


def _require_used(args: argparse.Namespace) -> None:
    """Raises ConfigError for an option that would have no effect."""
    asks = not (args.dry_run or args.rescore)
    for option, given, is_used, why in (
        ("--engine", args.engine != "local", asks, "a run that answers"),
        ("--processes", args.processes is not None, args.engine == "ray", "--engine ray"),
        ("--json", args.json, not args.dry_run, "a run that writes a report"),
    ):
        if given and not is_used:
            raise ConfigError(f"{option}: it goes with {why}")


def _add_compare(commands) -> None:
    parser = command(commands, "compare", _compare, "compare runs of a benchmark, with a paired test", is_light=True)
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="folders of runs of avllm eval")
    parser.add_argument("--out", type=Path, help="also write a page, for example compare.html")


def _compare(args: argparse.Namespace) -> int:
    from avllm.durable import write_whole
    from avllm.evaluation.page import page, paired, run_names
    from avllm.evaluation.run import stored

    reports = [stored(folder) for folder in args.runs]
    if len({report.name for report in reports}) > 1:
        raise DataError(f"expected runs of one benchmark, got {', '.join(report.name for report in reports)}")
    names = run_names(reports)
    for name, report in zip(names, reports, strict=True):
        print(f"{name}: {report.overall.percent()}, n {report.overall.n}")
    for name, report in zip(names[1:], reports[1:], strict=True):
        found = paired(reports[0], report)
        if found is None:
            print(f"{names[0]} and {name} have no sample in common")
            continue
        gap = f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        print(f"{names[0]} minus {name}: {gap}, p {found.p:.4f}, on {found.n} samples of both")
    if args.out:
        write_whole(args.out, page(reports))
        print(f"wrote {args.out}")
    return 0
