"""The command `avllm`: parsing only. What a command does lives in the layer that it names."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from avllm import __version__
from avllm.errors import AvllmError

# The commands import their layer inside the function: `avllm --help` must not wait for torch.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 success; 1 the work failed (one line says why); 2 the command line is wrong; 130 stopped by Ctrl-C.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
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
    extras = {"gradio": "demo", "accelerate": "train", "matplotlib": "train", "peft": "train"}
    extra = extras.get((error.name or "").partition(".")[0])
    advice = f"; install it with: pip install 'avllm[{extra}]'" if extra else ""
    return f"the package {error.name!r} is not installed{advice}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avllm",
        description="Ask audio-visual language models about videos, sounds and images; train and check them.",
    )
    parser.add_argument("--version", action="version", version=f"avllm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_ask, _add_demo, _add_probe, _add_train, _add_nano):
        add(commands)
    return parser


def _command(
    commands, name: str, run: Callable[[argparse.Namespace], int | None], summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, show tracebacks")
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number


def _add_ask(commands) -> None:
    parser = _command(commands, "ask", _ask, "ask questions about a video, sound or image")
    parser.add_argument("media", help="a video, audio or image file, or a folder of frames")
    parser.add_argument(
        "questions",
        nargs="+",
        metavar="QUESTION",
        help="one or more questions, asked in turn; - reads them from standard input",
    )
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument(
        "--audio",
        choices=("auto", "require", "off"),
        default="auto",
        help="use the sound: if there is any, always, never",
    )
    parser.add_argument("--frames", type=_positive, help="how many frames to look at (default: the model's)")
    parser.add_argument("--max-new-tokens", type=_positive, default=None, help="the longest answer, in tokens")
    parser.add_argument("--json", action="store_true", help="one JSON object per question")


def _ask(args: argparse.Namespace) -> int:
    from avllm.chat.ask import ask

    questions = [
        line for q in args.questions for line in (sys.stdin.read().splitlines() if q == "-" else [q]) if line.strip()
    ]
    for reply in ask(
        args.media,
        questions,
        model=args.model,
        audio=args.audio,
        num_frames=args.frames,
        max_new_tokens=args.max_new_tokens,
    ):
        print(json.dumps(reply.to_dict()) if args.json else reply.answer, flush=True)
    return 0


def _add_demo(commands) -> None:
    parser = _command(commands, "demo", _demo, "chat in the browser (Gradio)")
    parser.add_argument(
        "--cfg-path",
        metavar="YAML",
        default="nano_withaudio",
        help="an inference YAML of eval_configs/ (default: nano_withaudio)",
    )
    parser.add_argument("--model", default=None, help="a name or a folder, in place of the YAML's")
    parser.add_argument("--host", default=None, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default: 7860 or the next free one)")
    parser.add_argument("--options", nargs="*", default=[], metavar="A.B=C", help="overrides of the YAML")


def _demo(args: argparse.Namespace) -> int:
    from avllm.demo import serve

    return serve(args.cfg_path, model=args.model, host=args.host, port=args.port, overrides=args.options)


def _add_probe(commands) -> None:
    parser = _command(commands, "probe", _probe, "show what is in a media file: streams, codecs, times, sizes")
    parser.add_argument("file", help="a media file or a folder of frames")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _probe(args: argparse.Namespace) -> int:
    from avllm.media import probe

    info = probe(args.file)
    print(json.dumps(info.to_dict(), indent=2) if args.json else info.to_table())
    return 0


def _add_train(commands) -> None:
    parser = _command(commands, "train", _train, "train one stage from its YAML")
    parser.add_argument("stage", help="a stage YAML, for example train_configs/nano/video_stage1.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="A.B=C", help="overrides, for example schedule.lr=1.0e-4 output=runs/a"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of the output folder")


def _train(args: argparse.Namespace) -> int:
    from avllm.nano.data import DATASETS  # nano's own kinds of data set beside the published ones
    from avllm.training import train

    folder = train(args.stage, args.overrides, resume=args.resume, datasets=DATASETS)
    print(f"saved {folder}; try: avllm ask CLIP QUESTION --model {folder}")
    return 0


def _add_nano(commands) -> None:
    parser = commands.add_parser("nano", help="the small system that ships: its world, how it is built, how good it is")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    sample = _command(actions, "sample", _nano_sample, "write clips of nano's world and their truth.jsonl")
    sample.add_argument("dir", type=Path, help="folder to write to")
    sample.add_argument("--clips", type=_positive, default=20, help="how many (default: 20)")
    sample.add_argument("--seed", type=int, default=0, help="the same seed gives the same clips (default: 0)")

    build = _command(actions, "build", _nano_build, "train nano from nothing: stage 0, then the four stages")
    build.add_argument(
        "--out", type=Path, default=Path("outputs/nano"), help="folder of the build (default: outputs/nano)"
    )
    build.add_argument("--seed", type=int, default=0, help="seed of all parts (default: 0)")
    build.add_argument("--resume", action="store_true", help="go on where an interrupted build stopped")
    build.add_argument("--quick", action="store_true", help="a shortened build of a few minutes, as CI runs it")

    score = _command(actions, "score", _nano_score, "accuracy on unseen clips, by type of question")
    score.add_argument("--clips", type=_positive, default=500, help="how many clips (default: 500)")
    score.add_argument("--seed", type=int, default=0, help="seed of the clips and the wording (default: 0)")
    score.add_argument("--from", dest="source", type=Path, metavar="DIR", help="score a folder made by nano sample")
    score.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    score.add_argument("--json", action="store_true", help="print JSON")


def _nano_sample(args: argparse.Namespace) -> int:
    from avllm.nano.sample import sample

    truth = sample(args.dir, num_clips=args.clips, seed=args.seed)
    print(f"wrote {args.clips} clips and {truth}")
    return 0


def _nano_build(args: argparse.Namespace) -> int:
    from avllm.nano.build import build

    folder = build(args.out, seed=args.seed, resume=args.resume, quick=args.quick)
    print(f"built {folder}; measure it with: avllm nano score --model {folder}")
    return 0


def _nano_score(args: argparse.Namespace) -> int:
    from avllm.nano.score import score

    result = score(num_clips=args.clips, seed=args.seed, source=args.source, model=args.model)
    print(json.dumps(result.to_dict(), indent=2) if args.json else result.to_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
