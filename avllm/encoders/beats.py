"""BEATs: the ear of VideoLLaMA 2.1-AV, a transformer over patches of a log-mel picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avllm.encoders.transformer import Mlp, init_weights

NUM_GATES, EPS, WEIGHT_NORM_EPS = 8, 1e-5, 1e-6


class RelativePosition(nn.Module):
    """A bias for every head by how far a key is from its query, in buckets that widen with the distance.

    Source: T5 (arXiv:1910.10683), section 2.1. One table serves all blocks.

    Args:
        num_heads: attention heads.
        num_buckets: half of them for keys that come later than the query.
        max_distance: in tokens; all that is farther shares the last bucket.
    """

    def __init__(self, *, num_heads: int, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.table = nn.Embedding(num_buckets, num_heads)

    def forward(self, num_tokens: int) -> Float[Tensor, "h p p"]:
        """The bias [head, query, key] of so many tokens."""
        place = torch.arange(num_tokens, device=self.table.weight.device)
        distances = torch.arange(1 - num_tokens, num_tokens, device=place.device)
        # Heads first in memory, as what follows reads it.
        by_distance = rearrange(self.table(self.bucket(distances)), "n h -> h n").contiguous()
        return by_distance[:, place[None, :] - place[:, None] + num_tokens - 1]

    def bucket(self, distances: Tensor) -> Tensor:
        """Number of the bucket of each distance, key minus query."""
        half = self.num_buckets // 2
        exact, far = half // 2, distances.abs()
        # In this order, as a rounding at the border of two buckets would tell.
        grown = torch.log(far.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        coarse = exact + grown.long()
        return (distances > 0).long() * half + torch.where(far < exact, far, coarse.clamp(max=half - 1))


class GatedAttention(nn.Module):
    """Self attention whose relative bias is gated by each query.

    Source: WavLM (arXiv:2110.13900), section 3.1, equations 3 to 6; here the gate reads the projected query.

    Args:
        width: d, width of the tokens.
        num_heads: heads, contiguous inside q, k and v.
        is_gated: without it the bias is added as it is.
    """

    def __init__(self, width: int, num_heads: int, *, is_gated: bool) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} does not divide into {num_heads} heads; change width or num_heads")
        self.num_heads = num_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate = nn.Linear(width // num_heads, NUM_GATES) if is_gated else None
        self.gate_scale = nn.Parameter(torch.ones(1, num_heads, 1, 1)) if is_gated else None

    def forward(
        self,
        tokens: Float[Tensor, "b p d"],
        bias: Float[Tensor, "h p p"],
        is_padding: Bool[Tensor, "b p"] | None = None,
    ) -> Float[Tensor, "b p d"]:
        q, k, v = (rearrange(x, "b p (h d) -> b h p d", h=self.num_heads) for x in self.qkv(tokens).chunk(3, dim=-1))
        added = bias[None].to(q.dtype)
        if self.gate is not None and self.gate_scale is not None:
            gates = torch.sigmoid(reduce(self.gate(q), "b h p (g n) -> b h p g", "sum", g=2))
            update, reset = gates.chunk(2, dim=-1)
            added = added * (update * (reset * self.gate_scale - 1.0) + 2.0)
        if is_padding is not None:
            added = added.masked_fill(rearrange(is_padding, "b p -> b 1 1 p"), float("-inf"))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
        return self.out(rearrange(mixed, "b h p d -> b p (h d)"))


class PostNormBlock(nn.Module):
    """Block with its norms behind the sums and a weighted residual: `norm(alpha * x + f(x))`.

    Source: DeepNet (arXiv:2203.00555), section 4.

    Args:
        attention: the block's attention.
        width: d, width of the tokens.
        mlp_width: hidden width of the feed-forward.
        alpha: weight of the residual.
    """

    def __init__(self, attention: GatedAttention, *, width: int, mlp_width: int, alpha: float) -> None:
        super().__init__()
        self.alpha, self.attention = alpha, attention
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, mlp_width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)

    def forward(
        self,
        tokens: Float[Tensor, "b p d"],
        bias: Float[Tensor, "h p p"],
        is_padding: Bool[Tensor, "b p"] | None = None,
    ) -> Float[Tensor, "b p d"]:
        tokens = self.norm1(self.alpha * tokens + self.attention(tokens, bias, is_padding))
        return self.norm2(self.alpha * tokens + self.mlp(tokens))


class PositionConv(nn.Module):
    """Positions from a grouped convolution over the tokens, its weight normalised for each place of the kernel.

    Source: wav2vec 2.0 (arXiv:2006.11477), section 2; weight normalisation (arXiv:1602.07868).

    Args:
        width: d, width of the tokens.
        kernel_size: in tokens.
        groups: of the convolution.
    """

    def __init__(self, width: int, *, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.kernel_size, self.groups = kernel_size, groups
        std = math.sqrt(4.0 / (kernel_size * width))
        self.direction = nn.Parameter(torch.randn(width, width // groups, kernel_size) * std)
        self.gain = nn.Parameter(reduce(self.direction.detach() ** 2, "o i k -> 1 1 k", "sum").sqrt())
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        direction = self.direction.float()
        length = torch.rsqrt(reduce(direction**2, "o i k -> 1 1 k", "sum") + WEIGHT_NORM_EPS)
        weight = (self.gain.float() * direction * length).to(tokens.dtype)
        mixed = F.conv1d(
            rearrange(tokens, "b p d -> b d p"), weight, self.bias, padding=self.kernel_size // 2, groups=self.groups
        )
        # An even kernel gives one token too many.
        return F.gelu(rearrange(mixed[..., : tokens.shape[1]], "b d p -> b p d"))


class Beats(nn.Module):
    """The tokens of each log-mel picture, one for every patch, those of one moment together.

    Source: BEATs (arXiv:2212.09058), section 3; as VideoLLaMA 2 (arXiv:2406.07476, section 3.2) uses it, whose
    checkpoint is BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of BEATs iter3+.

        Args:
            patch_size: side of a patch in bins and frames; what is left over at the end is not heard.
            patch_width: width of the patches before they are projected.
            patch_bias: whether the patch convolution has a bias.
            width: d of the tokens.
            depth: blocks.
            num_heads: attention heads.
            mlp_width: hidden width of the feed-forward.
            conv_kernel: of the positions, in tokens.
            conv_groups: of the positions.
            num_buckets: of relative distances.
            max_distance: that has a bucket of its own, in tokens.
            is_gated: whether queries gate the relative bias.
            is_deep_norm: whether residuals are weighted by (2 * depth) ** 0.25.
        """

        patch_size: int = 16
        patch_width: int = 512
        patch_bias: bool = False
        width: int = 768
        depth: int = 12
        num_heads: int = 12
        mlp_width: int = 3072
        conv_kernel: int = 128
        conv_groups: int = 16
        num_buckets: int = 320
        max_distance: int = 800
        is_gated: bool = True
        is_deep_norm: bool = True

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(t, p) of the tokens for pictures of shape (t, c, f, n)."""
            return shape[0], (shape[-1] // self.patch_size) * (shape[-2] // self.patch_size)

        def build(self) -> "Beats":
            """Builds the encoder with random weights."""
            return Beats(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        size, narrow, width = config.patch_size, config.patch_width, config.width
        self.patches = nn.Conv2d(1, narrow, size, stride=size, bias=config.patch_bias)
        self.patch_norm = nn.LayerNorm(narrow, eps=EPS)
        self.projection = nn.Linear(narrow, width) if narrow != width else nn.Identity()
        self.positions = PositionConv(width, kernel_size=config.conv_kernel, groups=config.conv_groups)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.relative_position = RelativePosition(
            num_heads=config.num_heads, num_buckets=config.num_buckets, max_distance=config.max_distance
        )
        alpha = (2.0 * config.depth) ** 0.25 if config.is_deep_norm else 1.0
        self.blocks = nn.ModuleList(
            PostNormBlock(
                GatedAttention(width, config.num_heads, is_gated=config.is_gated),
                width=width,
                mlp_width=config.mlp_width,
                alpha=alpha,
            )
            for _ in range(config.depth)
        )
        self.apply(init_weights)

    def tokens(self, pictures: Float[Tensor, "b c f n"]) -> Float[Tensor, "b p d"]:
        """Patches in the width of the blocks, frame columns one after the other, without positions.

        Raises:
            ValueError: the pictures are smaller than a patch.
        """
        if min(pictures.shape[-2:]) < self.config.patch_size:
            raise ValueError(
                f"pictures of sound are {pictures.shape[-2]} mel bins x {pictures.shape[-1]} frames, a patch is "
                f"{self.config.patch_size}; give more of the sound (media.seconds)"
            )
        # The published kernel has time first.
        patches = self.patches(rearrange(pictures, "b c f n -> b c n f"))
        return self.projection(self.patch_norm(rearrange(patches, "b d n f -> b (n f) d")))

    def forward(
        self, pictures: Float[Tensor, "b t c f n"], is_padding: Bool[Tensor, "b t n"] | None = None
    ) -> Float[Tensor, "b t p d"]:
        """Tokens of every picture on its own.

        Args:
            pictures: normalised log-mel, f bins of n frames, c is 1.
            is_padding: frames after the end of the sound, which nothing attends to. The published VideoLLaMA 2 marks
                none: its silence is heard.

        Raises:
            ValueError: the pictures are smaller than a patch.
        """
        tokens = self.tokens(rearrange(pictures, "b t c f n -> (b t) c f n"))
        hidden = None
        if is_padding is not None:
            hidden = padded_tokens(rearrange(is_padding, "b t n -> (b t) n"), tokens.shape[1])
            tokens = tokens.masked_fill(hidden[..., None], 0.0)
        tokens = self.norm(tokens + self.positions(tokens))
        bias = self.relative_position(tokens.shape[1])
        for block in self.blocks:
            tokens = block(tokens, bias, hidden)
        return rearrange(tokens, "(b t) p d -> b t p d", b=len(pictures))


def padded_tokens(is_padding: Bool[Tensor, "b n"], num_tokens: int) -> Bool[Tensor, "b p"]:
    """Which tokens are padding: those whose share of the frames is, in equal shares as if tokens had an order alone.

    The published rule; patches of one moment get shares of different moments by it.
    """
    share = is_padding.shape[1] // num_tokens
    return reduce(is_padding[:, : share * num_tokens], "b (p k) -> b p", "all", k=share)
