"""The command `avllm`: parsing only. What a command does lives in the layer that it names."""

import argparse
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence

from avllm import __version__
from avllm.cli import chat, data, environment, evaluation, models, training
from avllm.cli.common import Parser
from avllm.durable import told_of_disk
from avllm.errors import AvllmError, in_one_line, own_message
from avllm.extras import missing
from avllm.imports import collector_paused, models_listed_once
from avllm.terminal import say, visible

# The commands import their layer inside the function: `avllm --help` must not wait for torch.
_WHERE = "; --verbose shows where"
_VERBOSE = ("-v", "--verbose")


def script() -> int:
    """Runs the command line as a process of its own, which ends with it; see `main`."""
    code = main()
    gc.freeze()  # What is left dies with the process; the interpreter need not look for garbage in it once more.
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 success; 1 the work failed (one line says why); 2 the command line is wrong; 130 stopped by Ctrl-C.
    """
    parser = _parser()
    given, is_verbose = _without_verbose(sys.argv[1:] if argv is None else argv)
    args, left = parser.parse_known_args(given)
    # argparse takes a list of positional arguments in one piece; overrides may stand behind options, too.
    if left and not (hasattr(args, "overrides") and all("=" in text and text[0] != "-" for text in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        args.overrides += left
    args.verbose = args.verbose or is_verbose
    _log(args)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        if not args.is_light:
            _import_models()
        return args.run(args) or 0
    except AvllmError as error:
        return _fail(args, own_message(error))
    except KeyboardInterrupt as stopped:
        say(f"avllm: {stopped}" if str(stopped) else "avllm: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `avllm probe x | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        return _fail(args, missing(error))
    except Exception as error:
        of_disk = told_of_disk(error)
        if of_disk is not None:
            return _fail(args, of_disk)
        if isinstance(error, OSError) and error.strerror:  # what the operating system says
            return _fail(args, f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
        # Nobody foresaw it. A traceback helps only those who ask for one.
        return _fail(args, in_one_line(error) + ("" if args.verbose else _WHERE))


def _import_models() -> None:
    """Imports what takes long of every layer that needs models, and spares the garbage collector what it brings."""
    if "avllm.model" not in sys.modules:
        with collector_paused(), models_listed_once():
            importlib.import_module("avllm.model")
            gc.freeze()


class _Visible(logging.Formatter):
    """What is logged is text, never a command to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Lines(_Visible):
    """One line for each fault that is logged, without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            message = f"{record.getMessage()}: {in_one_line(error)}{_WHERE}"
            plain = {"msg": message, "args": None, "exc_info": None, "exc_text": None}
            record = logging.makeLogRecord(record.__dict__ | plain)
        return super().format(record)


def _log(args: argparse.Namespace) -> None:
    """How everything is logged from here on, also by threads that end with an error."""
    form = "%(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible(form) if args.verbose else _Lines(form))
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, handlers=[handler])
    if not args.verbose:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # advertises another package at import

    def log_end(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not SystemExit:
            name = ended.thread.name if ended.thread is not None else "?"
            logging.error("the thread %s ended", name, exc_info=ended.exc_value)

    threading.excepthook = log_end


def _fail(args: argparse.Namespace, message: str) -> int:
    if args.verbose:
        logging.exception("the traceback, as --verbose was given")
    say(f"avllm {args.command}: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _without_verbose(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The flag counts wherever it stands, also in front of the command; behind `--` everything is a word."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in _VERBOSE]
    return kept + words[end:], len(kept) < end


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="avllm",
        description="Ask audio-visual language models about videos, sounds and images; train and check them.",
        epilog="Exit codes: 0 done (`run` also when rows are errors), 1 it failed, as one line says, 2 wrong options, "
        "130 stopped by Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"avllm {__version__}")
    parser.add_argument(*_VERBOSE, action="store_true", help="log more, show tracebacks; anywhere on the line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (chat, models, data, training, evaluation, environment):
        group.add(commands)
    return parser
