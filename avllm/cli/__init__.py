"""The command `avllm`: parsing only. What a command does lives in the layer that it names."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from avllm import __version__
from avllm.cli import chat, data, evaluation, models, training
from avllm.errors import AvllmError

# The commands import their layer inside the function: `avllm --help` must not wait for torch.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 success; 1 the work failed (one line says why); 2 the command line is wrong; 130 stopped by Ctrl-C.
    """
    parser = _parser()
    args, left = parser.parse_known_args(argv)
    # argparse takes a list of positional arguments in one piece; overrides may stand behind options, too.
    if left and not (hasattr(args, "overrides") and all("=" in text and text[0] != "-" for text in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        args.overrides += left
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if not args.verbose:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # advertises another package at import
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        return args.run(args) or 0
    except AvllmError as error:
        return _fail(args, str(error))
    except KeyboardInterrupt as stopped:
        print(f"avllm: {stopped}" if str(stopped) else "avllm: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `avllm probe x | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(args, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except ModuleNotFoundError as error:
        return _fail(args, _missing_extra(error))


def _fail(args: argparse.Namespace, message: str) -> int:
    if args.verbose:
        logging.exception("the traceback, as --verbose was given")
    print(f"avllm {args.command}: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _missing_extra(error: ModuleNotFoundError) -> str:
    extras = {"gradio": "demo", "accelerate": "train", "matplotlib": "train", "peft": "train", "httpx": "eval"}
    extras |= {"ray": "ray", "bitsandbytes": "quant"}
    extra = extras.get((error.name or "").partition(".")[0])
    advice = f"; install it with: pip install 'avllm[{extra}]'" if extra else ""
    return f"the package {error.name!r} is not installed{advice}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avllm",
        description="Ask audio-visual language models about videos, sounds and images; train and check them.",
        epilog="Exit codes: 0 done (`run` also when rows are errors), 1 it failed, as one line says, 2 wrong options, "
        "130 stopped by Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"avllm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (chat, models, data, training, evaluation):
        group.add(commands)
    return parser
