"""The pre-norm transformer that the frozen encoders share: attention, feed-forward, block, position tables."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Self attention on `scaled_dot_product_attention`.

    Args:
        width: d, width of the tokens.
        num_heads: heads, contiguous inside q, k and v.
        bias: `qkv` gives every projection a bias, `qv` leaves the keys without one (EVA).
        has_extra_key: one learned key and value more than there are tokens (ImageBind, all but vision and text).
        is_causal: a token sees itself and those before it.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        bias: Literal["qkv", "qv"] = "qkv",
        has_extra_key: bool = False,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} does not divide into {num_heads} heads; change width or num_heads")
        self.num_heads, self.is_causal = num_heads, is_causal
        self.qkv = nn.Linear(width, 3 * width, bias=bias == "qkv")
        self.q_bias = nn.Parameter(torch.zeros(width)) if bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if bias == "qv" else None
        self.extra_key = nn.Parameter(torch.zeros(1, 1, width)) if has_extra_key else None
        self.extra_value = nn.Parameter(torch.zeros(1, 1, width)) if has_extra_key else None
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        projected = self.qkv(tokens)
        if self.q_bias is not None and self.v_bias is not None:
            projected = projected + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = projected.chunk(3, dim=-1)
        if self.extra_key is not None and self.extra_value is not None:
            k = torch.cat([k, repeat(self.extra_key, "1 1 d -> b 1 d", b=len(k))], dim=1)
            v = torch.cat([v, repeat(self.extra_value, "1 1 d -> b 1 d", b=len(v))], dim=1)
        q, k, v = (rearrange(x, "b p (h d) -> b h p d", h=self.num_heads) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return self.out(rearrange(mixed, "b h p d -> b p (h d)"))


class Mlp(nn.Module):
    """Linear, exact (erf) GELU, dropout, linear.

    Args:
        width: d, width of the tokens.
        hidden_width: between the two linear layers.
        dropout: in training only.
    """

    def __init__(self, width: int, hidden_width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden_width)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden_width, width)

    def forward(self, tokens: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.down(self.dropout(F.gelu(self.up(tokens))))


class Block(nn.Module):
    """Pre-norm block: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.

    Args:
        attention: the block's attention, made by the encoder with its own options.
        width: d, width of the tokens.
        mlp_width: hidden width of the feed-forward.
        eps: of both layer norms.
    """

    def __init__(self, attention: Attention, *, width: int, mlp_width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def resize_positions(
    table: Float[Tensor, "1 p d"], grid: tuple[int, int], stored_grid: tuple[int, int]
) -> Float[Tensor, "1 p2 d"]:
    """Fits a table of one class position and a grid of patch positions to another grid, bicubic.

    Args:
        table: class position first, then the stored grid row by row.
        grid: (rows, columns) wanted.
        stored_grid: (rows, columns) of `table`.
    """
    if grid == stored_grid:
        return table
    cls, patches = table[:, :1], table[:, 1:]
    image = rearrange(patches.float(), "1 (h w) d -> 1 d h w", h=stored_grid[0])
    # `size=`, not `scale_factor=`: the latter may round to a grid one short.
    image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([cls, rearrange(image, "1 d h w -> 1 (h w) d").to(table.dtype)], dim=1)


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Raises:
        ValueError: the image does not divide into whole patches.
    """
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(
            f"image is {height} x {width} pixels, it does not divide into patches of {patch_size}; "
            f"resize the media to a multiple of {patch_size} (media.size)"
        )
    return height // patch_size, width // patch_size


def init_weights(module: nn.Module) -> None:
    """Draws linear and convolution weights from N(0, 0.02) with zero biases; norms start as the identity."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
