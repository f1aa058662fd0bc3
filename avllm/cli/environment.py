"""The command about the installation itself: env."""

import argparse
import json

from avllm.cli.common import command
from avllm.terminal import say


def add(commands) -> None:
    """Adds it to the parser."""
    parser = command(
        commands, "env", _env, "releases, devices, codecs and what is broken, for a report of a fault", is_light=True
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _env(args: argparse.Namespace) -> int:
    from avllm.environment import read_environment

    found = read_environment()
    say(json.dumps(found.to_dict(), indent=2) if args.json else found.to_text())
    return 0
