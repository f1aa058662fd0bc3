"""Name tables and configuration of the published Video-LLaVA and of its port to transformers.

Source: the state dicts and config.json of LanguageBind/Video-LLaVA-7B, LanguageBind_Image, LanguageBind_Video_merge and
Video-LLaVA-7B-hf. The first holds its towers, which its own code passes over for those of the next two.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from avllm.checkpoints.decoders import decoder_config, decoder_table
from avllm.checkpoints.rename import Drop, Part, Table, Target, before, under
from avllm.checkpoints.videollama2 import OTHER_HALF, projector, tower_from, vision_tower
from avllm.connectors import MlpConnector
from avllm.encoders import LanguageBind
from avllm.encoders.languagebind import IMAGE_TOWER, VIDEO_TOWER
from avllm.errors import CheckpointError
from avllm.model.configuration import BranchConfig, Frames, System, Weights

ENCODER, CONNECTOR, DECODER = "branches.video.encoder.", "branches.video.connector.", "decoder."
TEMPORAL: Table = {
    "temporal_embedding": "embedding",
    "temporal_layer_norm1.{w}": "norm.{w}",
    "temporal_attn.q_proj.{w}": Part("attention.qkv.{w}", 0, of=3),
    "temporal_attn.k_proj.{w}": Part("attention.qkv.{w}", 1, of=3),
    "temporal_attn.v_proj.{w}": Part("attention.qkv.{w}", 2, of=3),
    "temporal_attn.out_proj.{w}": "attention.out.{w}",
}
TEXT_HALF: Table = {
    "text_model.{rest}": OTHER_HALF,
    "{side:text|visual}_projection.weight": OTHER_HALF,
    "logit_scale": OTHER_HALF,
}
# By the name that config.json gives a tower, as it does not hold their sizes.
IMAGE_TOWERS = {"LanguageBind_Image": IMAGE_TOWER}
VIDEO_TOWERS = {"LanguageBind_Video_merge": VIDEO_TOWER}


def image_tower(config: LanguageBind.Config) -> dict[str, Target]:
    """The image tower, without what stands before `embeddings` in its names, onto `LanguageBind`."""
    return under("image.", vision_tower(config.image))


def video_tower(config: LanguageBind.Config) -> dict[str, Target]:
    """The video tower likewise, with its attention over time if the configuration has it."""
    table, depth = under("video.", vision_tower(config.video)), config.video.num_blocks
    if not config.temporal:
        return table
    surplus = Drop(f"{depth} blocks are run, this one is not", when=lambda match: int(match["n"]) >= depth)
    return {
        **{f"encoder.layers.{{n}}.{name}": surplus for name in TEMPORAL},
        **before("encoder.layers.{i}.", under("temporal.{i}.", TEMPORAL)),
        **table,
    }


def tables(system: System) -> dict[str, Table]:
    """Every source of a Video-LLaVA, under the names of our whole model.

    `model` is the original folder, `mm_projector` that file of a stage-1 repository, `languagebind_image` and
    `languagebind_video` the folders of the towers, `hf` the folder of the port, `decoder` one of the language model.
    """
    video = system.branches["video"]
    image, clip = under(ENCODER, image_tower(video.encoder)), under(ENCODER, video_tower(video.encoder))
    connector = before("model.mm_projector.", under(CONNECTOR, projector(video.connector)))
    decoder = under(DECODER, decoder_table(system.decoder))
    port = {
        **before("image_tower.vision_model.", image),
        **before("video_tower.vision_model.", clip),
        **before("image_tower.", image),  # as transformers 5 saves a model that was trained anew
        **before("video_tower.", clip),
        "multi_modal_projector.linear_1.{w}": f"{CONNECTOR}layers.0.{{w}}",
        "multi_modal_projector.linear_2.{w}": f"{CONNECTOR}layers.2.{{w}}",
    }
    return {
        "model": {
            **before("model.image_tower.image_tower.", image),
            **before("model.video_tower.video_tower.", clip),
            **connector,
            **decoder,
        },
        "mm_projector": connector,
        "languagebind_image": {**before("vision_model.", image), **TEXT_HALF},
        "languagebind_video": {**before("vision_model.", clip), **TEXT_HALF},
        "hf": {
            **port,
            **before("language_model.", decoder),
            # The same model in transformers since 4.52, where it is called by other names.
            **before("model.", port),
            **{f"model.language_model.{name.removeprefix('model.')}": to for name, to in decoder.items()},
            "lm_head.weight": decoder["lm_head.weight"],
        },
        "decoder": decoder,
    }


def system_from(config: Mapping[str, Any]) -> System:
    """Our system for a published configuration.

    Args:
        config: config.json of the original (`model_type` llava) or of the port (video_llava). The sizes of the
            original's towers, which it does not hold, may be added as `_image_vision_config` and
            `_video_vision_config`.

    Raises:
        CheckpointError: something in it that is not known; the value is named.
    """
    kind = config.get("model_type", "llava" if "mm_video_tower" in config else None)
    if kind not in ("llava", "video_llava"):
        raise CheckpointError(f"config.json: model_type is {kind!r}, expected llava or video_llava (the port)")
    return _original_system(config) if kind == "llava" else _port_system(config)


def _original_system(config: Mapping[str, Any]) -> System:
    _expect(config, "mm_use_im_start_end", False)
    _expect(config, "mm_use_im_patch_token", False)
    encoder = encoder_from(config)
    media = Frames(
        num_frames=encoder.num_frames,
        sampling="linspace",
        size=encoder.image.image_size,
        resize="crop",
        resample="float_bilinear",
        image_resample="float_bicubic",
        crop_offset="round",
    )
    return System(
        decoder=decoder_config("llama", config),
        prompt="video_llava",
        branches={"video": BranchConfig(media=media, encoder=encoder, connector=connector_from(config))},
        weights=Weights(table="video_llava"),
    )


def _port_system(config: Mapping[str, Any]) -> System:
    _expect(config, "projector_hidden_act", "gelu")
    _expect(config, "multimodal_projector_bias", True)
    strategy, layer = config.get("vision_feature_select_strategy", "default"), config.get("vision_feature_layer", -2)
    if strategy not in ("default", "full") or not isinstance(layer, int):
        raise CheckpointError(
            f"config.json: vision_feature_select_strategy is {strategy!r} and vision_feature_layer {layer!r}, "
            f"expected default or full, and one layer"
        )
    tower = replace(tower_from(config.get("vision_config", {})), layer=layer)
    image = replace(tower, feature="patch" if strategy == "default" else "cls_patch")
    video = replace(tower, feature="cls_patch")
    _, per_frame = video.token_shape((1, 3, video.image_size, video.image_size))
    num_frames = config.get("video_seq_length", 8 * per_frame) // per_frame
    media = Frames(num_frames=num_frames, sampling="uniform", size=tower.image_size, resize="crop", resample="bicubic")
    encoder = LanguageBind.Config(image=image, video=video, temporal=False, num_frames=num_frames)
    text = config.get("text_config", {})
    return System(
        decoder=decoder_config(text.get("model_type", "llama"), text),
        prompt="video_llava_hf",
        branches={"video": BranchConfig(media=media, encoder=encoder, connector=MlpConnector.Config(depth=2))},
        weights=Weights(table="video_llava"),
    )


def encoder_from(config: Mapping[str, Any]) -> LanguageBind.Config:
    """The original's two towers: by their configurations, else by their names.

    Raises:
        CheckpointError: a tower whose sizes are not known, or an image tower with attention over time.
    """
    image, video = config.get("_image_vision_config"), config.get("_video_vision_config")
    if image is not None:
        _expect(image, "add_time_attn", False)
    layer = config.get("mm_vision_select_layer", -2)
    feature = config.get("mm_vision_select_feature", "patch")
    return LanguageBind.Config(
        image=replace(_tower(config, "mm_image_tower", image, IMAGE_TOWERS), layer=layer, feature=feature),
        # The published code keeps the class token of every frame, whatever feature is selected.
        video=replace(_tower(config, "mm_video_tower", video, VIDEO_TOWERS), layer=layer, feature="cls_patch"),
        temporal=video.get("add_time_attn", False) if video is not None else True,
        num_frames=video.get("num_frames", 8) if video is not None else 8,
    )


def connector_from(config: Mapping[str, Any]) -> MlpConnector.Config:
    """The projector: `linear` or `mlp{N}x_gelu`.

    Raises:
        CheckpointError: an unknown `mm_projector_type`.
    """
    kind = config.get("mm_projector_type", "linear")
    found = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if found is None and kind != "linear":
        raise CheckpointError(
            f"config.json: mm_projector_type is {kind!r}, expected linear, mlp2x_gelu or another number of layers"
        )
    return MlpConnector.Config(depth=int(found[1]) if found else 1)


def _tower(config: Mapping[str, Any], key: str, given: Mapping[str, Any] | None, known: Mapping[str, Any]) -> Any:
    if given is not None:
        return tower_from({"model_type": "clip_vision_model", **given})
    name = str(config.get(key, ""))
    found = next((sizes for ending, sizes in known.items() if name.rstrip("/").endswith(ending)), None)
    if found is None:
        raise CheckpointError(
            f"config.json: {key} is {name!r}, whose sizes are not known; known are: {', '.join(known)}; "
            f"add the folder of the tower, which holds its own config.json"
        )
    return found


def _expect(config: Mapping[str, Any], name: str, value: Any) -> None:
    if config.get(name, value) not in (value, None):
        raise CheckpointError(f"config.json: {name} is {config[name]!r}, expected {value!r}; no other is supported")
