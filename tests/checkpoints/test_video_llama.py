import json
from pathlib import Path

import pytest
import torch

from avllm.checkpoints.rename import problems, published_names, rename
from avllm.checkpoints.video_llama import eva_clip, imagebind, tables
from avllm.encoders import EvaClip, ImageBind
from avllm.encoders.imagebind import AudioConfig, TextConfig, VisionConfig
from avllm.errors import CheckpointError
from avllm.model import System

MANIFESTS = Path(__file__).parents[1] / "golden" / "video_llama" / "manifests"


def published(name: str) -> dict[str, torch.Tensor]:
    keys = json.loads((MANIFESTS / name).read_text())["keys"]
    return {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, (shape, dtype) in keys.items()}


def test_the_published_imagebind_fills_all_three_trunks():
    with torch.device("meta"):
        model = ImageBind.Config(vision=VisionConfig(), audio=AudioConfig(), text=TextConfig()).build()

    renamed = rename(published("imagebind_huge.pth.json"), imagebind(("vision", "audio", "text")))

    assert problems({name: tensor.shape for name, tensor in model.state_dict().items()}, renamed) == []
    assert set(renamed.dropped.values()) == {"outside the systems here", "the causal mask is computed"}
    named = [key for key, reason in renamed.dropped.items() if reason.startswith("outside")]
    assert all(any(f".{trunk}." in key for trunk in ("depth", "thermal", "imu")) for key in named)


@pytest.mark.parametrize("key", ["modality_trunks.depth.blocks.0.attn.more", "modality_heads.imu.9.weight", "blocks"])
def test_a_trunk_that_is_left_out_hides_no_unknown_key(key: str):
    with pytest.raises(CheckpointError, match=f"does not know {key}"):
        rename({key: torch.zeros(1)}, imagebind(("audio",)))


def test_the_40th_block_is_dropped_with_its_reason():
    with torch.device("meta"):
        model = EvaClip.Config().build()

    renamed = rename(published("eva_vit_g.pth.json"), eva_clip(39))

    assert problems({name: tensor.shape for name, tensor in model.state_dict().items()}, renamed) == []
    assert set(renamed.dropped.values()) == {"39 blocks are run, this one is not"}
    assert all(key.startswith("blocks.39.") for key in renamed.dropped)


def test_every_weight_of_ours_has_a_published_name():
    known = tables(System.from_yaml("video_llama_7b"))

    assert published_names("branches.video.encoder.blocks.3.attention.q_bias", known["eva_vit_g"]) == (
        "blocks.3.attn.q_bias",
    )
    assert published_names(
        "branches.video.connector.frame_qformer.qformer.layers.2.cross_attention.key.bias", known["blip2"]
    ) == ("Qformer.bert.encoder.layer.2.crossattention.self.key.bias",)
    assert published_names("branches.audio.encoder.audio.blocks.0.norm2.weight", known["imagebind_huge"]) == (
        "modality_trunks.audio.blocks.0.norm_2.weight",
    )
    assert published_names("branches.audio.connector.projection.bias", known["al"]) == ("audio_llama_proj.bias",)
    assert published_names("branches.audio.connector.projection.bias", known["vl"]) == ()
    assert published_names("decoder.model.norm.weight", known["llama"]) == ("model.norm.weight",)
