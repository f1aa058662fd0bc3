from typing import Any

import pytest
import torch

from avllm.checkpoints.beats import beats, beats_from
from avllm.checkpoints.rename import load, problems, rename, unshared_state
from avllm.checkpoints.videollama2 import sound_from, sound_tables, system_from, tables
from avllm.connectors import MlpConnector
from avllm.encoders import Beats
from avllm.errors import CheckpointError
from avllm.model import System
from tests.checkpoints.test_videollama2 import PUBLISHED, SIGLIP, on_meta, published_names

CFG: dict[str, Any] = {
    "input_patch_size": 4,
    "embed_dim": 6,
    "encoder_layers": 3,
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 10,
    "encoder_attention_heads": 2,
    "conv_pos": 6,
    "conv_pos_groups": 2,
    "num_buckets": 12,
    "max_distance": 20,
    "gru_rel_pos": True,
    "deep_norm": True,
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "activation_fn": "gelu",
    "encoder_layerdrop": 0.05,
    "predictor_class": 5,
}
WITH_SOUND = {
    **PUBLISHED,
    "vision_config": SIGLIP,
    "mm_audio_tower": "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
    "mm_projector_a_type": "mlp2x_gelu",
    "beats_cfg": CFG,
}


def published(**changes: Any) -> dict[str, torch.Tensor]:
    """Names and random weights of a BEATs file, written down apart from the table."""
    torch.manual_seed(0)
    cfg = {**CFG, **changes}
    width, narrow, mlp = cfg["encoder_embed_dim"], cfg["embed_dim"], cfg["encoder_ffn_embed_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (narrow, 1, 4, 4),
        "encoder.pos_conv.0.weight_g": (1, 1, 6),
        "encoder.pos_conv.0.weight_v": (width, width // 2, 6),
        "encoder.pos_conv.0.bias": (width,),
        "predictor.weight": (5, width),
        "predictor.bias": (5,),
    }
    linear = {"post_extract_proj": (width, narrow)} if width != narrow else {}
    norms = {"layer_norm": narrow, "encoder.layer_norm": width}
    for layer in range(cfg["encoder_layers"]):
        name = f"encoder.layers.{layer}."
        linear |= {f"{name}self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        linear |= {f"{name}fc1": (mlp, width), f"{name}fc2": (width, mlp)}
        norms |= {f"{name}self_attn_layer_norm": width, f"{name}final_layer_norm": width}
        linear[f"{name}self_attn.grep_linear"] = (8, width // 2)
        shapes |= {f"{name}self_attn.grep_a": (1, 2, 1, 1)}
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    shapes |= {f"{name}.{part}": (size,) for name, size in norms.items() for part in ("weight", "bias")}
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    table = torch.randn(12, 2)
    return weights | {
        f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight": table
        for layer in range(cfg["encoder_layers"])
    }


def test_every_published_key_has_its_place():
    config = beats_from(CFG)
    encoder = config.build()
    renamed = rename(published(), beats(config))

    load(encoder, renamed)

    reasons = list(renamed.dropped.values())
    assert len([reason for reason in reasons if reason.startswith("the same as layer 0's")]) == 2
    assert len([reason for reason in reasons if reason.startswith("names sounds")]) == 2
    assert torch.equal(
        encoder.blocks[2].attention.qkv.weight[8:16], published()["encoder.layers.2.self_attn.k_proj.weight"]
    )


def test_without_a_narrower_patch_there_is_no_projection():
    weights = published(embed_dim=8)

    load(beats_from({**CFG, "embed_dim": 8}).build(), rename(weights, beats(beats_from({**CFG, "embed_dim": 8}))))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.layers.0.self_attn.relative_attention_bias.weight", "missing"),
        ("encoder.layers.1.self_attn.grep_linear.bias", "missing"),
        ("encoder.pos_conv.0.weight_g", "missing"),
        ("encoder.layers.2.self_attn.v_proj.bias", "missing"),
    ],
)
def test_a_missing_weight_is_named(name: str, message: str):
    weights = {key: tensor for key, tensor in published().items() if key != name}

    with pytest.raises(CheckpointError, match=f"{message} {name}"):
        load(beats_from(CFG).build(), rename(weights, beats(beats_from(CFG))))


@pytest.mark.parametrize("name", ["self_attn.relative_attention_bias.weight", "fc1.weight"])
def test_a_layer_too_many_is_named(name: str):
    surplus = f"encoder.layers.3.{name}"

    with pytest.raises(CheckpointError, match=f"(does not know|left over) {surplus}"):
        load(beats_from(CFG).build(), rename({**published(), surplus: torch.zeros(1)}, beats(beats_from(CFG))))


@pytest.mark.parametrize(
    "change", [{"layer_norm_first": True}, {"activation_fn": "relu"}, {"relative_position_embedding": False}]
)
def test_another_transformer_is_refused(change: dict[str, Any]):
    with pytest.raises(CheckpointError, match=f"cfg: {next(iter(change))} is .*, expected"):
        beats_from({**CFG, **change})


def test_what_a_cfg_does_not_name_is_as_published():
    assert beats_from({}) == Beats.Config()


def test_a_checkpoint_with_sound_has_both_branches():
    system = system_from(WITH_SOUND)
    weights = published_names(WITH_SOUND) | {f"model.audio_tower.{key}": value for key, value in published().items()}
    weights |= {"model.mm_projector_a.0.weight": torch.empty(16, 8), "model.mm_projector_a.0.bias": torch.empty(16)}
    weights |= {"model.mm_projector_a.2.weight": torch.empty(16, 16), "model.mm_projector_a.2.bias": torch.empty(16)}
    expected = unshared_state(on_meta(system))[0]

    renamed = rename(weights, tables(system)["model"])

    assert set(system.branches) == {"video", "audio"}
    assert problems({name: tensor.shape for name, tensor in expected.items()}, renamed) == []


def test_the_files_of_its_training_fill_the_audio_branch():
    system, ear = system_from(WITH_SOUND), published()
    known = sound_tables(system.branches["audio"])

    alone = rename(ear, known["beats"]).state
    tuned = rename({f"model.audio_tower.{key}": value for key, value in ear.items()}, known["audio_tower"]).state
    projector = rename({"model.mm_projector_a.2.bias": torch.zeros(16)}, known["mm_projector_a"]).state

    assert alone.keys() == tuned.keys()
    assert set(projector) == {"branches.audio.connector.layers.2.bias"}


@pytest.mark.parametrize(("kind", "depth"), [("linear", 1), ("mlp2x_gelu", 2), ("mlp3x_gelu", 3)])
def test_each_projector_of_sound_has_its_depth(kind: str, depth: int):
    assert sound_from({"mm_projector_a_type": kind}).connector == MlpConnector.Config(depth=depth)


def test_an_unknown_projector_of_sound_is_named():
    with pytest.raises(CheckpointError, match="mm_projector_a_type is 'qformer', expected linear or mlp2x_gelu"):
        system_from({**WITH_SOUND, "mm_projector_a_type": "qformer"})


def test_the_yaml_takes_as_many_slots_as_published():
    audio = System.from_yaml("videollama2_1_7b_av").branches["audio"]

    assert audio.num_tokens((1, *audio.media.frame_shape)) == 1496
    assert audio == sound_from({"mm_projector_a_type": "mlp2x_gelu"})
