"""Name table and configuration of the published BEATs, alone and inside VideoLLaMA 2.1-AV.

Source: BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt, which holds `cfg` and, under `model`, these names; the
checkpoint of VideoLLaMA 2.1-AV and its audio_tower.bin hold them behind `model.audio_tower.`.
"""

from collections.abc import Mapping
from typing import Any

from avllm.checkpoints.rename import Drop, Part, Target
from avllm.encoders import Beats
from avllm.errors import CheckpointError

PREDICTOR = Drop("names sounds from the tokens; the tokens themselves are used")
LAYER = "encoder.layers.{i}."
RELATIVE = "self_attn.relative_attention_bias.weight"
# Name in a published cfg -> name of ours.
SIZES = {
    "input_patch_size": "patch_size",
    "embed_dim": "patch_width",
    "conv_bias": "patch_bias",
    "encoder_embed_dim": "width",
    "encoder_layers": "depth",
    "encoder_attention_heads": "num_heads",
    "encoder_ffn_embed_dim": "mlp_width",
    "conv_pos": "conv_kernel",
    "conv_pos_groups": "conv_groups",
    "num_buckets": "num_buckets",
    "max_distance": "max_distance",
    "gru_rel_pos": "is_gated",
    "deep_norm": "is_deep_norm",
}
# What every published BEATs has, and the encoder here takes for granted.
FIXED = {"layer_norm_first": False, "relative_position_embedding": True, "activation_fn": "gelu"}


def beats(config: Beats.Config) -> dict[str, Target]:
    """The `model` of a BEATs file onto our encoder.

    Args:
        config: of our encoder.
    """
    shared = Drop(
        "the same as layer 0's: all layers share one table, the file repeats it",
        when=lambda match: 0 < int(match["n"]) < config.depth,
    )
    ours = "blocks.{i}."
    return {
        "patch_embedding.{w}": "patches.{w}",
        "layer_norm.{w}": "patch_norm.{w}",
        "post_extract_proj.{w}": "projection.{w}",
        "encoder.pos_conv.0.weight_g": "positions.gain",
        "encoder.pos_conv.0.weight_v": "positions.direction",
        "encoder.pos_conv.0.bias": "positions.bias",
        "encoder.layer_norm.{w}": "norm.{w}",
        f"encoder.layers.{{n}}.{RELATIVE}": shared,
        f"encoder.layers.0.{RELATIVE}": "relative_position.table.weight",
        **{
            f"{LAYER}self_attn.{part}_proj.{{w}}": Part(f"{ours}attention.qkv.{{w}}", index, of=3)
            for index, part in enumerate("qkv")
        },
        f"{LAYER}self_attn.out_proj.{{w}}": f"{ours}attention.out.{{w}}",
        f"{LAYER}self_attn.grep_a": f"{ours}attention.gate_scale",
        f"{LAYER}self_attn.grep_linear.{{w}}": f"{ours}attention.gate.{{w}}",
        f"{LAYER}self_attn_layer_norm.{{w}}": f"{ours}norm1.{{w}}",
        f"{LAYER}fc1.{{w}}": f"{ours}mlp.up.{{w}}",
        f"{LAYER}fc2.{{w}}": f"{ours}mlp.down.{{w}}",
        f"{LAYER}final_layer_norm.{{w}}": f"{ours}norm2.{{w}}",
        "predictor.{w}": PREDICTOR,
    }


def beats_from(cfg: Mapping[str, Any]) -> Beats.Config:
    """Our encoder for the `cfg` of a BEATs file; what it does not name is as in BEATs iter3+.

    Raises:
        CheckpointError: it describes another transformer than the published ones; the value is named.
    """
    for name, value in FIXED.items():
        if cfg.get(name, value) != value:
            raise CheckpointError(f"cfg: {name} is {cfg[name]!r}, expected {value!r} as in every published BEATs")
    return Beats.Config(**{ours: cfg[name] for name, ours in SIZES.items() if name in cfg})
