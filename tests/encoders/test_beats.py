import re

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wavlm.modeling_wavlm import WavLMConfig, WavLMEncoder

from avllm.config import parse
from avllm.encoders import ENCODERS, Beats
from avllm.encoders.beats import RelativePosition, padded_tokens

SIZES = {
    "patch_size": 4,
    "patch_width": 6,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_width": 24,
    "conv_kernel": 6,
    "conv_groups": 2,
    "num_buckets": 16,
    "max_distance": 12,
}
# Names of WavLM -> ours, all of them applied.
RENAMED = (
    ("pos_conv_embed.conv.bias", "positions.bias"),
    ("pos_conv_embed.conv.parametrizations.weight.original0", "positions.gain"),
    ("pos_conv_embed.conv.parametrizations.weight.original1", "positions.direction"),
    ("layers.0.attention.rel_attn_embed.weight", "relative_position.table.weight"),
    ("gru_rel_pos_const", "gate_scale"),
    ("gru_rel_pos_linear", "gate"),
    ("out_proj", "out"),
    ("feed_forward.intermediate_dense", "mlp.up"),
    ("feed_forward.output_dense", "mlp.down"),
    ("final_layer_norm", "norm2"),
    (r"(layers\.\d+\.)layer_norm", r"\1norm1"),
    ("layer_norm", "norm"),
    (r"layers\.(\d)", r"blocks.\1"),
)


def built(**changes: object) -> Beats:
    torch.manual_seed(0)
    encoder = parse(ENCODERS["beats"], {**SIZES, **changes}).build().eval()
    for parameter in encoder.parameters():  # large enough that every part tells
        parameter.data += 0.3 * torch.randn_like(parameter)
    return encoder


def wavlm_of(encoder: Beats) -> WavLMEncoder:
    """transformers' WavLM with the same weights; its gate reads the tokens, ours the query."""
    config = encoder.config
    theirs = WavLMEncoder(
        WavLMConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            num_buckets=config.num_buckets,
            max_bucket_distance=config.max_distance,
            num_conv_pos_embeddings=config.conv_kernel,
            num_conv_pos_embedding_groups=config.conv_groups,
        )
    ).eval()
    own, state = encoder.state_dict(), {}
    for name, tensor in theirs.state_dict().items():
        ours = name
        for pattern, replacement in RENAMED:
            ours = re.sub(pattern, replacement, ours)
        joined = re.fullmatch(r"(.+)\.([qkv])_proj\.(\w+)", ours)
        if joined is None:
            state[name] = own[ours].reshape(tensor.shape)
        else:
            state[name] = own[f"{joined[1]}.qkv.{joined[3]}"].chunk(3)["qkv".index(joined[2])]
    theirs.load_state_dict(state)
    return theirs


@torch.no_grad()
def test_equals_wavlm_where_the_query_is_the_token():
    encoder = built(is_deep_norm=False)
    for block in encoder.blocks:
        block.attention.qkv.weight[:16], block.attention.qkv.bias[:16] = torch.eye(16), 0.0
    tokens = torch.randn(2, 15, 16)
    encoder.tokens = lambda pictures: tokens  # type: ignore[method-assign]

    ours = encoder(torch.zeros(1, 2, 1, 12, 20))

    theirs = wavlm_of(encoder)(tokens).last_hidden_state
    assert torch.allclose(ours[0], theirs, atol=2e-5)


@torch.no_grad()
def test_patches_of_one_moment_stand_together_and_the_rest_is_left_out():
    encoder, pictures = built(), torch.randn(2, 3, 1, 10, 22)

    tokens = encoder.tokens(pictures[0])
    later = pictures.clone()
    later[..., 8:12] += 1.0  # the third column of patches
    later[..., 8:, :] = later[..., 20:] = 7.0  # no whole patch

    assert encoder.config.token_shape(pictures.shape[1:]) == (3, 10)
    assert encoder(pictures).shape == (2, 3, 10, 16)
    changed = (encoder.tokens(later[0]) != tokens).any(-1)
    assert changed.tolist() == [[False] * 4 + [True] * 2 + [False] * 4] * 3


def test_buckets_are_those_of_t5():
    place = RelativePosition(num_heads=2, num_buckets=320, max_distance=800)
    distances = torch.arange(-1500, 1500)

    theirs = T5Attention._relative_position_bucket(distances, bidirectional=True, num_buckets=320, max_distance=800)

    assert torch.equal(place.bucket(distances), theirs)
    bias = place(7)
    assert torch.equal(bias[:, 2, 5], place.table(place.bucket(torch.tensor(3))))  # [head, query, key]


@torch.no_grad()
def test_residuals_are_weighted_by_the_depth():
    shallow, deep = built(depth=1), built(depth=8)

    assert (shallow.blocks[0].alpha, deep.blocks[0].alpha) == pytest.approx((2**0.25, 2.0))
    block, tokens, bias = deep.blocks[0], torch.randn(1, 5, 16), deep.relative_position(5)
    middle = block.norm1(2 * tokens + block.attention(tokens, bias))
    assert torch.allclose(block(tokens, bias), block.norm2(2 * middle + block.mlp(middle)), atol=1e-6)


@torch.no_grad()
def test_padding_is_not_attended_to():
    encoder, pictures = built(), torch.randn(1, 2, 1, 8, 32)
    is_padding = torch.zeros(1, 2, 32, dtype=torch.bool)
    is_padding[0, 1, 16:] = True
    noise = pictures.clone()
    noise[0, 1, ..., 16:] = torch.randn(8, 16)

    out, other = encoder(pictures, is_padding), encoder(noise, is_padding)

    assert torch.allclose(out[0, 1, :8], other[0, 1, :8], atol=1e-6)
    assert torch.allclose(out[0, 0], encoder(pictures)[0, 0], atol=1e-6)
    assert not torch.allclose(encoder(noise)[0, 1, :8], encoder(pictures)[0, 1, :8], atol=1e-3)


def test_a_token_is_padding_when_all_its_share_of_the_frames_is():
    frames = torch.tensor([[False] * 5 + [True] * 6])

    assert padded_tokens(frames, 5).tolist() == [[False, False, False, True, True]]


@torch.no_grad()
def test_half_precision_gives_nearly_the_same():
    encoder, pictures = built(), torch.randn(1, 1, 1, 8, 16)
    exact = encoder(pictures)

    assert (encoder.bfloat16()(pictures.bfloat16()).float() - exact).abs().mean() < 0.05


def test_pictures_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match="8 mel bins x 3 frames, a patch is 4"):
        built()(torch.zeros(1, 1, 1, 8, 3))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width 16 does not divide into 3 heads"):
        built(num_heads=3)


@torch.no_grad()
def test_a_narrow_patch_is_projected_and_another_is_not():
    assert isinstance(built(patch_width=16).projection, torch.nn.Identity)
    assert built().projection.weight.shape == (16, 6)


def test_gradients_reach_every_weight():
    encoder = built()

    encoder(torch.randn(1, 2, 1, 8, 24)).pow(2).sum().backward()

    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
