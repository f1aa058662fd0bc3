"""EVA-CLIP: the vision transformer that sees each frame in Video-LLaMA and VideoChat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from avllm.encoders.transformer import Attention, Block, init_weights, patch_grid, resize_positions


class EvaClip(nn.Module):
    """EVA-CLIP ViT without its last block, final norm and head: all tokens, the class token first, go on.

    Source: EVA-CLIP (arXiv:2303.15389) as BLIP-2 (arXiv:2301.12597) uses it: 39 of the 40 blocks of ViT-g/14.
    Queries and values have a bias, keys have none; block norms use eps 1e-6.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of ViT-g/14.

        Args:
            image_size: side in pixels of the images of which the position table is stored.
            patch_size: side of a patch in pixels.
            width: d of the tokens.
            depth: blocks that are run.
            num_heads: attention heads.
            mlp_ratio: hidden width of the feed-forward over `width`, rounded down (6144 for ViT-g).
        """

        image_size: int = 224
        patch_size: int = 14
        width: int = 1408
        depth: int = 39
        num_heads: int = 16
        mlp_ratio: float = 4.3637

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(t, p) of the tokens for frames of shape (t, c, h, w)."""
            rows, columns = patch_grid(shape[-2], shape[-1], self.patch_size)
            return shape[0], 1 + rows * columns

        def build(self) -> "EvaClip":
            """Builds the encoder with random weights."""
            return EvaClip(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.config, self.width = config, width
        self.stored_grid = patch_grid(config.image_size, config.image_size, config.patch_size)
        self.patches = self.new_patches()
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + self.stored_grid[0] * self.stored_grid[1], width))
        self.blocks = nn.ModuleList(self.new_block() for _ in range(config.depth))
        self.apply(init_weights)
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def new_patches(self) -> nn.Module:
        """The convolution that makes tokens of patches."""
        return nn.Conv2d(3, self.width, self.config.patch_size, stride=self.config.patch_size)

    def new_block(self) -> Block:
        """One block of the transformer."""
        attention = Attention(self.width, self.config.num_heads, bias="qv")
        return Block(attention, width=self.width, mlp_width=int(self.width * self.config.mlp_ratio))

    def patch_tokens(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t p d"]:
        """One token for each patch, row by row, without its position."""
        patches = self.patches(rearrange(frames, "b t c h w -> (b t) c h w"))
        return rearrange(patches, "(b t) d h w -> b t (h w) d", b=len(frames))

    def positions_for(self, height: int, width: int) -> Float[Tensor, "1 p d"]:
        """The position table for images of `height` x `width` pixels, interpolated when that is not the stored size.

        Raises:
            ValueError: the image does not divide into whole patches.
        """
        return resize_positions(self.positions, patch_grid(height, width, self.config.patch_size), self.stored_grid)

    def forward(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t p d"]:
        """Tokens of every frame on its own; p is the class token and the patches, row by row.

        Args:
            frames: normalised RGB.

        Raises:
            ValueError: the frames do not divide into whole patches.
        """
        tokens = rearrange(self.embed(frames), "b t p d -> (b t) p d")
        for block in self.blocks:
            tokens = block(tokens)
        return rearrange(tokens, "(b t) p d -> b t p d", b=len(frames))

    def embed(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t2 p d"]:
        """What the first block sees: class token and patches of each frame, or of a step of frames, with positions."""
        positions = self.positions_for(frames.shape[-2], frames.shape[-1])
        patches = self.patch_tokens(frames)
        class_tokens = repeat(self.class_token, "1 1 d -> b t 1 d", b=patches.shape[0], t=patches.shape[1])
        return torch.cat([class_tokens, patches], dim=2) + positions
