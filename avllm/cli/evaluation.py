"""Commands that measure: eval."""

import argparse

from avllm.cli.common import command

TOO_MUCH_MISSING = 3  # exit code


def add(commands) -> None:
    """Adds them to the parser."""
    parser = command(commands, "eval", _eval, "run a benchmark from its YAML")
    parser.add_argument("benchmark", help="a benchmark's YAML, for example eval_configs/nano.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="A.B=C", help="overrides, for example model=DIR limit=60 out=DIR"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="keep the answers of an interrupted run")
    how.add_argument("--dry-run", action="store_true", help="check annotations and media, show a prompt, run nothing")
    how.add_argument("--rescore", action="store_true", help="score the answers of a run again, without its model")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _eval(args: argparse.Namespace) -> int:
    from avllm.evaluation import benchmark, run
    from avllm.nano.benchmark import READERS  # nano's world beside the published benchmarks

    found = benchmark.read_benchmark(args.benchmark, args.overrides, READERS)
    if args.dry_run:
        work = run.plan(found, resume=True)
        print(work.describe(found))
        return 0 if len(work.missing) <= found.max_missing * len(work.samples) else TOO_MUCH_MISSING
    report = run.rescore(found) if args.rescore else run.evaluate(found, resume=args.resume)
    if report is None:
        return 0
    print(report.to_json() if args.json else f"{report.to_table()}\nwrote {found.out}/report.json")
    return 0 if report.ok else TOO_MUCH_MISSING
