"""Commands about weights: convert, inspect, merge, plan."""

import argparse
import json
from pathlib import Path

from avllm.cli.common import command, positive

DTYPES = ("fp32", "bf16", "fp16")


def add(commands) -> None:
    """Adds them to the parser."""
    for add_one in (_add_merge, _add_plan):
        add_one(commands)


def _add_merge(commands) -> None:
    parser = command(commands, "merge", _merge, "add an adapter to the weights of its base model")
    parser.add_argument("adapter", type=Path, help="folder of the adapter")
    parser.add_argument("--out", type=Path, required=True, help="folder of the merged model")
    parser.add_argument("--dtype", choices=DTYPES, help="of the stored weights (default: the base model's)")


def _merge(args: argparse.Namespace) -> int:
    from avllm.checkpoints.load import merge_adapter

    print(f"wrote {merge_adapter(args.adapter, args.out, dtype=args.dtype)}")
    return 0


def _add_plan(commands) -> None:
    parser = command(commands, "plan", _plan, "tell how much memory a model will need, without loading it")
    parser.add_argument("model", help="a system of configs/, a YAML, or a model folder")
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
    result = plan(find_config(args.model), work)
    print(json.dumps(result.to_dict(), indent=2) if args.json else result.to_table())
    return 0
