"""`python -m tests.kill COMMAND ...`: kill -9 at random moments, resumed until done, compared with a run in peace."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tqdm import tqdm

from tests.kill.commands import COMMANDS
from tests.kill.run import Killed


def main() -> int:
    """Returns 1 if anything was lost, doubled, left over or different."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of: {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--kills", type=int, default=10, help="of each command (default: 10)")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86_400, help="default: that of the day")
    parser.add_argument("--two", action="store_true", help="also two processes at once on one output")
    parser.add_argument("--warm", action="store_true", help="forks of one process in place of new interpreters: sooner")
    args = parser.parse_args()
    unknown = [name for name in args.commands if name not in COMMANDS]
    if unknown:
        parser.error(f"{unknown[0]!r} is unknown, known are: {', '.join(COMMANDS)}")
    ok = True
    print(f"seed {args.seed}", flush=True)
    for name in args.commands or COMMANDS:
        with tempfile.TemporaryDirectory(prefix="avllm-kill-") as root, tqdm(total=args.kills, disable=None) as bar:
            bar.set_description(name)
            killed = Killed(name, Path(root) / name, warm=args.warm, tell=lambda text, bar=bar: bar.update() and None)
            killed.run_whole()
            killed.run_killed(args.kills, Random(f"{args.seed}/{name}"))
            if args.two:
                killed.run_two()
        print(killed.result.to_text(), flush=True)
        ok &= not killed.result.faults
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
