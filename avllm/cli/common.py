"""What the commands share: a parser with the usual options, types of arguments."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from avllm.terminal import say


class Parser(argparse.ArgumentParser):
    """A parser that shows wrong arguments as text, whatever a terminal would make of them."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            say(message, end="", file=file or sys.stderr)


def command(
    commands, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, *, is_light: bool = False
) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
        commands: what `add_subparsers` gave.
        name: of the command.
        run: does the work; its result is the exit code.
        summary: its line in the list of commands.
        is_light: it does without torch and transformers.
    """
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, show tracebacks")
    parser.set_defaults(run=run, is_light=is_light)
    return parser


def add_trusted_media(parser: argparse.ArgumentParser) -> None:
    """Adds the flag for files whose makers are trusted."""
    parser.add_argument(
        "--trusted-media",
        action="store_true",
        help="decode in this process, a little faster; else in others, which a harmful file can do less harm in",
    )


def positive(text: str) -> int:
    """A whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number
