"""Commands about data to train on: data check, data preview."""

import argparse
import json
from pathlib import Path
from typing import Any

from avllm.cli.common import command, positive


def add(commands) -> None:
    """Adds them to the parser."""
    parser = commands.add_parser("data", help="look at your own data before you train on it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = command(actions, "check", _check, "read every entry and medium of a file as a stage would")
    _add_source(check)
    check.add_argument("--max-text-tokens", type=positive, help="as of the stage (default: without limit)")
    check.add_argument(
        "--max-unreadable", type=float, default=0.01, help="allowed share of entries with unreadable media (0.01)"
    )
    check.add_argument("--histogram", type=Path, metavar="PNG", help="draw the lengths of the entries")
    check.add_argument("--json", action="store_true", help="print JSON with all faults")

    preview = command(actions, "preview", _preview, "show samples with their ids and labels on a page of HTML")
    _add_source(preview)
    preview.add_argument("--out", type=Path, default=Path("preview.html"), help="the page (default: preview.html)")
    preview.add_argument("--samples", type=positive, default=8, help="how many (default: 8)")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="JSON or JSONL: conversations, messages, QA or captions with media")
    parser.add_argument("--media-root", type=Path, metavar="DIR", help="folder of the media (default: the file's)")
    parser.add_argument("--model", default="nano", help="system that is to be trained: a name or a folder (nano)")
    parser.add_argument("--form", choices=("train", "caption"), default="train", help="template (default: train)")
    parser.add_argument(
        "--sound", choices=("none", "auto", "require"), default="none", help="of videos, as of the stage (none)"
    )


def _open(args: argparse.Namespace) -> tuple[Any, Any]:
    from avllm.checkpoints.load import find_model
    from avllm.data import Conversations
    from avllm.model import AvllmProcessor

    root = args.media_root or args.file.parent
    config = Conversations.Config(annotations=str(args.file), root=str(root), form=args.form, sound=args.sound)
    return config, AvllmProcessor.from_pretrained(find_model(args.model))


def _check(args: argparse.Namespace) -> int:
    from avllm.data.check import check, draw_lengths

    limits = {"max_text_tokens": args.max_text_tokens, "max_unreadable": args.max_unreadable}
    report = check(*_open(args), **limits)
    if args.histogram is not None and report.lengths:
        draw_lengths(report.lengths, args.histogram)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report.to_table())
    return 0 if report.ok else 1


def _preview(args: argparse.Namespace) -> int:
    from avllm.data.preview import preview

    count = preview(*_open(args), args.out, num_samples=args.samples)
    print(f"wrote {args.out} with {count} samples")
    return 0
