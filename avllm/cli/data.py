"""Commands about data to train on: data check, data preview."""

import argparse
import json
from pathlib import Path
from typing import Any

from avllm.cli.common import command, positive
from avllm.extras import require


def add(commands) -> None:
    """Adds them to the parser."""
    parser = commands.add_parser("data", help="look at your own data before you train on it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = command(actions, "check", _check, "read every entry and medium of a file, or of a stage's data sets")
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
    parser.add_argument(
        "file",
        type=Path,
        help="JSON or JSONL of conversations, QA or captions; a CSV or folder of WebVid; a folder with "
        "filter_cap.json; a tar or folder of them (WebDataset); or a stage's YAML, all of whose data sets are read",
    )
    parser.add_argument("overrides", nargs="*", metavar="A.B=C", help="of a stage, for example data.0.root=media")
    parser.add_argument("--media-root", type=Path, metavar="DIR", help="folder of the media (default: the file's)")
    parser.add_argument(
        "--model", help="system that is to be trained: a name or a folder (default: the stage's start, else nano)"
    )
    parser.add_argument("--form", choices=("train", "caption"), default="train", help="template (default: train)")
    parser.add_argument(
        "--sound", choices=("none", "auto", "require"), default="none", help="of videos, as of the stage (none)"
    )


def _open(args: argparse.Namespace) -> tuple[list[Any], Any, dict[str, Any]]:
    """Data sets, the processor of the system, and what the stage says of reading them."""
    from avllm.checkpoints.load import find_model
    from avllm.data import DATASETS
    from avllm.model import AvllmProcessor
    from avllm.training.stage import read_stage

    if args.file.suffix == ".yaml":
        stage, _ = read_stage(args.file, args.overrides, datasets=DATASETS)
        model, data = args.model or stage.starts[0], [*stage.data, *(stage.held_out.data if stage.held_out else ())]
        options = {"modality": stage.modality, "max_text_tokens": stage.max_text_tokens}
    else:
        model, data, options = args.model or "nano", [_dataset(args)], {}
    return data, AvllmProcessor.from_pretrained(find_model(model)), options


def _dataset(args: argparse.Namespace) -> Any:
    """The data set that a file or folder is, by what lies there."""
    from avllm.data import Conversations, ImageCaptions, WebDataset, WebVid

    path, said = args.file, {"form": args.form, "sound": args.sound}
    if path.suffix == ".csv" or any(path.glob("*.csv")):
        return WebVid.Config(annotations=str(path), videos=str(args.media_root or path / "videos"))
    if (path / "filter_cap.json").is_file():
        return ImageCaptions.Config(root=str(path))
    if path.suffix == ".tar" or any(path.glob("*.tar")):
        return WebDataset.Config(shards=str(path), **said)
    return Conversations.Config(annotations=str(path), root=str(args.media_root or path.parent), **said)


def _check(args: argparse.Namespace) -> int:
    from avllm.data.check import check, draw_lengths

    if args.histogram is not None:
        require("train", "matplotlib", purpose="--histogram")
    data, processor, options = _open(args)
    options |= {"max_text_tokens": args.max_text_tokens} if args.max_text_tokens else {}
    reports = [check(config, processor, max_unreadable=args.max_unreadable, **options) for config in data]
    lengths = [length for report in reports for length in report.lengths]
    if args.histogram is not None and lengths:
        draw_lengths(lengths, args.histogram)
    if args.json:
        plain = [report.to_dict() for report in reports]
        print(json.dumps(plain[0] if args.file.suffix != ".yaml" else plain, indent=2))
    else:
        print("\n".join(report.to_table() for report in reports))
    return 0 if all(report.ok for report in reports) else 1


def _preview(args: argparse.Namespace) -> int:
    from avllm.data.preview import preview

    data, processor, _ = _open(args)
    count = preview(data, processor, args.out, num_samples=args.samples)
    print(f"wrote {args.out} with {count} samples")
    return 0
