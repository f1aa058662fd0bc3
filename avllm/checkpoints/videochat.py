"""VideoChat: name tables of its published files, and a system from its published configuration.

Source: the state dicts of eva_vit_g.pth and blip2_pretrained_flant5xxl.pth (LAVIS), which it shares with Video-LLaMA,
and of videochat_7b.pth and videochat_13b.pth (OpenGVLab/Ask-Anything), which hold what was trained and every buffer.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from avllm import config as yaml_config
from avllm.checkpoints.decoders import ROTARY, decoder_table
from avllm.checkpoints.rename import Convert, Drop, Table, Target, before, under
from avllm.checkpoints.video_llama import UNUSED_BUFFER, blip2, eva_clip
from avllm.connectors.qformer_projection import QFormerProjection
from avllm.encoders.eva_clip_temporal import EvaClipTemporal
from avllm.encoders.transformer import resize_positions
from avllm.errors import ConfigError
from avllm.model.configuration import BranchConfig, Frames, System, Weights

ENCODER, CONNECTOR = "branches.video.encoder.", "branches.video.connector."
TUNED = Drop("VideoChat has trained it further; its own checkpoint holds the one that counts")

GMHRA: Table = {
    "gmhra_cls_token": "gmhra_token",
    "gmhra.{i}.dpe.{w}": "gmhra.{i}.position.{w}",
    "gmhra.{i}.attn.in_proj_{w}": "gmhra.{i}.attention.in_proj_{w}",
    "gmhra.{i}.attn.out_proj.{w}": "gmhra.{i}.attention.out_proj.{w}",
    "gmhra.{i}.ln_1.{w}": "gmhra.{i}.norm_query.{w}",
    "gmhra.{i}.ln_2.{w}": "gmhra.{i}.norm_mlp.{w}",
    "gmhra.{i}.ln_3.{w}": "gmhra.{i}.norm_context.{w}",
    "gmhra.{i}.mlp.c_fc.{w}": "gmhra.{i}.mlp.up.{w}",
    "gmhra.{i}.mlp.c_proj.{w}": "gmhra.{i}.mlp.down.{w}",
    "blocks.{i}.lmhra{j}.pos_embed.0.{s:weight|bias|running_mean|running_var|num_batches_tracked}": (
        "blocks.{i}.lmhra{j}.norm.{s}"
    ),
    "blocks.{i}.lmhra{j}.pos_embed.1.{w}": "blocks.{i}.lmhra{j}.reduce.{w}",
    "blocks.{i}.lmhra{j}.pos_embed.2.{w}": "blocks.{i}.lmhra{j}.mix.{w}",
    "blocks.{i}.lmhra{j}.pos_embed.3.{w}": "blocks.{i}.lmhra{j}.expand.{w}",
}
# What VideoChat trains outside its encoder, and the buffers that its checkpoint holds besides.
TRAINED: Table = {
    "ln_vision.{w}": "frame_qformer.input_norm.{w}",
    "extra_query_tokens": "extra_query_tokens",
    "llama_proj.{w}": "projection.{w}",
    "Qformer.bert.embeddings.position_ids": UNUSED_BUFFER,
}
# Sizes of `eva_clip_g`, which a published configuration names and does not spell out.
EVA_CLIP_G = {"patch_size": 14, "embed_dim": 1408, "depth": 39, "num_heads": 16, "mlp_ratio": 4.3637}
# Constants of the published code that a configuration may repeat.
CONSTANTS = {"vit_norm_eps": 1e-6, "norm_eps": 1e-6, "gmhra_norm_eps": 1e-5, "ln_vision_eps": 1e-5, "qkv_bias": True}


def tables(system: System) -> dict[str, Table]:
    """Every source of a VideoChat, under the names of our whole model.

    `eva_vit_g`, `blip2`, `videochat` and `llama` are its published files; `model` is the state dict of it all.
    """
    branch = system.branches["video"]
    decoder = under("decoder.", decoder_table(system.decoder))
    return {
        "eva_vit_g": under(ENCODER, eva_file(branch.encoder)),
        "blip2": {**under(CONNECTOR + "frame_qformer.", blip2()), "ln_vision.{w}": TUNED},
        "videochat": {
            **before("visual_encoder.", under(ENCODER, GMHRA)),
            **under(CONNECTOR, TRAINED),
            **before("llama_model.", {pattern: target for pattern, target in decoder.items() if target is ROTARY}),
        },
        "llama": decoder,
        "model": {
            **under(ENCODER, whole_encoder(branch.encoder)),
            **under(CONNECTOR, TRAINED),
            **under(CONNECTOR + "frame_qformer.", blip2()),
            **before("llama_model.", decoder),
        },
    }


def start_tables(system: System) -> dict[str, Table]:
    """The same where the training begins: the norm that it trains further is still that of BLIP-2."""
    found = tables(system)
    norm = {"ln_vision.{w}": f"{CONNECTOR}frame_qformer.input_norm.{{w}}"}
    return {**found, "blip2": {**found["blip2"], **norm}}


def whole_encoder(config: EvaClipTemporal.Config) -> dict[str, Target]:
    """The encoder in the state dict of a whole VideoChat, onto `EvaClipTemporal`."""
    return before("visual_encoder.", {**GMHRA, **eva_file(config)})


def eva_file(config: EvaClipTemporal.Config) -> dict[str, Target]:
    """eva_vit_g.pth onto `EvaClipTemporal`, all but its relations over time.

    Args:
        config: of the encoder, whose grid of positions and frames per patch the file is fitted to.
    """
    side = config.image_size // config.patch_size
    return {
        "patch_embed.proj.weight": Convert(
            "patches.weight", partial(inflate, num_frames=3 if config.temporal_downsample else 1)
        ),
        **eva_clip(config.depth),
        "pos_embed": Convert("positions", partial(fit_positions, side=side)),
    }


def inflate(kernel: Float[Tensor, "d c *thw"], *, num_frames: int) -> Float[Tensor, "d c t h w"]:
    """A kernel over pictures as one over frames: it sees the frame in the middle, the others not at all.

    Args:
        kernel: [d c h w]; one over frames [d c t h w] stays as it is.
        num_frames: t wanted.
    """
    if kernel.ndim == 5:
        return kernel
    inflated = kernel.new_zeros(*kernel.shape[:2], num_frames, *kernel.shape[2:])
    inflated[:, :, num_frames // 2] = kernel
    return inflated


def fit_positions(table: Float[Tensor, "1 p d"], *, side: int) -> Float[Tensor, "1 p2 d"]:
    """A table of positions for a square grid, interpolated to the grid of the model.

    Args:
        table: the class position first.
        side: rows and columns wanted.
    """
    stored = math.isqrt(table.shape[1] - 1)
    if stored**2 != table.shape[1] - 1:
        raise ValueError(f"{table.shape[1]} positions, expected a class position and a square grid")
    return resize_positions(table, (side, side), (stored, stored))


def system_from(config: Mapping[str, Any], *, decoder: Mapping[str, Any] | None = None) -> System:
    """The system of a published configuration.

    Args:
        config: with the section `model`; `vit`, `qformer` and `llama` where sizes are not those of the published model.
        decoder: configuration of the language model with `model_type`, where `config` has no `llama`.

    Raises:
        ConfigError: a setting that this encoder does not have, or no decoder.
    """
    settings = {**config, **config.get("model", {})}
    if decoder is None and "llama" in config:
        decoder = {"model_type": "llama", **config["llama"]}
    if decoder is None:
        raise ConfigError("llama: the configuration does not describe the language model; give its config.json too")
    encoder = encoder_from(settings)
    frames = Frames(
        size=encoder.image_size,
        sampling="half_step",
        resize="crop",
        resample="bicubic",
        crop_offset="round",
        image_resize="squash",
    )
    return System(
        decoder=dict(decoder),
        prompt="videochat",
        branches={"video": BranchConfig(media=frames, encoder=encoder, connector=connector_from(settings))},
        weights=Weights(table="videochat"),
    )


def encoder_from(settings: Mapping[str, Any]) -> EvaClipTemporal.Config:
    """The encoder of a published configuration whose sections are laid together.

    Raises:
        ConfigError: a constant of the published code with another value, or a wrong type.
    """
    for name, value in CONSTANTS.items():
        if settings.get(name, value) != value:
            raise ConfigError(f"{name}: expected {value} as in the published code, got {settings[name]}")
    vit = {**EVA_CLIP_G, "img_size": settings.get("img_size", 224), **settings.get("vit", {})}
    local = "none" if settings["no_lmhra"] else "double" if settings["double_lmhra"] else "single"
    data = {
        "image_size": vit["img_size"],
        "patch_size": vit["patch_size"],
        "width": vit["embed_dim"],
        "depth": vit["depth"],
        "num_heads": vit["num_heads"],
        "mlp_ratio": vit["mlp_ratio"],
        "num_global": settings["gmhra_layers"],
        "local": local,
        "local_reduction": settings["lmhra_reduction"],
        "temporal_downsample": settings["temporal_downsample"],
        "dropout": settings["gmhra_dropout"],
    }
    return yaml_config.parse(EvaClipTemporal.Config, data, "encoder")


def connector_from(settings: Mapping[str, Any]) -> QFormerProjection.Config:
    """The connector of a published configuration, with the sizes of BERT where it does not spell them out.

    Raises:
        ConfigError: a constant of BERT with another value, or a wrong type.
    """
    names = {
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "mlp_width": "intermediate_size",
        "cross_every": "cross_attention_freq",
        "dropout": "hidden_dropout_prob",
    }
    bert = settings.get("qformer", {})
    if bert.get("layer_norm_eps", 1e-12) != 1e-12 or bert.get("hidden_act", "gelu") != "gelu":
        raise ConfigError("qformer: expected layer_norm_eps 1e-12 and hidden_act gelu, those of BERT")
    sizes = {ours: bert[theirs] for ours, theirs in names.items() if theirs in bert}
    data = {
        "num_extra_queries": settings["extra_num_query_token"],
        "frame_qformer": {**sizes, "num_queries": settings["num_query_token"]},
    }
    return yaml_config.parse(QFormerProjection.Config, data, "connector")
