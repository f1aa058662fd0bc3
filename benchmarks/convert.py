"""`avllm convert` on synthetic checkpoints of a few GB: the most memory it held, and bytes per second.

    python -m benchmarks.convert [--json] [--rounds N] [--gigabytes 2] [--folder DIR]

Every run is a new process. The goal of memory is 1.2 times the largest source shard and 0.5 GB; reading the shards,
joining what several keys make, writing and checksums all count.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from avllm.config import PACKAGE
from benchmarks.ask import command
from benchmarks.common import Figure, arguments, in_child, machine, median, report

FORMS = ("one_bin", "safetensors_shards", "legacy_bin", "mixtral")
WIDTH, MLP, VOCABULARY = 2048, 8192, 32000
TOWER = {
    **{"model_type": "clip_vision_model", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "image_size": 56, "patch_size": 14},
}


def main() -> None:
    parser = arguments("Memory and speed of `avllm convert`.")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each checkpoint (default: 2)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--write", nargs=2, metavar=("DIR", "FORM"), help="only write one checkpoint")
    parser.add_argument("--forms", nargs="*", default=FORMS, help=f"which (default: {' '.join(FORMS)})")
    args = parser.parse_args()
    if args.write:
        print(write_checkpoint(Path(args.write[0]), args.write[1], args.gigabytes))
        return
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for form in args.forms:
            folder = Path(name) / form
            # In a process of its own, as Linux counts what a parent holds among its child's peak.
            shard = in_child("benchmarks.convert", "--write", str(folder), form, "--gigabytes", str(args.gigabytes))
            runs = [run(folder, Path(name) / "out") for _ in range(args.rounds)]
            goal = 1.2 * shard / 2**20 + 500
            size = sum(file.stat().st_size for file in folder.iterdir())
            figures[f"{form}_peak_mib"] = Figure(
                value=max(result["peak_mib"] for result in runs),
                goal=round(goal),
                better="lower",
                note=f"largest shard {shard / 2**20:.0f} MiB of {size / 2**20:.0f}",
            )
            figures[f"{form}_mib_per_s"] = Figure(
                value=size / 2**20 / median([result["seconds"] for result in runs]), note="start and checksums included"
            )
            shutil.rmtree(folder)
    report(figures, machine("torch", "transformers", "safetensors"), as_json=args.json)


def run(folder: Path, out: Path) -> dict[str, Any]:
    """One conversion in a process of its own."""
    result = command("convert", str(folder), "--out", str(out))
    shutil.rmtree(out)
    return result


def write_checkpoint(folder: Path, form: str, gigabytes: float) -> int:
    """A VideoLLaMA 2 of about this size with random weights; returns the bytes of its largest shard."""
    folder.mkdir()
    kind = "mixtral" if form == "mixtral" else "mistral"
    experts = 4 if kind == "mixtral" else 1
    per_layer = 2 * (3 * WIDTH * MLP * experts + 4 * WIDTH * WIDTH)
    layers = max(1, round((gigabytes * 1e9 - 4 * VOCABULARY * WIDTH) / per_layer))
    config = {
        **{"model_type": f"videollama2_{kind}", "vocab_size": VOCABULARY, "hidden_size": WIDTH},
        **{"intermediate_size": MLP, "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16},
        **{"num_local_experts": experts, "vision_config": TOWER, "mm_projector_type": "mlp2x_gelu"},
        **{"mm_hidden_size": 256, "mm_vision_select_layer": -2, "num_frames": 8},
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(PACKAGE / "nano" / "weights" / file, folder / file)
    parts = 2 if form == "safetensors_shards" else 1
    weights = list(tensors(layers, experts, kind))
    where = {}
    for number in range(parts):
        shard = dict(weights[number::parts])
        suffix = "safetensors" if form in ("safetensors_shards", "mixtral") else "bin"
        file = folder / f"shard-{number}.{suffix}"
        if suffix == "bin":
            torch.save(shard, file, _use_new_zipfile_serialization=form != "legacy_bin")
        else:
            save_file(shard, file)
        where |= dict.fromkeys(shard, file.name)
        os.sync()
    index = "pytorch_model.bin" if form in ("one_bin", "legacy_bin") else "model.safetensors"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": where}))
    return max((folder / file).stat().st_size for file in where.values())


def tensors(layers: int, experts: int, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Published name and random tensor of every weight."""
    yield "model.embed_tokens.weight", values(VOCABULARY, WIDTH)
    yield "lm_head.weight", values(VOCABULARY, WIDTH)
    yield "model.norm.weight", torch.ones(WIDTH, dtype=torch.bfloat16)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}self_attn.{name}.weight", values(WIDTH, WIDTH)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", torch.ones(WIDTH, dtype=torch.bfloat16)
        for expert in range(experts):
            moe = f"{prefix}block_sparse_moe.experts.{expert}."
            names = ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
            for name in names:
                shape = (WIDTH, MLP) if name in ("w2", "down_proj") else (MLP, WIDTH)
                yield (moe if kind == "mixtral" else f"{prefix}mlp.") + f"{name}.weight", values(*shape)
        if kind == "mixtral":
            yield f"{prefix}block_sparse_moe.gate.weight", values(experts, WIDTH)
    yield from tower()
    yield "model.mm_projector.0.weight", values(WIDTH, 256)
    yield "model.mm_projector.0.bias", values(WIDTH)
    yield "model.mm_projector.2.weight", values(WIDTH, WIDTH)
    yield "model.mm_projector.2.bias", values(WIDTH)


def tower() -> Iterator[tuple[str, Tensor]]:
    """The weights of the vision tower."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    settings = {key: value for key, value in TOWER.items() if key != "model_type"}
    for name, tensor in CLIPVisionModel(CLIPVisionConfig(**settings)).state_dict().items():
        inner = name.removeprefix("vision_model.")
        yield f"model.vision_tower.vision_tower.vision_model.{inner}", tensor.bfloat16()


def values(*shape: int) -> Tensor:
    """Random values, cheap to make."""
    return (torch.rand(shape) * 0.02).bfloat16()


if __name__ == "__main__":
    main()
