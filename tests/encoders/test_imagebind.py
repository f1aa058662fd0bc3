import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avllm.config import parse
from avllm.encoders import ENCODERS, ImageBind
from avllm.encoders.imagebind import AudioConfig, TextConfig, VisionConfig
from avllm.encoders.transformer import Attention

TINY = ImageBind.Config(
    width=6,
    vision=VisionConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2),
    audio=AudioConfig(num_mel_bins=8, num_frames=12, kernel_size=4, stride=2, width=8, depth=2, num_heads=2),
    text=TextConfig(context_length=5, vocab_size=9, width=8, depth=2, num_heads=2),
)


def built(config: ImageBind.Config = TINY) -> ImageBind:
    torch.manual_seed(0)
    model = config.build().eval()
    for parameter in model.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
def test_attention_with_an_extra_key_equals_multihead_attention():
    torch.manual_seed(0)
    ours = Attention(8, 2, has_extra_key=True)
    theirs = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert theirs.bias_k is not None
    assert theirs.bias_v is not None
    ours.qkv.weight.copy_(theirs.in_proj_weight)
    ours.qkv.bias.copy_(theirs.in_proj_bias)
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    ours.extra_key.copy_(theirs.bias_k)  # type: ignore[union-attr]
    ours.extra_value.copy_(theirs.bias_v)  # type: ignore[union-attr]
    x = torch.randn(3, 5, 8)

    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@torch.no_grad()
def test_a_segment_is_one_vector_of_the_logit_scale_and_a_frame_one_unit_vector():
    model = built()

    heard = model(torch.randn(2, 3, 1, 8, 12))
    seen = model.encode_vision(torch.randn(2, 3, 3, 8, 8))

    assert heard.shape == seen.shape == (2, 3, 1, 6)
    torch.testing.assert_close(heard.norm(dim=-1), torch.full((2, 3, 1), 20.0))
    torch.testing.assert_close(seen.norm(dim=-1), torch.ones(2, 3, 1))


@torch.no_grad()
def test_the_logit_scale_is_clipped_at_100():
    model = built()
    model.audio.log_logit_scale.fill_(9.0)  # type: ignore[union-attr]

    torch.testing.assert_close(model(torch.randn(1, 1, 1, 8, 12)).norm(), torch.tensor(100.0))


@torch.no_grad()
def test_a_still_image_is_a_clip_of_equal_frames():
    model, frames = built(), torch.randn(1, 2, 3, 8, 8)

    clips = torch.stack([frames, frames], dim=3)

    torch.testing.assert_close(model.encode_vision(frames), model.encode_clips(clips))


@torch.no_grad()
def test_text_reads_up_to_its_end_and_nothing_after():
    model = built()
    ids = torch.tensor([[7, 3, 8, 0, 0]])

    out = model.encode_text(ids)

    torch.testing.assert_close(out, model.encode_text(torch.tensor([[7, 3, 8, 5, 2]])))
    assert not torch.allclose(out, model.encode_text(torch.tensor([[7, 4, 8, 0, 0]])))
    torch.testing.assert_close(out.norm(), torch.tensor(1 / 0.07))


@torch.no_grad()
def test_positions_of_another_image_size_are_interpolated():
    model = built()
    assert model.encode_vision(torch.randn(1, 1, 3, 16, 12)).shape == (1, 1, 1, 6)


def test_names_a_segment_of_another_size():
    with pytest.raises(ValueError, match=r"segments are 8 mel bins x 13 frames, the audio encoder takes 8 x 12"):
        built()(torch.zeros(1, 1, 1, 8, 13))


def test_names_a_trunk_that_is_not_there():
    model = ImageBind.Config(width=6, audio=TINY.audio).build()
    with pytest.raises(ValueError, match=r"no vision trunk; add encoder\.vision"):
        model.encode_vision(torch.zeros(1, 1, 3, 8, 8))


def test_the_yaml_form_builds_the_published_sizes():
    with torch.device("meta"):
        model = parse(ENCODERS["imagebind"], {"vision": {}, "audio": {}, "text": {}}).build()

    assert model.audio.positions.shape == (1, 229, 768)
    assert model.vision.positions.shape == (1, 257, 1280)
    assert model.width == 1024


def test_the_scale_of_sounds_is_no_parameter_and_that_of_texts_is():
    names = dict(TINY.build().named_parameters())
    assert "audio.log_logit_scale" not in names
    assert "text.log_logit_scale" in names


def test_gradients_of_a_contrast_reach_both_trunks():
    model = ImageBind.Config(width=6, vision=TINY.vision, audio=TINY.audio).build()
    heard = model(torch.randn(4, 1, 1, 8, 12))[:, 0, 0]
    seen = model.encode_vision(torch.randn(4, 1, 3, 8, 8))[:, 0, 0]

    F.cross_entropy(heard @ seen.T, torch.arange(4)).backward()

    assert [name for name, p in model.named_parameters() if p.grad is None] == []
