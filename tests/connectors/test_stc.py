import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from avllm.config import parse
from avllm.connectors import CONNECTORS, Stc
from avllm.connectors.stc import Bottleneck, LayerNorm2d

VARIANTS = {
    "stc": {},
    "stc_v35": {"padding": 0},
    "stp": {"sampler": "pool"},
    "spatial_conv": {"depth": 0, "stride": [1, 2, 2]},
    "spatial_pool": {"depth": 0, "stride": [1, 2, 2], "sampler": "pool"},
}


def built(in_width: int = 8, **settings: object) -> Stc:
    torch.manual_seed(0)
    return parse(CONNECTORS["stc"], settings).build(in_width=in_width, out_width=8).eval()


@torch.no_grad()
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("num_frames", "side"), [(2, 4), (3, 5), (8, 3), (1, 4)])
def test_num_tokens_is_what_forward_gives(settings: dict, num_frames: int, side: int):
    connector, tokens = built(**settings), torch.randn(2, num_frames, side * side, 8)
    if num_frames == 1 and settings in (VARIANTS["stc_v35"], VARIANTS["stp"]):
        with pytest.raises(ValueError, match=r"1 frames of 4 x 4 patches are fewer than one window .*\(2, 2, 2\)"):
            connector(tokens)
        return

    assert connector(tokens).shape == (2, connector.config.num_tokens(num_frames, side * side), 8)


@pytest.mark.parametrize(
    ("settings", "num_frames", "side", "count"),
    [("stc", 8, 24, 845), ("stc", 16, 24, 1521), ("stc_v35", 16, 27, 1352), ("spatial_conv", 8, 24, 10 * 13 * 13)],
)
def test_counts_of_the_published_sizes(settings: str, num_frames: int, side: int, count: int):
    assert parse(CONNECTORS["stc"], VARIANTS[settings]).num_tokens(num_frames, side * side) == count


@torch.no_grad()
def test_tokens_are_means_of_windows_in_the_order_frames_rows_columns():
    connector = built(**VARIANTS["stp"], depth=0, mlp_depth=1)
    nn.init.eye_(connector.projection[0].weight)
    nn.init.zeros_(connector.projection[0].bias)
    tokens = torch.randn(1, 4, 16, 8)

    out = connector(tokens)

    windows = rearrange(tokens, "b (t i) (h j w k) d -> b (t h w) (i j k) d", i=2, h=2, j=2, w=2, k=2)
    assert torch.allclose(out, F.silu(windows.mean(2)), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("in_width", [8, 12])
def test_a_block_is_what_the_paper_says(in_width: int):
    torch.manual_seed(0)
    block, image = Bottleneck(in_width, 8).eval(), torch.randn(2, in_width, 5, 5)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    x = F.silu(norm(torch.einsum("n i h w, o i -> n o h w", image, block.expand.conv.weight[:, :, 0, 0])))
    patches = rearrange(F.unfold(x, 3, padding=1), "n (d k) p -> n d k p", d=8)
    mixed = torch.einsum("n d k p, d k -> n d p", patches, rearrange(block.depthwise.conv.weight, "d 1 a b -> d (a b)"))
    x = F.silu(norm(mixed.reshape(2, 8, 5, 5)))
    squeezed = x.mean((2, 3)) @ block.excite.down.weight[:, :, 0, 0].T + block.excite.down.bias
    gate = torch.sigmoid(F.silu(squeezed) @ block.excite.up.weight[:, :, 0, 0].T + block.excite.up.bias)
    x = x * gate[:, :, None, None]
    x = norm(torch.einsum("n i h w, o i -> n o h w", x, block.project.conv.weight[:, :, 0, 0]))
    beside = image
    if in_width != 8:
        beside = norm(torch.einsum("n i h w, o i -> n o h w", image, block.shortcut.conv.weight[:, :, 0, 0]))

    assert torch.allclose(block(image), F.silu(x + beside), atol=1e-5)


def test_the_squeeze_follows_the_width_that_comes_in():
    connector = built(in_width=24, depth=2)

    assert connector.before[0].excite.down.weight.shape == (6, 8, 1, 1)
    assert connector.before[1].excite.down.weight.shape == (2, 8, 1, 1)


@torch.no_grad()
def test_the_norm_is_over_channels():
    norm, image = LayerNorm2d(6), torch.randn(2, 6, 3, 4)

    assert torch.allclose(norm(image).permute(0, 2, 3, 1), F.layer_norm(image.permute(0, 2, 3, 1), (6,)), atol=1e-6)


def test_everything_is_trained():
    connector = built(in_width=12, depth=1)

    connector(torch.randn(1, 2, 4, 12)).square().mean().backward()

    assert not [name for name, parameter in connector.named_parameters() if parameter.grad is None]


def test_tokens_that_make_no_square_are_refused():
    with pytest.raises(ValueError, match="17 tokens, which make no square"):
        built()(torch.randn(1, 2, 17, 8))


def test_without_stages_both_widths_must_be_one():
    with pytest.raises(ValueError, match="the encoder has 12, the decoder 8"):
        built(in_width=12, depth=0)
