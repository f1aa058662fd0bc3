"""BLIP-2's Q-Former: every layer, with and without a mask on the encoder's tokens."""

from pathlib import Path

import torch

from avllm.checkpoints.rename import load, rename
from avllm.checkpoints.video_llama import blip2
from tests.parity import parts
from tests.parity.common import Row, Tolerance, captured, compare_all, read_json, read_tensors, readme_tolerance, ready

NOT_COVERED = {"t5_proj_out": "t5_proj is BLIP-2's own, no part of Video-LLaMA"}


def recognises(path: Path) -> bool:
    """Its configuration has the surplus T5 projection."""
    return (path / "config.json").is_file() and "t5_dim" in read_json(path / "config.json")


def run(path: Path) -> list[Row]:
    """Compares every recorded stage."""
    case = read_json(path / "config.json")
    bert = case["bert"]
    config = parts.frame_qformer(
        bert,
        num_queries=case["num_query_token"],
        cross_every=case["cross_attention_freq"],
        depth=bert["num_hidden_layers"],
    )
    model = config.build(context_width=case["vision_width"])
    load(model, rename(read_tensors(path / "weights.safetensors"), blip2(), source="weights.safetensors"))
    ready(model)

    inputs = read_tensors(path / "inputs.safetensors")
    stages = {"image_embeds": model.input_norm, "query_embeddings": model.qformer.norm}
    for index, layer in enumerate(model.qformer.layers):
        stages[f"layer_{index}.self_attention_output"] = layer.self_attention
        stages[f"layer_{index}.output"] = layer.mlp
        if layer.cross_attention is not None:
            stages[f"layer_{index}.cross_attention_output"] = layer.cross_attention
    with torch.no_grad():
        with captured(stages) as ours:
            ours["last_hidden_state"] = model(inputs["vit_features"])
        mask = inputs["encoder_attention_mask"].bool()
        ours["last_hidden_state_masked"] = model(inputs["vit_features"], mask)
    ours["query_embeddings"] = ours["query_embeddings"].expand(len(mask), -1, -1)
    outputs = read_tensors(path / "outputs.safetensors")
    return compare_all(ours, outputs, readme_tolerance(path, Tolerance(0.0, 6e-6)), not_covered=NOT_COVERED)
