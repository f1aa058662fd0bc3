"""Commands that train: train, features, nano."""

import argparse
import json
import logging
import sys
from pathlib import Path

from avllm.cli.common import add_trusted_media, command, positive
from avllm.terminal import say


def add(commands) -> None:
    """Adds them to the parser."""
    for add_one in (_add_train, _add_features, _add_nano):
        add_one(commands)


def _add_train(commands) -> None:
    parser = command(commands, "train", _train, "train one stage from its YAML")
    parser.add_argument("stage", help="a stage YAML, for example train_configs/nano/video_stage1.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="A.B=C", help="overrides, for example schedule.lr=1.0e-4 output=runs/a"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of the output folder")
    add_trusted_media(parser)


def _train(args: argparse.Namespace) -> int:
    from avllm.nano.data import DATASETS  # nano's own kinds of data set beside the published ones
    from avllm.training import train

    if not sys.stderr.isatty():  # no bar there: a line for each row of the log
        logging.getLogger("avllm.training.progress").setLevel(logging.INFO)
    folder = train(args.stage, _overrides(args), resume=args.resume, datasets=DATASETS)
    say(f"saved {folder}; try: avllm ask CLIP QUESTION --model {folder}")
    return 0


def _overrides(args: argparse.Namespace) -> list[str]:
    return [*args.overrides, *(["trusted_media=true"] if args.trusted_media else [])]


def _add_features(commands) -> None:
    parser = command(commands, "features", _features, "store what the frozen encoders of a stage make of its media")
    parser.add_argument("stage", help="a stage YAML")
    parser.add_argument("overrides", nargs="*", metavar="A.B=C", help="overrides, as of avllm train")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; what is there already is kept")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--dtype", choices=("fp16", "fp32"), default="fp16", help="of stored features (default: fp16)")
    parser.add_argument("--batch", type=positive, help="media encoded side by side (default: 8 on a GPU, else 1)")
    parser.add_argument("--decoders", type=positive, help="threads that decode, per process (default: by cores)")
    parser.add_argument("--shard-size", type=positive, default=256, help="media in a shard (default: 256)")
    add_trusted_media(parser)


def _features(args: argparse.Namespace) -> int:
    from avllm.nano.data import DATASETS
    from avllm.training.feature_engines import extract

    names = ("out", "workers", "engine", "dtype", "batch", "decoders", "shard_size")
    options = {name: getattr(args, name) for name in names}
    summary = extract(args.stage, _overrides(args), datasets=DATASETS, **options)
    for entry in summary.unreadable:
        say(f"unreadable: {entry.source}: {entry.reason}", file=sys.stderr)
    say(f"{summary}\nthe store is {args.out}; train on it with: avllm train {args.stage} features={args.out}")
    return 0


def _add_nano(commands) -> None:
    parser = commands.add_parser("nano", help="the small system that ships: its world, how it is built, how good it is")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    sample = command(
        actions, "sample", _nano_sample, "write clips of nano's world and their truth.jsonl", is_light=True
    )
    sample.add_argument("dir", type=Path, help="folder to write to")
    sample.add_argument("--clips", type=positive, default=20, help="how many (default: 20)")
    sample.add_argument("--seed", type=int, default=0, help="the same seed gives the same clips (default: 0)")

    build = command(actions, "build", _nano_build, "train nano from nothing: stage 0, then the four stages")
    build.add_argument(
        "--out", type=Path, default=Path("outputs/nano"), help="folder of the build (default: outputs/nano)"
    )
    build.add_argument("--seed", type=int, default=0, help="seed of all parts (default: 0)")
    build.add_argument("--resume", action="store_true", help="go on where an interrupted build stopped")
    build.add_argument("--quick", action="store_true", help="a shortened build of a few minutes, as CI runs it")

    score = command(actions, "score", _nano_score, "accuracy on unseen clips, by type of question")
    score.add_argument("--clips", type=positive, default=500, help="how many clips (default: 500)")
    score.add_argument("--seed", type=int, default=0, help="seed of the clips and the wording (default: 0)")
    score.add_argument("--from", dest="source", type=Path, metavar="DIR", help="score a folder made by nano sample")
    score.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    score.add_argument("--json", action="store_true", help="print JSON")


def _nano_sample(args: argparse.Namespace) -> int:
    from avllm.nano.sample import sample

    truth = sample(args.dir, num_clips=args.clips, seed=args.seed)
    say(f"wrote {args.clips} clips and {truth}")
    return 0


def _nano_build(args: argparse.Namespace) -> int:
    from avllm.nano.build import build

    folder = build(args.out, seed=args.seed, resume=args.resume, quick=args.quick)
    say(f"built {folder}; measure it with: avllm nano score --model {folder}")
    return 0


def _nano_score(args: argparse.Namespace) -> int:
    from avllm.nano.score import score

    result = score(num_clips=args.clips, seed=args.seed, source=args.source, model=args.model)
    say(json.dumps(result.to_dict(), indent=2) if args.json else result.to_table())
    return 0
