"""VideoChat's connector: the Q-Former with extra queries, layer by layer, and the projection."""

from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange

from avllm.checkpoints.rename import load, rename, under
from avllm.checkpoints.video_llama import blip2
from avllm.checkpoints.videochat import TRAINED, connector_from
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, ready


def recognises(path: Path) -> bool:
    """Its configuration has extra queries and no ViT."""
    case = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    return "extra_num_query_token" in case and "vit" not in case


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    case = read_json(path / "config.json")
    config = connector_from(case)
    # The case begins behind the norm of the encoder's tokens.
    config = replace(config, frame_qformer=replace(config.frame_qformer, has_input_norm=False))
    width, outputs = case["qformer"]["encoder_width"], read_tensors(path / "outputs.safetensors")
    connector = ready(config.build(in_width=width, out_width=case["llama_hidden_size"]))
    table = {**TRAINED, **under("frame_qformer.", blip2())}
    load(connector, rename(read_tensors(path / "weights.safetensors"), table, source="weights.safetensors"))
    tokens = rearrange(read_tensors(path / "inputs.safetensors")["image_embeds"], "b p d -> b 1 p d")

    qformer = connector.frame_qformer.qformer
    stages = {"embeddings": qformer.norm, "last_hidden_state": qformer}
    stages |= {f"layer.{i}": layer for i, layer in enumerate(qformer.layers)}
    with torch.no_grad(), captured(stages) as ours:
        ours["inputs_llama"] = connector(tokens)
    ours["embeddings"] = ours["embeddings"].expand(len(tokens), -1, -1)
    return compare_all(ours, outputs, Tolerance(0.0, 2e-5))
