"""Commands about weights: convert, inspect, merge, plan."""

import argparse
import json
from pathlib import Path

from avllm.cli.common import command, positive
from avllm.errors import CheckpointError, ConfigError
from avllm.terminal import say

DTYPES = ("fp32", "bf16", "fp16")


def add(commands) -> None:
    """Adds them to the parser."""
    for add_one in (_add_convert, _add_inspect, _add_merge, _add_plan):
        add_one(commands)


def _add_convert(commands) -> None:
    parser = command(commands, "convert", _convert, "make published weights into one model folder")
    _add_sources(parser, "files and folders of weights")
    parser.add_argument("--out", type=Path, required=True, help="the new folder")
    parser.add_argument("--system", metavar="NAME", help="a published system or a YAML (default: told by content)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the stored weights (default: that of the sources)")
    parser.add_argument("--decoder", metavar="DIR_OR_ID", help="folder or hub id of the language model")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="of a published LoRA: the converted model it was trained on; writes an adapter that names it, unmerged",
    )
    parser.add_argument(
        "--start",
        action="store_true",
        help="make what a first training stage starts from: connectors that no source holds are drawn anew",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what --start draws (default: 0)")


def _convert(args: argparse.Namespace) -> int:
    from avllm.checkpoints.convert import convert_with_progress
    from avllm.checkpoints.load import dtype_of
    from avllm.checkpoints.unmerged import convert_adapter

    dtype = dtype_of(args.dtype) if args.dtype else None
    sources, overrides = _apart(args.sources)
    if args.base is not None:
        unused = [*overrides, *(f"--{name}" for name in ("system", "decoder", "start") if getattr(args, name))]
        if unused:
            raise ConfigError(f"{unused[0]}: does not go with --base, which tells the system; leave it out")
        say(convert_adapter(sources, args.out, base=args.base, dtype=dtype))
        return 0
    options = {"system": args.system, "overrides": overrides, "dtype": dtype, "decoder": args.decoder}
    say(convert_with_progress(sources, args.out, **options, start=args.start, seed=args.seed))
    return 0


def _add_sources(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=f"{what}; A.B=C overrides the system's YAML")


def _apart(given: list[str]) -> tuple[list[str], list[str]]:
    """Files and folders, and overrides of the system."""
    overrides = [text for text in given if "=" in text and not Path(text).exists()]
    if len(overrides) == len(given):
        raise CheckpointError("expected files or folders of weights, got overrides alone")
    return [text for text in given if text not in overrides], overrides


def _add_inspect(commands) -> None:
    parser = command(commands, "inspect", _inspect, "tell what weights are, check them, and say what they still need")
    _add_sources(parser, "files or folders, or a model folder")
    parser.add_argument("--system", metavar="NAME", help="a published system or a YAML (default: told by content)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect(args: argparse.Namespace) -> int:
    from avllm.checkpoints.inspect import inspect

    sources, overrides = _apart(args.sources)
    report = inspect(sources, system=args.system, overrides=overrides)
    say(json.dumps(report.to_dict(), indent=2) if args.json else report.to_table())
    return 0 if report.ok else 1


def _add_merge(commands) -> None:
    parser = command(commands, "merge", _merge, "add an adapter to the weights of its base model")
    parser.add_argument("adapter", type=Path, help="folder of the adapter")
    parser.add_argument("--out", type=Path, required=True, help="folder of the merged model")
    parser.add_argument("--dtype", choices=DTYPES, help="of the stored weights (default: the base model's)")


def _merge(args: argparse.Namespace) -> int:
    from avllm.checkpoints.load import merge_adapter

    say(f"wrote {merge_adapter(args.adapter, args.out, dtype=args.dtype)}")
    return 0


def _add_plan(commands) -> None:
    parser = command(commands, "plan", _plan, "tell how much memory a model will need, without loading it")
    parser.add_argument("model", help="a system of configs/, a YAML, or a model folder")
    parser.add_argument("overrides", nargs="*", metavar="A.B=C", help="overrides of a system's YAML")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of weights and activations (default: bf16)")
    parser.add_argument("--frames", type=positive, help="frames of a video (default: the system's)")
    parser.add_argument("--batch", type=positive, default=1, help="conversations side by side (default: 1)")
    parser.add_argument("--text-tokens", type=positive, default=64, help="of each prompt, besides media (default: 64)")
    parser.add_argument("--new-tokens", type=positive, default=128, help="of each answer (default: 128)")
    parser.add_argument("--quantization", choices=("int8", "nf4"), help="of the decoder's linear layers")
    parser.add_argument("--train", choices=("connectors", "all"), help="plan for training these instead of answering")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")


def _plan(args: argparse.Namespace) -> int:
    from avllm.checkpoints.load import dtype_of, find_config
    from avllm.model.plan import Workload, plan

    work = Workload(
        dtype=dtype_of(args.dtype),
        num_frames=args.frames,
        batch=args.batch,
        text_tokens=args.text_tokens,
        new_tokens=args.new_tokens,
        quantization=args.quantization,
        train=args.train,
    )
    result = plan(find_config(args.model, tuple(args.overrides)), work)
    say(json.dumps(result.to_dict(), indent=2) if args.json else result.to_table())
    return 0
