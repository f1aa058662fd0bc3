"""Name tables of the published Video-LLaMA weights: six sources, one of our models.

Source: the state dicts of eva_vit_g.pth and blip2_pretrained_flant5xxl.pth (LAVIS), imagebind_huge.pth (ImageBind),
and the VL and AL checkpoints of Video-LLaMA, which hold what was trained and every persistent buffer.
"""

from collections.abc import Collection

from avllm.checkpoints.decoders import ROTARY, decoder_table
from avllm.checkpoints.rename import Drop, Table, Target, before, under
from avllm.model import System

UNUSED_BUFFER = Drop("an unused buffer: query tokens have no position")
UNUSED_TRUNK = Drop("outside the systems here")
NOT_RUN = Drop("the published model ends before it")
COPY = Drop("a copy of what imagebind_huge.pth holds")

Q_FORMER: Table = {
    "embeddings.position_ids": UNUSED_BUFFER,
    "embeddings.LayerNorm.{w}": "norm.{w}",
    "encoder.layer.{i}.attention.self.{p:query|key|value}.{w}": "layers.{i}.self_attention.{p}.{w}",
    "encoder.layer.{i}.attention.output.dense.{w}": "layers.{i}.self_attention.out.{w}",
    "encoder.layer.{i}.attention.output.LayerNorm.{w}": "layers.{i}.self_attention.norm.{w}",
    "encoder.layer.{i}.crossattention.self.{p:query|key|value}.{w}": "layers.{i}.cross_attention.{p}.{w}",
    "encoder.layer.{i}.crossattention.output.dense.{w}": "layers.{i}.cross_attention.out.{w}",
    "encoder.layer.{i}.crossattention.output.LayerNorm.{w}": "layers.{i}.cross_attention.norm.{w}",
    "encoder.layer.{i}.intermediate_query.dense.{w}": "layers.{i}.mlp.up.{w}",
    "encoder.layer.{i}.output_query.dense.{w}": "layers.{i}.mlp.down.{w}",
    "encoder.layer.{i}.output_query.LayerNorm.{w}": "layers.{i}.mlp.norm.{w}",
}

EVA_BLOCK = {
    "attn.qkv.weight": "attention.qkv.weight",
    "attn.q_bias": "attention.q_bias",
    "attn.v_bias": "attention.v_bias",
    "attn.proj.{w}": "attention.out.{w}",
    "norm{j}.{w}": "norm{j}.{w}",
    "mlp.fc1.{w}": "mlp.up.{w}",
    "mlp.fc2.{w}": "mlp.down.{w}",
}

# Patterns that every trunk of ImageBind has, then those of one trunk alone.
TRUNK: Table = {
    "modality_preprocessors.{trunk}.cls_token": "{trunk}.class_token",
    "modality_preprocessors.{trunk}.pos_embedding_helper.pos_embed": "{trunk}.positions",
    "modality_trunks.{trunk}.blocks.{i}.attn.in_proj_{w}": "{trunk}.blocks.{i}.attention.qkv.{w}",
    "modality_trunks.{trunk}.blocks.{i}.attn.out_proj.{w}": "{trunk}.blocks.{i}.attention.out.{w}",
    "modality_trunks.{trunk}.blocks.{i}.attn.bias_k": "{trunk}.blocks.{i}.attention.extra_key",
    "modality_trunks.{trunk}.blocks.{i}.attn.bias_v": "{trunk}.blocks.{i}.attention.extra_value",
    "modality_trunks.{trunk}.blocks.{i}.norm_{j}.{w}": "{trunk}.blocks.{i}.norm{j}.{w}",
    "modality_trunks.{trunk}.blocks.{i}.mlp.fc1.{w}": "{trunk}.blocks.{i}.mlp.up.{w}",
    "modality_trunks.{trunk}.blocks.{i}.mlp.fc2.{w}": "{trunk}.blocks.{i}.mlp.down.{w}",
    "modality_heads.{trunk}.0.{w}": "{trunk}.norm.{w}",
    "modality_heads.{trunk}.2.weight": "{trunk}.projection.weight",
    "modality_postprocessors.{trunk}.1.log_logit_scale": "{trunk}.log_logit_scale",
}
OWN: dict[str, Table] = {
    "vision": {
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": "vision.patches.weight",
        "modality_trunks.vision.pre_transformer_layer.0.{w}": "vision.pre_norm.{w}",
    },
    "audio": {
        "modality_preprocessors.audio.rgbt_stem.proj.weight": "audio.patches.weight",
        "modality_preprocessors.audio.rgbt_stem.norm_layer.{w}": "audio.stem_norm.{w}",
    },
    "text": {
        "modality_preprocessors.text.mask": Drop("the causal mask is computed"),
        "modality_preprocessors.text.pos_embed": "text.positions",
        "modality_preprocessors.text.token_embedding.weight": "text.token_embedding.weight",
        "modality_heads.text.proj.0.{w}": "text.norm.{w}",
        "modality_heads.text.proj.1.weight": "text.projection.weight",
    },
}
OUTSIDE: Table = {
    r"modality_preprocessors.{trunk:depth|thermal|imu}.{stem:\w+_stem}.proj.weight": UNUSED_TRUNK,
    r"modality_preprocessors.{trunk:depth|thermal|imu}.{stem:\w+_stem}.norm_layer.{w}": UNUSED_TRUNK,
    "modality_preprocessors.imu.pos_embed": UNUSED_TRUNK,
    "modality_heads.imu.3.weight": UNUSED_TRUNK,
}


def eva_clip(depth: int) -> dict[str, Target]:
    """eva_vit_g.pth onto `EvaClip`.

    Args:
        depth: blocks run; the published file holds 40 and Video-LLaMA runs 39.
    """
    surplus = Drop(f"{depth} blocks are run, this one is not", when=lambda match: int(match["n"]) >= depth)
    return {
        **{f"blocks.{{n}}.{pattern}": surplus for pattern in EVA_BLOCK},
        **{f"blocks.{{i}}.{pattern}": f"blocks.{{i}}.{target}" for pattern, target in EVA_BLOCK.items()},
        "{part:norm|fc_norm|head}.{w}": NOT_RUN,
        "cls_token": "class_token",
        "pos_embed": "positions",
        "patch_embed.proj.{w}": "patches.{w}",
    }


def blip2() -> dict[str, Target]:
    """blip2_pretrained_flant5xxl.pth (under `model`) onto `FrameQFormer`."""
    return {
        "t5_proj.{w}": Drop("projects into the T5 of BLIP-2, which is not used"),
        "query_tokens": "query_tokens",
        "ln_vision.{w}": "input_norm.{w}",
        **before("Qformer.bert.", under("qformer.", Q_FORMER)),
    }


def imagebind(trunks: Collection[str]) -> dict[str, Target]:
    """imagebind_huge.pth onto `ImageBind`.

    Args:
        trunks: those the configuration has, of `vision`, `audio`, `text`; the others are dropped.
    """
    absent = [trunk for trunk in OWN if trunk not in trunks]
    unused = Drop("the configuration has no such trunk")
    return {
        **OUTSIDE,
        **{_only(pattern, ("depth", "thermal", "imu")): UNUSED_TRUNK for pattern in TRUNK},
        **{pattern: unused for trunk in absent for pattern in OWN[trunk]},
        **({_only(pattern, absent): unused for pattern in TRUNK} if absent else {}),
        **{pattern: target for trunk in trunks for pattern, target in OWN[trunk].items()},
        **{_only(pattern, trunks): target for pattern, target in TRUNK.items()},
    }


def video_checkpoint() -> dict[str, Target]:
    """The VL checkpoint (under `model`) onto the video branch's `TemporalQFormer`, all but its `frame_qformer`."""
    return {
        "Qformer.bert.embeddings.position_ids": UNUSED_BUFFER,
        "llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": ROTARY,
        "video_query_tokens": "query_tokens",
        "video_frame_position_embedding.weight": "frame_embedding.table.weight",
        "llama_proj.{w}": "projection.{w}",
        **before("video_Qformer.bert.", under("qformer.", Q_FORMER)),
    }


def audio_checkpoint() -> dict[str, Target]:
    """The AL checkpoint (under `model`) onto the audio branch's `TemporalQFormer`."""
    return {
        "Qformer.bert.embeddings.position_ids": UNUSED_BUFFER,
        "video_Qformer.bert.embeddings.position_ids": UNUSED_BUFFER,
        "llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": ROTARY,
        "audio_encoder.modality_preprocessors.text.mask": COPY,
        "audio_encoder.modality_postprocessors.{trunk}.1.log_logit_scale": COPY,
        "audio_query_tokens": "query_tokens",
        "audio_position_embedding.weight": "frame_embedding.table.weight",
        "audio_llama_proj.{w}": "projection.{w}",
        **before("audio_Qformer.bert.", under("qformer.", Q_FORMER)),
    }


def tables(system: System) -> dict[str, Table]:
    """Every source of a Video-LLaMA, under the names of our whole model; those of branches it lacks are left out."""
    encoders = {name: branch.encoder for name, branch in system.branches.items()}
    found: dict[str, Table] = {"llama": under("decoder.", decoder_table(system.decoder))}
    if "video" in encoders:
        found["eva_vit_g"] = under("branches.video.encoder.", eva_clip(encoders["video"].depth))
        found["blip2"] = under("branches.video.connector.frame_qformer.", blip2())
        found["vl"] = under("branches.video.connector.", video_checkpoint())
    if "audio" in encoders:
        trunks = [trunk for trunk in OWN if getattr(encoders["audio"], trunk)]
        found["imagebind_huge"] = under("branches.audio.encoder.", imagebind(trunks))
        found["al"] = under("branches.audio.connector.", audio_checkpoint())
    return found


def _only(pattern: str, trunks: Collection[str]) -> str:
    return pattern.replace("{trunk}", f"{{trunk:{'|'.join(trunks)}}}")
