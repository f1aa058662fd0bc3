from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM
from transformers.models.video_llava.modeling_video_llava import VideoLlavaConfig, VideoLlavaForConditionalGeneration

from avllm.checkpoints.rename import load, published_names, rename, unshared_state
from avllm.checkpoints.video_llava import system_from, tables
from avllm.connectors import MlpConnector
from avllm.encoders.languagebind import IMAGE_TOWER, VIDEO_TOWER
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System

DECODER: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TOWER: dict[str, Any] = {
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 6,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
PUBLISHED: dict[str, Any] = {
    **DECODER,
    "model_type": "llava",
    "mm_image_tower": "LanguageBind/LanguageBind_Image",
    "mm_video_tower": "LanguageBind/LanguageBind_Video_merge",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 12,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "_image_vision_config": {**TOWER, "add_time_attn": False, "num_frames": 1},
    "_video_vision_config": {**TOWER, "add_time_attn": True, "num_frames": 4},
}
VIDEO = ("branches.video.encoder.video.", "branches.video.encoder.temporal.")


def model_of(system: System, *, on_meta: bool = False) -> AvllmForConditionalGeneration:
    with torch.device("meta" if on_meta else "cpu"):
        return AvllmForConditionalGeneration(AvllmConfig.from_system(system)).eval()


def tower_weights() -> dict[str, Tensor]:
    clip = CLIPVisionConfig(**TOWER)
    return dict(CLIPVisionModel(clip).state_dict())


def temporal_weights() -> dict[str, Tensor]:
    weights = {}
    for layer in range(3):
        block = f"encoder.layers.{layer}."
        weights[f"{block}temporal_embedding"] = torch.randn(1, 4, 12)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights[f"{block}temporal_attn.{name}.weight"] = torch.randn(12, 12)
            weights[f"{block}temporal_attn.{name}.bias"] = torch.randn(12)
        weights |= {f"{block}temporal_layer_norm1.{name}": torch.randn(12) for name in ("weight", "bias")}
    return weights


def original_weights() -> dict[str, Tensor]:
    """A checkpoint of `PUBLISHED`, its names written down apart from the tables."""
    weights = dict(LlamaForCausalLM(LlamaConfig(**DECODER)).state_dict())
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights |= {f"model.image_tower.image_tower.{k}": v for k, v in tower_weights().items()}
    video = {**tower_weights(), **temporal_weights(), "embeddings.position_ids": torch.arange(5)[None]}
    weights |= {f"model.video_tower.video_tower.{k}": v for k, v in video.items()}
    for index, width in ((0, 12), (2, 16)):
        weights[f"model.mm_projector.{index}.weight"] = torch.randn(16, width)
        weights[f"model.mm_projector.{index}.bias"] = torch.randn(16)
    return weights


def test_the_original_fills_the_whole_model_and_names_what_it_leaves_out():
    system, weights = system_from(PUBLISHED), original_weights()
    model = model_of(system)

    renamed = rename(weights, tables(system)["model"])
    load(model, renamed)

    video = model.branches["video"]
    block = "model.video_tower.video_tower.encoder.layers.1.temporal_attn"
    parts = torch.cat([weights[f"{block}.{name}_proj.weight"] for name in "qkv"])
    assert torch.equal(video.get_parameter("encoder.temporal.1.attention.qkv.weight"), parts)
    behind = {name for name in renamed.dropped if "encoder.layers.2." in name}
    rest = {name.rpartition("tower.")[2] for name in renamed.dropped if name not in behind}
    assert len(behind) == 16 + 16 + 11
    assert rest == {
        "post_layernorm.weight",
        "post_layernorm.bias",
        "embeddings.position_ids",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }


@pytest.mark.parametrize("lost", ["video_tower.encoder.layers.0.temporal_embedding", "mm_projector.2.bias"])
def test_a_missing_weight_is_named(lost: str):
    system, weights = system_from(PUBLISHED), original_weights()
    name = next(name for name in weights if name.endswith(lost))
    del weights[name]

    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(model_of(system, on_meta=True), rename(weights, tables(system)["model"]))


def test_a_missing_part_of_the_attention_over_time_is_named():
    system, weights = system_from(PUBLISHED), original_weights()
    del weights["model.video_tower.video_tower.encoder.layers.0.temporal_attn.k_proj.bias"]

    with pytest.raises(CheckpointError, match=r"missing model\.video_tower.*layers\.0\.temporal_attn\.k_proj\.bias"):
        rename(weights, tables(system)["model"])


@pytest.mark.parametrize(
    ("kind", "part", "weights"),
    [
        ("languagebind_image", "branches.video.encoder.image.", tower_weights()),
        ("languagebind_video", VIDEO, {**tower_weights(), **temporal_weights()}),
    ],
)
def test_the_folder_of_a_tower_fills_that_tower(kind: str, part: str | tuple[str, ...], weights: dict[str, Tensor]):
    system = system_from(PUBLISHED)
    weights = {f"vision_model.{name}": tensor for name, tensor in weights.items()}
    weights |= {"logit_scale": torch.ones(()), "text_projection.weight": torch.ones(2, 2)}
    weights["text_model.embeddings.token_embedding.weight"] = torch.ones(2, 2)

    renamed = rename(weights, tables(system)[kind])

    expected = {f"branches.video.{name}" for name in model_of(system, on_meta=True).branches["video"].state_dict()}
    assert renamed.state.keys() == {name for name in expected if name.startswith(part)}


def test_every_weight_of_ours_has_its_name_in_both_forms():
    for name, kind in (("video_llava_7b", "model"), ("video_llava_7b_hf", "hf")):
        system = System.from_yaml(name)
        table = tables(system)[kind]

        state = unshared_state(model_of(system, on_meta=True))[0]

        assert not [ours for ours in state if not published_names(ours, table)]


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_the_port_computes_what_transformers_computes(tmp_path: Path, strategy: Literal["default", "full"]):
    torch.manual_seed(0)
    config = VideoLlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER, "hidden_act": "quick_gelu"},
        text_config={"model_type": "llama", **DECODER, "pad_token_id": 39},
        image_token_index=37,
        video_token_index=38,
        video_seq_length=15,
        vision_feature_select_strategy=strategy,
    )
    theirs = VideoLlavaForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    system = system_from(config.to_dict())
    ours = model_of(system)
    load(ours, rename(load_file(tmp_path / "model.safetensors"), tables(system)["hf"]))
    image, video = torch.randn(1, 3, 12, 12), torch.randn(1, 3, 3, 12, 12)
    settings = system.branches["video"]
    counts = [settings.num_tokens((1, 3, 12, 12)), settings.num_tokens((3, 3, 12, 12))]
    ids = torch.tensor([[1, *[38] * counts[1], 5, *[37] * counts[0], 6, 7]])

    slots = ids.masked_fill((ids == 37) | (ids == 38), ours.config.slot_ids()["video"])
    out = ours(input_ids=slots, media={"video": [video[0], image]}).logits

    expected = theirs(input_ids=ids, pixel_values_images=image, pixel_values_videos=video).logits
    assert counts == [4 if strategy == "default" else 5, 15]
    assert settings.media.num_frames == 3
    assert torch.allclose(out, expected, atol=1e-5)


def test_settings_follow_the_configuration():
    settings = system_from(PUBLISHED).branches["video"]

    assert settings.connector == MlpConnector.Config(depth=2)
    assert (settings.media.num_frames, settings.media.size, settings.media.sampling) == (4, 12, "linspace")
    assert (settings.encoder.image.feature, settings.encoder.video.feature) == ("patch", "cls_patch")
    assert settings.encoder.video.activation == "gelu"
    assert settings.num_tokens((1, 3, 12, 12)) == 4
    assert settings.num_tokens((4, 3, 12, 12)) == 4 * 5


def test_towers_are_known_by_name_where_their_sizes_are_not_given():
    config = {name: value for name, value in PUBLISHED.items() if not name.startswith("_")}

    encoder = system_from(config).branches["video"].encoder

    assert (encoder.image, encoder.video) == (IMAGE_TOWER, VIDEO_TOWER)
    assert (encoder.temporal, encoder.num_frames) == (True, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava_next"}, "model_type is 'llava_next', expected llava or video_llava"),
        ({"mm_projector_type": "resampler"}, "mm_projector_type is 'resampler', expected linear, mlp2x_gelu"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True, expected False"),
        ({"mm_image_tower": "clip", "_image_vision_config": None}, "mm_image_tower is 'clip', whose sizes are not"),
        ({"_image_vision_config": {**TOWER, "add_time_attn": True}}, "add_time_attn is True, expected False"),
        ({"model_type": "video_llava", "vision_feature_layer": [-2, -1]}, r"vision_feature_layer \[-2, -1\]"),
        ({"model_type": "video_llava", "projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        system_from({**PUBLISHED, **changes})
