"""Commands that answer: ask, chat, run, demo, probe."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from avllm.cli.common import add_trusted_media, command, positive
from avllm.errors import DataError, DiskError
from avllm.terminal import say

AUDIO = ("auto", "require", "off")


def add(commands) -> None:
    """Adds them to the parser."""
    for add_one in (_add_ask, _add_chat, _add_run, _add_demo, _add_probe):
        add_one(commands)


def _add_ask(commands) -> None:
    parser = command(commands, "ask", _ask, "ask questions about a video, sound or image")
    parser.add_argument("media", help="a video, audio or image file, or a folder of frames")
    parser.add_argument(
        "questions",
        nargs="+",
        metavar="QUESTION",
        help="one or more questions, asked in turn; - reads them from standard input",
    )
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument("--audio", choices=AUDIO, default="auto", help="use the sound: if there is any, always, never")
    parser.add_argument("--json", action="store_true", help="one JSON object per question")
    _add_reading(parser)
    _add_generation(parser)


def _ask(args: argparse.Namespace) -> int:
    from avllm.chat.ask import ask

    asked = [line for q in args.questions for line in (_lines_of_stdin() if q == "-" else [q])]
    questions = [question for question in asked if question.strip()]
    if not questions:
        raise DataError("expected a question, got an empty one")
    options = {**_reading(args), **_generation(args)}
    for reply in ask(args.media, questions, model=args.model, audio=args.audio, **options):
        say(json.dumps(reply.to_dict()) if args.json else reply.answer)
    return 0


def _lines_of_stdin() -> list[str]:
    """Questions, one on a line; only a line feed ends one."""
    return [line.removesuffix("\r") for line in sys.stdin.read().removeprefix("\ufeff").split("\n")]


def _add_chat(commands) -> None:
    parser = command(commands, "chat", _chat, "chat about videos, sounds and images in the terminal")
    parser.add_argument("media", nargs="*", metavar="MEDIA", help="files to look at first")
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument("--audio", choices=AUDIO, default="auto", help="use the sound of videos (default: auto)")
    parser.add_argument("--system", help="system text, in place of the model's")
    parser.add_argument("--forget", action="store_true", help="forget the oldest turns when the context is full")
    _add_reading(parser)
    _add_generation(parser)


def _chat(args: argparse.Namespace) -> int:
    from avllm.chat.console import chat

    overflow = "drop_oldest_turn" if args.forget else "error"
    options = {**_reading(args), **_generation(args)}
    return chat(args.media, model=args.model, audio=args.audio, system=args.system, overflow=overflow, **options)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=positive, help="how many frames to look at (default: the model's)")
    parser.add_argument("--fps", type=float, help="frames per second to look at, in place of a number")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="where the part begins that is looked at")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="where it ends; picture and sound alike")


def _reading(args: argparse.Namespace) -> dict[str, Any]:
    return {"num_frames": args.frames, "fps": args.fps, "start_s": args.start, "end_s": args.end}


def _add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=positive, help="the longest answer, in tokens")
    parser.add_argument("--temperature", type=float, help="draw answers, the wilder the higher; 0 is greedy (default)")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this share")
    parser.add_argument("--beams", type=positive, help="beam search with so many beams")
    parser.add_argument("--seed", type=int, help="of what is drawn")


def _generation(args: argparse.Namespace) -> dict[str, Any]:
    names = {name: name for name in ("max_new_tokens", "temperature", "top_p", "seed")} | {"num_beams": "beams"}
    return {name: getattr(args, given) for name, given in names.items()}


def _add_run(commands) -> None:
    parser = command(commands, "run", _run, "answer a file of questions, one JSON object per line")
    parser.add_argument(
        "source", type=Path, metavar="IN.jsonl", help='lines {"id", "video"|"image"|"audio", "question"}'
    )
    parser.add_argument("target", type=Path, metavar="OUT.jsonl", help='gets {"id", "answer", ...} or {"id", "error"}')
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument("--workers", type=positive, default=1, help="threads that read media ahead (default: 1)")
    parser.add_argument("--batch", type=positive, default=8, help="questions answered side by side (default: 8)")
    parser.add_argument("--resume", action="store_true", help="keep the rows that OUT holds, answer the others")
    parser.add_argument("--audio", choices=AUDIO, default="auto", help="use the sound of videos (default: auto)")
    parser.add_argument("--media-root", type=Path, default=Path(), help="folder that relative paths start from")
    add_trusted_media(parser)
    _add_reading(parser)
    _add_generation(parser)


def _run(args: argparse.Namespace) -> int:
    from avllm.chat.run import run

    names = ("model", "workers", "batch", "resume", "audio", "media_root", "trusted_media")
    options = {name: getattr(args, name) for name in names}
    try:
        summary = run(args.source, args.target, **options, **_reading(args), **_generation(args))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; go on with: {_again(args)}") from None
    except DiskError as error:
        more = f"; then go on with: {_again(args)}" if os.path.exists(args.target) else ""
        raise DiskError(f"{error}{more}") from error
    say(summary)
    if summary.warning:
        say(f"avllm run: {summary.warning}", file=sys.stderr)
    return 0


def _again(args: argparse.Namespace) -> str:
    return f"avllm run {args.source} {args.target} --resume"


def _add_demo(commands) -> None:
    parser = command(commands, "demo", _demo, "chat in the browser (Gradio)")
    parser.add_argument(
        "--cfg-path",
        metavar="YAML",
        default="nano_withaudio",
        help="an inference YAML of eval_configs/ (default: nano_withaudio)",
    )
    parser.add_argument("--model", default=None, help="a name or a folder, in place of the YAML's")
    parser.add_argument("--host", default=None, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default: 7860 or the next free one)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further name under which the page may be called, for a proxy before it; *.NAME for all below it",
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="A.B=C", help="overrides of the YAML")


def _demo(args: argparse.Namespace) -> int:
    from avllm.demo import serve

    return serve(
        args.cfg_path,
        model=args.model,
        host=args.host,
        port=args.port,
        allowed_hosts=args.allow_host,
        overrides=args.options,
    )


def _add_probe(commands) -> None:
    parser = command(
        commands, "probe", _probe, "show what is in a media file: streams, codecs, times, sizes", is_light=True
    )
    parser.add_argument("file", help="a media file or a folder of frames")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _probe(args: argparse.Namespace) -> int:
    from avllm.media import probe

    info = probe(args.file)
    say(json.dumps(info.to_dict(), indent=2) if args.json else info.to_table())
    return 0
