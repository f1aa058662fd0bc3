"""`python -m tests.fuzz --seconds N --seed S`: damaged files of every kind that avllm takes, until the time is up."""

import argparse
import logging
import sys
import time
from pathlib import Path

from tests.fuzz.run import KINDS, Bounds, fuzz


def main() -> int:
    """Returns 1 if anything crashed, hung, grew, or raised what is no error of avllm's own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, help="stop after so many")
    parser.add_argument("--files", type=int, help="stop after so many damaged files")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86_400, help="default: that of the day")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this file of one kind alone, as a report says")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="gets the files that made a fault")
    parser.add_argument("--case-seconds", type=float, default=180.0, help="for one file (default: 180)")
    parser.add_argument("--memory-mib", type=int, default=768, help="that one file may take (default: 768)")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"--kinds: {unknown[0]!r} is unknown, known are: {', '.join(KINDS)}")
    if args.only is not None and len(kinds) > 1:
        parser.error("--only: goes with one kind; name it with --kinds")
    if args.seconds is None and args.files is None and args.only is None:
        args.seconds = 60.0
    logging.basicConfig(format="%(message)s")
    bounds = Bounds(files=args.files, seconds=args.seconds, case_seconds=args.case_seconds, memory_mib=args.memory_mib)
    report = fuzz(args.seed, bounds, kinds=kinds, only=args.only, keep=args.keep)
    print(report.to_text())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
