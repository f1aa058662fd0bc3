from dataclasses import replace
from typing import Any

import pytest
import torch

from avllm.checkpoints.rename import load, problems, rename, unshared_state
from avllm.checkpoints.videollama2 import (
    connector_from,
    encoder_from,
    projector_type,
    system_from,
    tables,
    with_projector,
)
from avllm.connectors import MlpConnector, Stc
from avllm.encoders import Clip
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System

DECODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_theta": 5e5,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 6,
}
SIGLIP = {**CLIP, "model_type": "siglip_vision_model"}
PUBLISHED: dict[str, Any] = {
    **DECODER,
    "model_type": "videollama2_mistral",
    "architectures": ["Videollama2MistralForCausalLM"],
    "mm_projector_type": "stc_connector",
    "mm_hidden_size": 12,
    "mm_vision_tower": "somewhere/tiny",
    "num_frames": 6,
    "vision_config": CLIP,
}
KINDS = ("linear", "mlp2x_gelu", "mlp3x_gelu", "stc_connector", "stc_connector_v35", "stp_connector")


def on_meta(system: System) -> AvllmForConditionalGeneration:
    with torch.device("meta"):
        return AvllmForConditionalGeneration(AvllmConfig.from_system(system))


def published_names(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The keys and shapes of a checkpoint of that configuration, written down apart from the tables."""
    keys: dict[str, tuple[int, ...]] = {"lm_head.weight": (40, 16), "model.embed_tokens.weight": (40, 16)}
    keys["model.norm.weight"] = (16,)
    for name, shape in (("q", (16, 16)), ("k", (8, 16)), ("v", (8, 16)), ("o", (16, 16))):
        keys[f"model.layers.0.self_attn.{name}_proj.weight"] = shape
    for name in ("input_layernorm", "post_attention_layernorm"):
        keys[f"model.layers.0.{name}.weight"] = (16,)
    keys |= {f"model.layers.0.mlp.{name}_proj.weight": (8, 16) for name in ("gate", "up")}
    keys["model.layers.0.mlp.down_proj.weight"] = (16, 8)
    keys |= tower_keys(config["vision_config"]) | projector_keys(config["mm_projector_type"])
    return {name: torch.empty(shape, device="meta") for name, shape in keys.items()}


def tower_keys(vision: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    prefix, is_clip = "model.vision_tower.vision_tower.vision_model.", vision["model_type"].startswith("clip")
    keys: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (12, 3, 6, 6),
        "embeddings.position_embedding.weight": (17 if is_clip else 16, 12),
    }
    norms = ["post_layernorm"]
    if is_clip:
        keys["embeddings.class_embedding"] = (12,)
        norms.append("pre_layrnorm")
    else:
        keys |= {"embeddings.patch_embedding.bias": (12,), "head.probe": (1, 1, 12), "head.mlp.fc1.bias": (20,)}
        keys |= {"head.attention.in_proj_weight": (36, 12), "head.attention.out_proj.bias": (12,)}
    for layer in range(3):
        block = f"encoder.layers.{layer}."
        norms += [f"{block}layer_norm1", f"{block}layer_norm2"]
        for name in ("q", "k", "v", "out"):
            keys |= {f"{block}self_attn.{name}_proj.weight": (12, 12), f"{block}self_attn.{name}_proj.bias": (12,)}
        keys |= {f"{block}mlp.fc1.weight": (20, 12), f"{block}mlp.fc1.bias": (20,)}
        keys |= {f"{block}mlp.fc2.weight": (12, 20), f"{block}mlp.fc2.bias": (12,)}
    keys |= {f"{norm}.{part}": (12,) for norm in norms for part in ("weight", "bias")}
    return {prefix + name: shape for name, shape in keys.items()}


def projector_keys(kind: str) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    if kind == "linear":
        keys = {"weight": (16, 12), "bias": (16,)}
    elif kind.startswith("mlp"):
        for index in range(int(kind[3])):
            keys |= {f"{2 * index}.weight": (16, 16 if index else 12), f"{2 * index}.bias": (16,)}
    else:
        for index in (0, 2):
            keys |= {f"readout.{index}.weight": (16, 16), f"readout.{index}.bias": (16,)}
        if kind != "stp_connector":
            keys |= {"sampler.0.weight": (16, 16, 2, 2, 2), "sampler.0.bias": (16,)}
        for stage in ("s1", "s2"):
            for block in range(1, 5):
                name, first = f"{stage}.b{block}.", (stage, block) == ("s1", 1)
                convs = {"conv1": (16, 12 if first else 16, 1, 1), "conv2": (16, 1, 3, 3), "conv3": (16, 16, 1, 1)}
                if first:
                    convs["downsample"] = (16, 12, 1, 1)
                keys |= {f"{name}{conv}.conv.weight": shape for conv, shape in convs.items()}
                keys |= {f"{name}{conv}.bn.{part}": (16,) for conv in convs for part in ("weight", "bias")}
                hidden = 3 if first else 4
                keys |= {f"{name}se.fc1.weight": (hidden, 16, 1, 1), f"{name}se.fc1.bias": (hidden,)}
                keys |= {f"{name}se.fc2.weight": (16, hidden, 1, 1), f"{name}se.fc2.bias": (16,)}
    return {f"model.mm_projector.{name}": shape for name, shape in keys.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vision", [CLIP, SIGLIP], ids=lambda vision: vision["model_type"])
def test_every_published_key_has_its_place(kind: str, vision: dict[str, Any]):
    config = {**PUBLISHED, "mm_projector_type": kind, "vision_config": vision}
    system = system_from(config)
    expected = unshared_state(on_meta(system))[0]

    renamed = rename(published_names(config), tables(system)["model"])

    assert problems({name: tensor.shape for name, tensor in expected.items()}, renamed) == []
    assert set(renamed.dropped.values()) == {
        "2 blocks are run, this one is not",
        "the tokens are taken before the norm and the head behind the blocks",
    }


@pytest.mark.parametrize(
    "key",
    [
        "model.mm_projector.s1.b5.conv1.conv.weight",
        "model.mm_projector.s1.b1.conv4.conv.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.2.more",
        "model.vision_tower.vision_tower.vision_model.head.more",
        "model.more",
    ],
)
def test_an_unknown_key_is_named(key: str):
    with pytest.raises(CheckpointError, match=f"does not know {key}"):
        rename({key: torch.zeros(1)}, tables(system_from(PUBLISHED))["model"])


def test_a_missing_weight_of_each_part_is_named():
    weights = {name: torch.zeros(tensor.shape) for name, tensor in published_names(PUBLISHED).items()}
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(system_from(PUBLISHED)))
    for name in (
        "model.mm_projector.s2.b3.se.fc2.bias",
        "model.mm_projector.s1.b1.downsample.bn.weight",
        "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc2.weight",
        "model.layers.0.self_attn.k_proj.weight",
    ):
        left = {key: tensor for key, tensor in weights.items() if key != name}
        with pytest.raises(CheckpointError, match=f"missing {name}"):
            load(model, rename(left, tables(system_from(PUBLISHED))["model"]))


def test_the_parts_of_a_base_repository_fill_the_same_model():
    known = tables(system_from(PUBLISHED))
    weights = published_names(PUBLISHED)
    whole = rename(weights, known["model"])
    tower = "model.vision_tower.vision_tower."
    parts = {
        "mm_projector": {name: t for name, t in weights.items() if "mm_projector" in name},
        "vision_tower": {name.removeprefix(tower): t for name, t in weights.items() if tower in name},
        "decoder": {name: t for name, t in weights.items() if "mm_projector" not in name and tower not in name},
    }
    parts["vision_tower"] |= {"logit_scale": torch.zeros(()), "text_model.final_layer_norm.weight": torch.zeros(2)}

    filled = [rename(part, known[kind]) for kind, part in parts.items()]

    assert {name for part in filled for name in part.state} == set(whole.state)


def test_the_published_settings_are_read():
    system = system_from({**PUBLISHED, "mm_vision_select_layer": -1, "mm_vision_select_feature": "cls_patch"})
    video = system.branches["video"]

    assert system.decoder["model_type"] == "mistral"
    assert AvllmConfig.from_system(system).text_config.rope_parameters["rope_theta"] == 5e5
    assert (video.encoder.layer, video.encoder.feature, video.encoder.activation) == (-1, "cls_patch", "quick_gelu")
    assert (video.media.num_frames, video.media.image_frames, video.media.size) == (6, 6, 24)
    assert (video.media.resize, video.media.sampling) == ("crop", "middle")


@pytest.mark.parametrize(
    ("kind", "connector"),
    [
        ("linear", MlpConnector.Config(depth=1, averages_frames=True)),
        ("mlp3x_gelu", MlpConnector.Config(depth=3, averages_frames=True)),
        ("stc_connector", Stc.Config()),
        ("stc_connector_v35", Stc.Config(padding=0)),
        ("stp_connector", Stc.Config(sampler="pool")),
        ("spatial_conv", Stc.Config(depth=0, stride=(1, 2, 2))),
        ("spatial_pool", Stc.Config(depth=0, stride=(1, 2, 2), sampler="pool")),
    ],
)
def test_each_projector_has_its_settings(kind: str, connector: object):
    assert connector_from({"mm_projector_type": kind}) == connector


def test_towers_are_known_by_name_and_by_configuration():
    named = encoder_from({"mm_vision_tower": "openai/clip-vit-large-patch14-336/"})
    siglip = encoder_from({"mm_vision_tower": "google/siglip-so400m-patch14-384"})
    told = encoder_from({"mm_vision_tower": "openai/clip-vit-large-patch14-336", "vision_config": SIGLIP})

    assert named == Clip.Config()
    assert siglip.token_shape((8, 3, 384, 384)) == (8, 729)
    assert told == replace(siglip, image_size=24, patch_size=6, width=12, depth=3, num_heads=2, mlp_width=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "videollama2_gpt"}, "model_type is 'videollama2_gpt', expected one of: videollama2, "),
        ({"mm_projector_type": "qformer"}, "mm_projector_type is 'qformer', expected one of: linear, mlp2x_gelu, stc_"),
        ({"vision_config": None}, "mm_vision_tower is 'somewhere/tiny', whose sizes are not known"),
        ({"vision_config": {"model_type": "dinov2"}}, "vision_config.model_type is 'dinov2', expected clip_vision"),
    ],
)
def test_what_is_not_known_is_named(change: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        system_from({**PUBLISHED, **change})


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("videollama2_7b", 845),
        ("videollama2_7b_16f", 1521),
        ("videollama2_8x7b", 845),
        ("videollama2_72b", 845),
        ("videollama2_1_7b_16f", 1352),
    ],
)
def test_the_yaml_takes_as_many_slots_as_published(name: str, tokens: int):
    video = System.from_yaml(name).branches["video"]

    assert video.num_tokens((video.media.num_frames, *video.media.frame_shape)) == tokens
    assert video.media.image_frames == video.media.num_frames


@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_tell_the_projector(kind: str):
    keys = projector_keys(kind)

    told = with_projector(System.from_yaml("videollama2_1_7b_16f"), keys).branches["video"].connector

    assert projector_type(keys) == kind.removesuffix("_v35")
    expected = {"stc_connector": "stc_connector_v35"}.get(kind, kind)  # their keys are the same: 2.1 has v3.5
    assert told == connector_from({"mm_projector_type": expected})


def test_without_a_projector_the_system_stays():
    system = System.from_yaml("videollama2_7b")

    assert with_projector(system, ["lm_head.weight"]) is system
    assert projector_type(["model.mm_projector.readout.0.weight"]) == "spatial_pool"
    assert projector_type(["model.mm_projector.sampler.0.weight"]) == "spatial_conv"
