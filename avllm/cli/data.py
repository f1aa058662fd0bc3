"""Commands about data to train on: data check, data preview."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avllm.cli.common import add_trusted_media, command, positive
from avllm.config import find_file
from avllm.errors import ConfigError
from avllm.extras import require
from avllm.terminal import say


def add(commands) -> None:
    """Adds them to the parser."""
    parser = commands.add_parser("data", help="look at your own data before you train on it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = command(actions, "check", _check, "read every entry and medium of a file, or of a stage's data sets")
    _add_source(check)
    check.add_argument("--max-text-tokens", type=positive, help="as of the stage (default: without limit)")
    check.add_argument(
        "--max-unreadable",
        type=share,
        help="share of entries whose media may be unreadable (default: the stage's, or 0.01)",
    )
    check.add_argument("--histogram", type=Path, metavar="PNG", help="draw the lengths of the entries")
    check.add_argument("--json", action="store_true", help="print JSON with all faults")

    preview = command(actions, "preview", _preview, "show samples with their ids and labels on a page of HTML")
    _add_source(preview)
    preview.add_argument("--out", type=Path, default=Path("preview.html"), help="the page (default: preview.html)")
    preview.add_argument("--samples", type=positive, default=8, help="how many (default: 8)")


def share(text: str) -> float:
    """A share from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return number


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="JSON or JSONL of conversations, QA or captions; a CSV or folder of WebVid; a folder with "
        "filter_cap.json; a tar or folder of them (WebDataset); or a stage by its YAML or name, with all its data sets",
    )
    parser.add_argument("overrides", nargs="*", metavar="A.B=C", help="of a stage, for example data.0.root=media")
    parser.add_argument("--media-root", type=Path, metavar="DIR", help="folder of the media (default: the file's)")
    parser.add_argument(
        "--model", help="system that is to be trained: a name or a folder (default: the stage's start, else nano)"
    )
    parser.add_argument("--form", choices=("train", "caption"), help="template (default: train)")
    parser.add_argument(
        "--sound", choices=("none", "auto", "require"), help="of videos, as of the stage (default: none)"
    )
    parser.add_argument(
        "--ignore", action="append", metavar="KEY", help="a key of entries that is left out; may be given again"
    )
    add_trusted_media(parser)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What is to be looked at.

    Args:
        data: data sets.
        context: for reading them, with the processor of the system.
        options: what the stage says of their samples.
        max_ids: that the decoder holds.
        is_stage: whether they are those of a stage.
        trusted_media: whether this process decodes them.
    """

    data: Sequence[Any]
    context: Any
    options: Mapping[str, Any]
    max_ids: int | None
    is_stage: bool
    trusted_media: bool


def _open(args: argparse.Namespace) -> _Opened:
    from avllm.checkpoints.load import find_model, load_config, open_processor
    from avllm.data import DATASETS, Context
    from avllm.nano.data import DATASETS as DRAWN  # nano's own kinds, whose samples need the model

    stage, model = _stage(args, {**DATASETS, **DRAWN}), None
    if stage is not None:
        names = ("media_root", "form", "sound", "ignore")
        _refuse(args, names, "a stage says it in its keys, for example data.0.root=DIR or data.0.sound=auto")
        data = [*stage.data, *(stage.held_out.data if stage.held_out else ())]
        options = {"max_text_tokens": stage.max_text_tokens, "max_unreadable": stage.max_unreadable}
        if any(type(item) in DRAWN.values() for item in data):
            model = _start(stage, args.model)
    else:
        _refuse(args, ("overrides",), "it is for a stage; data has --media-root, --form, --sound and --ignore")
        data, options = [_dataset(args)], {}
    folder = find_model(args.model or (stage.starts[0] if stage is not None else "nano"))
    context = Context(
        model=model,
        processor=open_processor(folder),
        modality={} if stage is None else stage.modality,
        seed=42 if stage is None else stage.seed,
        cache=None if stage is None else Path(stage.output) / "cache",
    )
    max_ids = getattr(load_config(folder).text_config, "max_position_embeddings", None)
    return _Opened(
        data=data,
        context=context,
        options=options,
        max_ids=max_ids,
        is_stage=stage is not None,
        trusted_media=args.trusted_media or (stage is not None and stage.trusted_media),
    )


def _stage(args: argparse.Namespace, datasets: Mapping[str, type]) -> Any:
    """The stage that is named; None when it is a file or folder of data."""
    from avllm.training.stage import read_stage

    if args.file.suffix not in (".yaml", ".yml"):
        if args.file.exists() or args.file.suffix:
            return None
        try:
            find_file("train_configs", args.file)
        except ConfigError:  # nor a stage: the reader of data says that there is no such file
            return None
    return read_stage(args.file, args.overrides, datasets=datasets)[0]


def _start(stage: Any, model: str | None) -> Any:
    """The system of a stage, for data sets that see through it."""
    from avllm.training.start import open_start

    opened, _ = open_start(stage if model is None else replace(stage, init=model))
    return opened.float().eval()


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    given = [name for name in names if getattr(args, name)]
    if given:
        shown = "A.B=C" if given == ["overrides"] else ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{shown}: has no use here; {why}")


def _dataset(args: argparse.Namespace) -> Any:
    """The data set that a file or folder is, by what lies there."""
    from avllm.data import Conversations, ImageCaptions, WebDataset, WebVid

    path = args.file
    said: dict[str, Any] = {"form": args.form or "train", "sound": args.sound or "none"}
    ignore = tuple(args.ignore or ())
    if path.suffix == ".csv" or any(path.glob("*.csv")):
        _refuse(args, ("form", "sound"), "a CSV holds captions of WebVid")
        return WebVid.Config(annotations=str(path), videos=str(args.media_root or path / "videos"), ignore=ignore)
    if (path / "filter_cap.json").is_file():
        _refuse(args, ("form", "sound", "media_root"), "the folder holds captions of its images")
        return ImageCaptions.Config(root=str(path), ignore=ignore)
    if path.suffix == ".tar" or any(path.glob("*.tar")):
        _refuse(args, ("media_root",), "a tar holds its media")
        return WebDataset.Config(shards=str(path), ignore=ignore, **said)
    root = str(args.media_root or path.parent)
    return Conversations.Config(annotations=str(path), root=root, ignore=ignore, **said)


@contextmanager
def _reading(opened: _Opened) -> Iterator[Any]:
    """The processor, which reads media as the command line says."""
    from avllm.media.isolated import reader_of

    processor = opened.context.processor
    with reader_of(trusted_media=opened.trusted_media, num_workers=1, starts=False) as reader:
        if not opened.trusted_media:
            processor.door = reader
        yield processor


def _check(args: argparse.Namespace) -> int:
    from avllm.data.check import check, draw_lengths

    if args.histogram is not None:
        require("train", "matplotlib", purpose="--histogram")
    opened = _open(args)
    given = {"max_text_tokens": args.max_text_tokens, "max_unreadable": args.max_unreadable}
    options = {**opened.options, **{name: value for name, value in given.items() if value is not None}}
    options |= {"context": opened.context, "max_ids": opened.max_ids}
    with _reading(opened) as processor:
        reports = [check(config, processor, **options) for config in opened.data]
    lengths = [length for report in reports for length in report.lengths]
    if args.histogram is not None and lengths:
        draw_lengths(lengths, args.histogram)
    if args.json:
        plain = [report.to_dict() for report in reports]
        say(json.dumps(plain if opened.is_stage else plain[0], indent=2))
    else:
        say("\n".join(report.to_table() for report in reports))
    return 0 if all(report.ok for report in reports) else 1


def _preview(args: argparse.Namespace) -> int:
    from avllm.data.preview import preview

    opened = _open(args)
    options = {"context": opened.context, "max_text_tokens": opened.options.get("max_text_tokens")}
    with _reading(opened) as processor:
        count = preview(opened.data, processor, args.out, num_samples=args.samples, **options)
    say(f"wrote {args.out} with {count} samples")
    return 0
