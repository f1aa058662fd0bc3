from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from avllm.checkpoints.decoders import decoder_table
from avllm.checkpoints.rename import load, rename
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from tests.model.tiny import TINY, tiny_model

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2, **SIZES}


def built(decoder: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[decoder["model_type"]](**decoder)).eval()


def published(model: Any, decoder: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Its weights under the names of the hub's files, which have each expert of Mixtral on its own."""
    weights = {}
    for name, tensor in model.state_dict().items():
        if "experts" not in name:
            weights[name.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = tensor
            continue
        prefix = name.partition("mlp.")[0] + "block_sparse_moe.experts."
        for index, expert in enumerate(tensor):
            parts = zip(("w1", "w3"), expert.chunk(2), strict=True) if "gate_up" in name else [("w2", expert)]
            weights |= {f"{prefix}{index}.{part}.weight": values for part, values in parts}
    if decoder.get("tie_word_embeddings"):
        del weights["lm_head.weight"]
    return weights


@pytest.mark.parametrize(
    "decoder",
    [
        *({"model_type": kind, **SIZES} for kind in ("llama", "mistral", "qwen2")),
        {"model_type": "qwen2", "tie_word_embeddings": True, **SIZES},
        MIXTRAL,
    ],
    ids=lambda decoder: decoder["model_type"] + ("_tied" if "tie_word_embeddings" in decoder else ""),
)
@torch.no_grad()
def test_published_weights_give_the_same_logits(decoder: dict[str, Any]):
    theirs, ids = built(decoder), torch.arange(5)[None]
    ours = built(decoder)
    for parameter in ours.parameters():
        parameter.zero_()

    load(ours, rename(published(theirs, decoder), decoder_table(decoder)))

    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_a_missing_expert_is_named_and_one_too_many_too():
    model = built(MIXTRAL)
    weights = published(model, MIXTRAL)
    wanted = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    left = {name: tensor for name, tensor in weights.items() if name != wanted}
    more = {**weights, wanted.replace(".2.w3", ".3.w3"): weights[wanted]}

    with pytest.raises(CheckpointError, match=f"missing {wanted} beside"):
        rename(left, decoder_table(MIXTRAL))
    with pytest.raises(CheckpointError, match=r"left over .*experts\.3\.w3\.weight"):
        load(model, rename(more, decoder_table(MIXTRAL)))


def test_a_tied_head_in_the_file_is_dropped_with_a_reason():
    decoder = {"model_type": "qwen2", "tie_word_embeddings": True, **SIZES}
    weights = published(built(decoder), decoder)

    renamed = rename({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, decoder_table(decoder))

    assert renamed.dropped == {"lm_head.weight": "equal to the embedding (tie_word_embeddings)"}


def test_an_unknown_decoder_is_refused():
    with pytest.raises(CheckpointError, match="decoder gpt2: no table of weight names; known are: llama, mistral"):
        decoder_table({"model_type": "gpt2"})


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2},
        {"model_type": "qwen2", "tie_word_embeddings": True},
        {"model_type": "mistral"},
    ],
    ids=lambda changes: changes["model_type"],
)
def test_a_saved_model_opens_as_it_was(tmp_path: Path, changes: dict[str, Any]):
    model = tiny_model(decoder={**TINY["decoder"], **changes})

    model.save_pretrained(tmp_path)
    opened = AvllmForConditionalGeneration.from_pretrained(tmp_path)

    assert isinstance(opened.config, AvllmConfig)
    assert opened.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())
    tied = opened.decoder.lm_head.weight is opened.decoder.model.embed_tokens.weight
    assert tied == changes.get("tie_word_embeddings", False)
