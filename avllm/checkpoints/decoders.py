"""Name tables of the decoders, which every system shares: what files of the hub hold onto what `transformers` builds.

Source: the state dicts of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and MixtralForCausalLM up to
transformers 4, whose names the published files keep.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from avllm.checkpoints.rename import Drop, Part, Table, Target
from avllm.errors import CheckpointError

ROTARY = Drop("recomputed from the config")
TIED = Drop("equal to the embedding (tie_word_embeddings)")

LLAMA: Table = {
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": ROTARY,
    "model.embed_tokens.weight": "model.embed_tokens.weight",
    "model.layers.{i}.{rest}": "model.layers.{i}.{rest}",
    "model.norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
# Decoders whose modules have the published names.
PLAIN = ("llama", "mistral", "qwen2")
# Of a published config.json, what does not describe the decoder.
OUTSIDE = {"architectures", "transformers_version", "use_cache", "dtype", "model_type"}


def mixtral(num_experts: int) -> dict[str, Target]:
    """Mixtral, whose experts are one tensor per layer in `transformers` 5: gate and up projection joined, then stacked.

    Args:
        num_experts: experts of each layer (`num_local_experts`).
    """
    moe, ours = "model.layers.{i}.block_sparse_moe.", "model.layers.{i}.mlp."
    table: dict[str, Target] = {f"{moe}gate.weight": f"{ours}gate.weight"}
    for expert in range(num_experts):
        published, joined = f"{moe}experts.{expert}.", f"{ours}experts.gate_up_proj"
        table |= {
            f"{published}w1.weight": Part(joined, 2 * expert, of=2 * num_experts, stack=num_experts),
            f"{published}w3.weight": Part(joined, 2 * expert + 1, of=2 * num_experts, stack=num_experts),
            f"{published}w2.weight": Part(f"{ours}experts.down_proj", expert, of=num_experts, stack=num_experts),
        }
    return {**table, **LLAMA}


def decoder_table(decoder: Mapping[str, Any]) -> dict[str, Target]:
    """The table of a decoder.

    Args:
        decoder: its configuration with `model_type`, as a system holds it.

    Raises:
        CheckpointError: no table is known for this kind of decoder.
    """
    kind = decoder["model_type"]
    config = CONFIG_MAPPING[kind](**{key: value for key, value in decoder.items() if key != "model_type"})
    if kind == "mixtral":
        table = mixtral(config.num_local_experts)
    elif kind in PLAIN:
        table = {**LLAMA}
    else:
        raise CheckpointError(f"decoder {kind}: no table of weight names; known are: {', '.join((*PLAIN, 'mixtral'))}")
    return {**table, "lm_head.weight": TIED} if config.tie_word_embeddings else table


def decoder_config(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's part of a published configuration, as a system holds it.

    Args:
        kind: of the decoder, a `model_type` of `transformers`.
        config: config.json, or the part of it that is about the decoder.
    """
    known = {field.name for field in fields(CONFIG_MAPPING[kind])} | {"rope_theta", "rope_scaling"}
    return {"model_type": kind, **{name: config[name] for name in config if name in known - OUTSIDE}}
