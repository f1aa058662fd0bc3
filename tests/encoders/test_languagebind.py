from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel

from avllm.config import parse
from avllm.encoders import ENCODERS, LanguageBind
from avllm.encoders.languagebind import TemporalAttention

TOWER = {
    "image_size": 18,
    "patch_size": 6,
    "width": 16,
    "depth": 3,
    "num_heads": 2,
    "mlp_width": 24,
    "activation": "gelu",
    "layer": -2,
}
THEIRS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 18,
    "patch_size": 6,
    "hidden_act": "gelu",
}


def built(**changes: object) -> LanguageBind:
    torch.manual_seed(0)
    settings = {"image": TOWER, "video": {**TOWER, "feature": "cls_patch"}, "num_frames": 4, **changes}
    return parse(ENCODERS["languagebind"], settings).build().eval()


def clip(seed: int, encoder: torch.nn.Module) -> CLIPVisionModel:
    """A CLIP of transformers whose weights the tower takes."""
    torch.manual_seed(seed)
    theirs = CLIPVisionModel(CLIPVisionConfig(**THEIRS)).eval()
    ours = encoder.get_submodule("tower")
    ours.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if name in ours.state_dict()})
    return theirs


@torch.no_grad()
def test_one_frame_goes_through_the_image_tower_without_its_class_token():
    encoder, frames = built(), torch.randn(2, 1, 3, 18, 18)
    theirs = clip(1, encoder.image)

    out = encoder(frames)

    hidden = theirs(frames[:, 0], output_hidden_states=True).hidden_states[-2]
    assert out.shape == (2, *encoder.config.token_shape((1, 3, 18, 18)), 16) == (2, 1, 9, 16)
    assert torch.allclose(out[:, 0], hidden[:, 1:], atol=1e-5)


@torch.no_grad()
def test_without_attention_over_time_the_video_tower_is_a_clip():
    encoder, frames = built(temporal=False), torch.randn(2, 3, 3, 18, 18)
    theirs = clip(1, encoder.video)

    out = encoder(frames)

    hidden = theirs(frames.flatten(0, 1), output_hidden_states=True).hidden_states[-2]
    assert out.shape == (2, *encoder.config.token_shape((3, 3, 18, 18)), 16) == (2, 3, 10, 16)
    assert torch.allclose(out, hidden.unflatten(0, (2, 3)), atol=1e-5)
    assert not [name for name in encoder.state_dict() if "temporal" in name]


def by_hand(tokens: Tensor, part: TemporalAttention) -> Tensor:
    """The same by the attention of torch, place after place."""
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    theirs.in_proj_weight.copy_(part.attention.qkv.weight)
    theirs.in_proj_bias.copy_(part.attention.qkv.bias)
    theirs.out_proj.load_state_dict(part.attention.out.state_dict())
    places = [place + part.embedding[0, : len(place)] for place in tokens.unbind(1)]
    return torch.stack([place + theirs(n := part.norm(place)[None], n, n)[0][0] for place in places], dim=1)


@torch.no_grad()
def test_the_video_tower_attends_over_time_before_every_block():
    encoder, frames = built(), torch.randn(1, 4, 3, 18, 18)
    theirs = clip(2, encoder.video)
    for weight in encoder.temporal.parameters():
        weight.normal_(std=0.3)

    tokens = theirs.pre_layrnorm(theirs.embeddings(frames[0]))
    for part, block in zip(encoder.temporal, theirs.encoder.layers, strict=False):
        assert isinstance(part, TemporalAttention)
        tokens = block(by_hand(tokens, part), None)

    assert len(encoder.temporal) == 2
    assert torch.allclose(encoder(frames)[0], tokens, atol=1e-4)


@torch.no_grad()
def test_a_short_clip_uses_the_first_places_and_clips_do_not_mix():
    encoder, frames = built(), torch.randn(2, 2, 3, 18, 18)
    part = encoder.temporal[0]
    assert isinstance(part, TemporalAttention)

    both = encoder(frames)
    part.embedding[:, 2:] = 100.0

    assert torch.allclose(encoder(frames), both)
    assert torch.allclose(torch.cat([encoder(clip[None]) for clip in frames]), both, atol=1e-5)
    swapped = frames.flip(1)
    assert not torch.allclose(encoder(swapped).flip(1), both, atol=1e-3)


@torch.no_grad()
def test_other_sizes_interpolate_the_positions():
    encoder = built()

    assert encoder(torch.randn(1, 3, 3, 24, 12)).shape == (1, 3, 9, 16)
    assert encoder(torch.randn(1, 1, 3, 24, 12)).shape == (1, 1, 8, 16)


def test_a_clip_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="clip has 5 frames, the video tower has places for 4"):
        built()(torch.randn(1, 5, 3, 18, 18))


def test_towers_of_two_widths_are_refused():
    config = LanguageBind.Config()

    with pytest.raises(ValueError, match=r"encoder\.image\.width is 512 and encoder\.video\.width 1024"):
        replace(config, image=replace(config.image, width=512)).build()


def test_siglip_is_refused():
    with pytest.raises(ValueError, match="expected the family clip, got siglip, clip"):
        built(image={**TOWER, "family": "siglip"})


def test_gradients_reach_the_attention_over_time():
    encoder = built()

    encoder(torch.randn(1, 2, 3, 18, 18)).square().mean().backward()

    part = encoder.temporal[0]
    assert isinstance(part, TemporalAttention)
    assert part.embedding.grad is not None
    assert part.embedding.grad[:, :2].abs().sum() > 0
    assert part.embedding.grad[:, 2:].abs().sum() == 0
