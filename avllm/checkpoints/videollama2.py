"""Name tables and configuration of the published VideoLLaMA 2 and 2.1.

Source: the state dicts and config.json of DAMO-NLP-SG/VideoLLaMA2-7B, -7B-16F, -8x7B, -72B, VideoLLaMA2.1-7B-16F and
-7B-AV: one file holds towers, projectors and decoder; mm_projector.bin of a -Base repository the projector alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from avllm.checkpoints.beats import beats, beats_from
from avllm.checkpoints.decoders import OUTSIDE, decoder_config, decoder_table
from avllm.checkpoints.rename import Drop, Table, Target, before, under
from avllm.connectors import MlpConnector, Stc
from avllm.encoders import Clip
from avllm.errors import CheckpointError
from avllm.media import FbankConfig
from avllm.model.configuration import CLIP_MEAN, CLIP_STD, BranchConfig, Frames, System, Weights

NOT_READ = Drop("the tokens are taken before the norm and the head behind the blocks")
OTHER_HALF = Drop("the half of CLIP or SigLIP that reads text")
COMPUTED = Drop("recomputed from the config")
BLOCK = ("self_attn.{p:q_proj|k_proj|v_proj|out_proj}.{w}", "layer_norm{j:1|2}.{w}", "mlp.fc{j:1|2}.{w}")
EMBEDDINGS = (
    "embeddings.class_embedding",
    "embeddings.patch_embedding.{w}",
    "embeddings.position_embedding.weight",
    "pre_layrnorm.{w}",  # the published spelling
)
BEHIND = (
    "post_layernorm.{w}",
    "head.probe",
    "head.attention.in_proj_{w}",
    "head.attention.out_proj.{w}",
    "head.layernorm.{w}",
    "head.mlp.fc{j:1|2}.{w}",
)
BOTTLENECK = {"conv1": "expand", "conv2": "depthwise", "conv3": "project", "downsample": "shortcut"}

DECODERS = {
    "videollama2": "llama",
    "videollama2_mistral": "mistral",
    "videollama2_mixtral": "mixtral",
    "videollama2_qwen2": "qwen2",
}
SIGLIP = {"family": "siglip", "activation": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
# By the name that `mm_vision_tower` ends with, as a published config.json does not hold their sizes.
TOWERS = {
    "clip-vit-large-patch14-336": Clip.Config(),
    "clip-vit-large-patch14": Clip.Config(image_size=224),
    "siglip-so400m-patch14-384": Clip.Config(**SIGLIP, image_size=384, width=1152, depth=27, mlp_width=4304),
}


def vision_tower(config: Clip.Config) -> dict[str, Target]:
    """CLIP or SigLIP as `transformers` names it, without what stands before `embeddings` there, onto `Clip`.

    Args:
        config: of our encoder, which may run fewer blocks than the tower has.
    """
    surplus = Drop(
        f"{config.num_blocks} blocks are run, this one is not", when=lambda match: int(match["n"]) >= config.num_blocks
    )
    return {
        "embeddings.position_ids": COMPUTED,
        **{name: f"tower.{name}" for name in EMBEDDINGS},
        **{f"encoder.layers.{{n}}.{name}": surplus for name in BLOCK},
        **{f"encoder.layers.{{i}}.{name}": f"tower.encoder.layers.{{i}}.{name}" for name in BLOCK},
        **dict.fromkeys(BEHIND, NOT_READ),
    }


def projector(config: MlpConnector.Config | Stc.Config) -> dict[str, Target]:
    """`mm_projector`, without that word, onto our connector."""
    if isinstance(config, MlpConnector.Config):
        return {"{w}": "layers.0.{w}"} if config.depth == 1 else {"{i}.{w}": "layers.{i}.{w}"}
    table: dict[str, Target] = {"sampler.0.{w}": "sampler.window.{w}", "readout.{i}.{w}": "projection.{i}.{w}"}
    for stage, ours in (("s1", "before"), ("s2", "after")):
        for block in range(config.depth):
            published, target = f"{stage}.b{block + 1}", f"{ours}.{block}"
            for conv, name in BOTTLENECK.items():
                table[f"{published}.{conv}.conv.weight"] = f"{target}.{name}.conv.weight"
                table[f"{published}.{conv}.bn.{{w}}"] = f"{target}.{name}.norm.{{w}}"
            table[f"{published}.se.fc1.{{w}}"] = f"{target}.excite.down.{{w}}"
            table[f"{published}.se.fc2.{{w}}"] = f"{target}.excite.up.{{w}}"
    return table


def tables(system: System) -> dict[str, Table]:
    """Every source of a VideoLLaMA 2, under the names of our whole model.

    `model` is the folder of a chat checkpoint, `mm_projector` that file of a -Base repository, `vision_tower` a folder
    of CLIP or SigLIP, `decoder` one of the language model; with sound also `beats`, a BEATs file, and `audio_tower` and
    `mm_projector_a`, what its training wrote.
    """
    video = system.branches["video"]
    tower = under("branches.video.encoder.", vision_tower(video.encoder))
    connector = before("model.mm_projector.", under("branches.video.connector.", projector(video.connector)))
    decoder = under("decoder.", decoder_table(system.decoder))
    sound = sound_tables(system.branches["audio"]) if "audio" in system.branches else {}
    heard = {**sound.get("audio_tower", {}), **sound.get("mm_projector_a", {})}
    return {
        "model": {**before("model.vision_tower.vision_tower.vision_model.", tower), **connector, **heard, **decoder},
        "mm_projector": connector,
        "vision_tower": {
            **before("vision_model.", tower),
            "text_model.{rest}": OTHER_HALF,
            "{side:text|visual}_projection.weight": OTHER_HALF,
            "logit_{part:scale|bias}": OTHER_HALF,
        },
        "decoder": decoder,
        **sound,
    }


def sound_tables(branch: BranchConfig) -> dict[str, Table]:
    """The sources of the audio branch."""
    ear = under("branches.audio.encoder.", beats(branch.encoder))
    connector = under("branches.audio.connector.", projector(branch.connector))
    return {
        "beats": ear,
        "audio_tower": before("model.audio_tower.", ear),
        "mm_projector_a": before("model.mm_projector_a.", connector),
    }


def system_from(config: Mapping[str, Any]) -> System:
    """Our system for a published configuration.

    Args:
        config: config.json; the sizes of the vision tower, which it does not hold, may be added as `vision_config`,
            the `cfg` of BEATs as `beats_cfg`.

    Raises:
        CheckpointError: a decoder, a projector or a vision tower that is not known; the value is named.
    """
    encoder, num_frames = encoder_from(config), config.get("num_frames") or 8
    video = BranchConfig(media=frames_for(encoder, num_frames), encoder=encoder, connector=connector_from(config))
    return System(
        decoder=decoder_from(config),
        prompt=prompt_for(config["model_type"]),
        branches={"video": video, "audio": sound_from(config)} if config.get("mm_audio_tower") else {"video": video},
        weights=Weights(table="videollama2"),
    )


def sound_from(config: Mapping[str, Any]) -> BranchConfig:
    """The audio branch of a published configuration.

    Raises:
        CheckpointError: an unknown `mm_projector_a_type`, or a BEATs unlike the published ones.
    """
    kind = config.get("mm_projector_a_type", "linear")
    mlp = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if mlp is None and kind != "linear":
        raise CheckpointError(f"config.json: mm_projector_a_type is {kind!r}, expected linear or mlp2x_gelu")
    return BranchConfig(
        media=FbankConfig(),
        encoder=beats_from(config.get("beats_cfg") or {}),
        connector=MlpConnector.Config(depth=int(mlp[1]) if mlp else 1),
    )


def decoder_from(config: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's part of a published configuration."""
    kind = DECODERS.get(config.get("model_type", ""))
    if kind is None:
        raise CheckpointError(
            f"config.json: model_type is {config.get('model_type')!r}, expected one of: {', '.join(DECODERS)}"
        )
    return decoder_config(kind, config)


def prompt_for(model_type: str) -> str:
    """The prompt of a published model type; a Mixtral speaks as a Mistral does."""
    return "videollama2_qwen2" if model_type.endswith("qwen2") else "videollama2_mistral"


def encoder_from(config: Mapping[str, Any]) -> Clip.Config:
    """The vision tower of a published configuration: by `vision_config`, else by the name of `mm_vision_tower`."""
    name = str(config.get("mm_vision_tower", ""))
    given = config.get("vision_config")
    if given is not None:
        tower = tower_from(given)
    else:
        tower = next((sizes for key, sizes in TOWERS.items() if name.rstrip("/").endswith(key)), None)
    if tower is None:
        raise CheckpointError(
            f"config.json: mm_vision_tower is {name!r}, whose sizes are not known; known are: {', '.join(TOWERS)}; "
            f"add the folder of the tower, which holds its own config.json"
        )
    layer = config.get("mm_vision_select_layer", -2)
    return replace(tower, layer=layer, feature=config.get("mm_vision_select_feature", "patch"))


def tower_from(vision: Mapping[str, Any]) -> Clip.Config:
    """Our encoder for a `CLIPVisionConfig` or `SiglipVisionConfig` as plain data.

    Raises:
        CheckpointError: another kind of tower.
    """
    kind = vision.get("model_type")
    if kind not in ("clip_vision_model", "siglip_vision_model"):
        raise CheckpointError(
            f"vision_config.model_type is {kind!r}, expected clip_vision_model or siglip_vision_model"
        )
    known = {field.name for field in fields(CONFIG_MAPPING[kind])} - OUTSIDE
    sizes: Any = CONFIG_MAPPING[kind](**{name: vision[name] for name in vision if name in known})
    return Clip.Config(
        family="clip" if kind == "clip_vision_model" else "siglip",
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        width=sizes.hidden_size,
        depth=sizes.num_hidden_layers,
        num_heads=sizes.num_attention_heads,
        mlp_width=sizes.intermediate_size,
        activation=sizes.hidden_act,
        layer_norm_eps=sizes.layer_norm_eps,
    )


def connector_from(config: Mapping[str, Any]) -> MlpConnector.Config | Stc.Config:
    """The projector of a published configuration.

    Raises:
        CheckpointError: an unknown `mm_projector_type`.
    """
    kind = config.get("mm_projector_type", "linear")
    mlp = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if mlp or kind == "linear":
        return MlpConnector.Config(depth=int(mlp[1]) if mlp else 1, averages_frames=True)
    known = {
        "stc_connector": Stc.Config(),
        "stc_connector_v35": Stc.Config(padding=0),
        "stp_connector": Stc.Config(sampler="pool"),
        "spatial_conv": Stc.Config(depth=0, stride=(1, 2, 2)),
        "spatial_pool": Stc.Config(depth=0, stride=(1, 2, 2), sampler="pool"),
    }
    if kind not in known:
        names = ", ".join(("linear", "mlp2x_gelu", *known))
        raise CheckpointError(f"config.json: mm_projector_type is {kind!r}, expected one of: {names}")
    return known[kind]


def projector_type(names: Iterable[str]) -> str | None:
    """The `mm_projector_type` that the keys of a checkpoint tell; None when it holds no projector.

    STC and STC v3.5 have the same keys and count as `stc_connector`.
    """
    start = "model.mm_projector."
    keys = {name.removeprefix(start) for name in names if name.startswith(start)}
    if not keys:
        return None
    if all(re.fullmatch(r"\d+\.(weight|bias)", key) for key in keys):
        return f"mlp{len({key.partition('.')[0] for key in keys})}x_gelu"
    if keys <= {"weight", "bias"}:
        return "linear"
    has_stages, has_convolution = any(key.startswith("s1.") for key in keys), "sampler.0.weight" in keys
    if has_stages:
        return "stc_connector" if has_convolution else "stp_connector"
    return "spatial_conv" if has_convolution else "spatial_pool"


def with_projector(system: System, names: Iterable[str]) -> System:
    """The system with the projector that the keys of a checkpoint tell; of STC and STC v3.5 it keeps its own.

    Args:
        system: one of the published sizes.
        names: published keys of a checkpoint without a configuration.
    """
    kind, video = projector_type(names), system.branches["video"]
    if kind is None or (kind == "stc_connector" and video.connector in (Stc.Config(), Stc.Config(padding=0))):
        return system
    connector = connector_from({"mm_projector_type": kind})
    return replace(system, branches={**system.branches, "video": replace(video, connector=connector)})


def frames_for(encoder: Clip.Config, num_frames: int) -> Frames:
    """How the published evaluation prepares pictures; an image is repeated to be a video."""
    is_clip = encoder.family == "clip"
    return Frames(
        num_frames=num_frames,
        image_frames=num_frames,
        sampling="middle",
        source_fps=3.0,
        size=encoder.image_size,
        resize="crop" if is_clip else "squash",
        resample="bicubic",
        mean=CLIP_MEAN if is_clip else (0.5, 0.5, 0.5),
        std=CLIP_STD if is_clip else (0.5, 0.5, 0.5),
    )
