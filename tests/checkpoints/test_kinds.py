import pytest
import torch
from torch import Tensor

from avllm.checkpoints.kinds import is_delta, kind_of_keys, system_of
from avllm.errors import CheckpointError

LAST = "model.norm.weight"
CLIP = ["vision_model.embeddings.class_embedding", "text_model.a"]


def norms(layer: Tensor, last: Tensor) -> dict[str, Tensor]:
    return {"model.layers.0.input_layernorm.weight": layer, "model.layers.1.input_layernorm.weight": layer, LAST: last}


@pytest.mark.parametrize(
    ("layer", "last", "expected"),
    [
        pytest.param(torch.ones(64), torch.ones(64), False, id="just made"),
        pytest.param(torch.rand(64) * 0.05, torch.rand(64) + 1.5, False, id="small first norms, as in LLaMA"),
        pytest.param(torch.rand(64).half() * 0.01, torch.rand(64).half() + 2, False, id="smaller ones, in float16"),
        pytest.param(torch.zeros(64), torch.zeros(64), True, id="norms that were not trained"),
        pytest.param(torch.randn(64) * 1e-3, torch.randn(64) * 1e-2, True, id="a fine-tuning of both signs"),
        pytest.param(torch.rand(64) * 1e-3, torch.rand(64) * 1e-2, True, id="a fine-tuning of one sign"),
        pytest.param(torch.randn(64) * 0.3, torch.randn(64) * 0.3, True, id="two models far apart"),
    ],
)
def test_a_delta_is_told_by_the_scales_of_its_norms(layer: Tensor, last: Tensor, expected: bool):
    assert is_delta(norms(layer, last)) is expected


def test_weights_without_norms_are_no_delta():
    assert not is_delta({})


@pytest.mark.parametrize(
    ("keys", "config", "kind"),
    [
        (["video_query_tokens", "Qformer.bert.embeddings.position_ids"], {}, "vl"),
        (["audio_query_tokens", "video_Qformer.bert.embeddings.position_ids"], {}, "al"),
        (["query_tokens", "Qformer.bert.encoder.layer.0.output_query.dense.weight", "t5_proj.weight"], {}, "blip2"),
        (["extra_query_tokens", "visual_encoder.gmhra_cls_token"], {}, "videochat"),
        (["model.mm_projector.0.weight", "model.mm_projector.2.weight"], {}, "projector"),
        (["model.mm_projector_a.0.weight"], {}, "audio_projector"),
        (CLIP, {"model_type": "LanguageBindImage"}, "languagebind_image"),
        (CLIP, {"model_type": "clip"}, "vision_tower"),
        (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], {}, "adapter"),
        (["base_model.model.model.mm_projector.0.weight"], {}, "trained_parts"),
        (["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"], {}, "decoder"),
    ],
)  # fmt: skip
def test_a_kind_is_told_by_keys_and_configuration(keys: list[str], config: dict, kind: str):
    found = kind_of_keys(keys, config)

    assert found is not None
    assert found.name == kind


def test_keys_of_something_else_are_unknown():
    assert kind_of_keys(["transformer.h.0.attn.weight"], {}) is None


def test_shared_files_leave_the_system_open_and_its_own_file_tells_it():
    eva, blip2 = kind_of_keys(["blocks.0.attn.q_bias"], {}), kind_of_keys(["Qformer.bert.a"], {})
    chat, vl = kind_of_keys(["extra_query_tokens"], {}), kind_of_keys(["video_query_tokens"], {})
    assert eva is not None and blip2 is not None and chat is not None and vl is not None  # noqa: PT018 (narrows types)

    assert system_of([eva, blip2]) is None
    assert system_of([eva, blip2, chat]) == "videochat"
    assert system_of([eva, blip2, vl]) == "video_llama"
    with pytest.raises(CheckpointError, match="different systems"):
        system_of([eva, chat, vl])
