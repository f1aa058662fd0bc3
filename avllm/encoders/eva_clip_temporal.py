"""EVA-CLIP with relations over time: the vision encoder of VideoChat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from avllm.encoders.eva_clip import EvaClip
from avllm.encoders.transformer import Attention, Block, Mlp, patch_grid


class GlobalMhra(nn.Module):
    """One step of the global token: it reads all tokens of a clip by cross attention, then a feed-forward.

    The order of the frames enters by a depthwise 3 x 3 x 3 convolution over time, rows and columns, which is added to
    the patch tokens that are read; class tokens are read as they are. The tokens themselves are not changed.

    Source: UniFormerV2 (arXiv:2211.09552), section 3.3, as VideoChat (arXiv:2305.06355) uses it. Norms use eps 1e-5.

    Args:
        width: d, width of the tokens.
        num_heads: attention heads.
        mlp_width: hidden width of the feed-forward.
        dropout: inside the feed-forward, in training only.
    """

    def __init__(self, width: int, num_heads: int, *, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.position = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm_query = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width, dropout=dropout)
        # Each step begins as the identity, as published.
        for module in (self.attention.out_proj, self.mlp.down, self.position):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(cast(Tensor, module.bias))

    def forward(
        self, token: Float[Tensor, "b 1 d"], tokens: Float[Tensor, "b t p d"], num_rows: int
    ) -> Float[Tensor, "b 1 d"]:
        """The next global token.

        Args:
            token: the global token so far.
            tokens: of all frames; p is the class token and the patches, row by row.
            num_rows: rows of patches in a frame.
        """
        context = self.norm_context(tokens)
        grid = rearrange(context[:, :, 1:], "b t (h w) d -> b d t h w", h=num_rows)
        patches = context[:, :, 1:] + rearrange(self.position(grid), "b d t h w -> b t (h w) d")
        context = rearrange(torch.cat([context[:, :, :1], patches], dim=2), "b t p d -> b (t p) d")
        read, _ = self.attention(self.norm_query(token), context, context, need_weights=False)
        token = token + read
        return token + self.mlp(self.norm_mlp(token))


class LocalMhra(nn.Module):
    """Mixes each patch with the same patch of the frames before and after it; class tokens are left as they are.

    Source: UniFormerV2 (arXiv:2211.09552), section 3.2; off in the published VideoChat.

    Args:
        width: d, width of the tokens.
        reduction: `width` over the width in which frames are mixed.
    """

    def __init__(self, width: int, *, reduction: float) -> None:
        super().__init__()
        inner = int(width / reduction)
        self.norm = nn.BatchNorm3d(width)
        self.reduce = nn.Conv3d(width, inner, 1)
        self.mix = nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner)
        self.expand = nn.Conv3d(inner, width, 1)

    def forward(self, tokens: Float[Tensor, "b t p d"]) -> Float[Tensor, "b t p d"]:
        # Nothing here joins neighbouring patches, so that a frame's patches may lie in one row.
        patches = rearrange(tokens[:, :, 1:], "b t p d -> b d t 1 p")
        mixed = self.expand(self.mix(self.reduce(self.norm(patches))))
        patches = tokens[:, :, 1:] + rearrange(mixed, "b d t 1 p -> b t p d")
        return torch.cat([tokens[:, :, :1], patches], dim=2)


class LocalBlock(Block):
    """A block with local relations before its attention and, if there are two, before its feed-forward.

    Args:
        attention: see `Block`.
        width: d, width of the tokens.
        mlp_width: hidden width of the feed-forward.
        reduction: see `LocalMhra`.
        is_double: whether there are two.
    """

    def __init__(self, attention: Attention, *, width: int, mlp_width: int, reduction: float, is_double: bool) -> None:
        super().__init__(attention, width=width, mlp_width=mlp_width)
        self.lmhra1 = LocalMhra(width, reduction=reduction)
        self.lmhra2 = LocalMhra(width, reduction=reduction) if is_double else None

    def forward(self, tokens: Float[Tensor, "b t p d"]) -> Float[Tensor, "b t p d"]:  # type: ignore[override]
        tokens = self.lmhra1(tokens)
        read = self.attention(rearrange(self.norm1(tokens), "b t p d -> (b t) p d"))
        tokens = tokens + rearrange(read, "(b t) p d -> b t p d", b=len(tokens))
        if self.lmhra2 is not None:
            tokens = self.lmhra2(tokens)
        return tokens + self.mlp(self.norm2(tokens))


class EvaClipTemporal(EvaClip):
    """EVA-CLIP with a global token that follows the clip through the last blocks.

    All tokens of all frames go on, the global token last. As it belongs to no frame, they count as one frame.

    Source: VideoChat (arXiv:2305.06355), section 3.2.1; its parts are those of UniFormerV2 (arXiv:2211.09552). There is
    no position over time besides the convolutions. Stochastic depth, off in all published settings, is left out.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EvaClip.Config):
        """Sizes; the defaults are those of VideoChat.

        Args:
            num_global: blocks, the last ones, after each of which the global token reads the clip.
            local: relations of each patch over time in every block: none, one, or two.
            local_reduction: width of the tokens over the width of those relations.
            temporal_downsample: whether patches span three frames, with two frames from one to the next.
            dropout: in the feed-forward of the global token, in training only.
        """

        num_global: int = 8
        local: Literal["none", "single", "double"] = "none"
        local_reduction: float = 2.0
        temporal_downsample: bool = False
        dropout: float = 0.5

        def __post_init__(self) -> None:
            if not 1 <= self.num_global <= self.depth:
                raise ValueError(f"num_global: expected 1 to depth = {self.depth} blocks, got {self.num_global}")

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(1, p): the tokens of all frames and the global token."""
            num_frames, num_tokens = super().token_shape(shape)
            steps = (num_frames + 1) // 2 if self.temporal_downsample else num_frames
            return 1, steps * num_tokens + 1

        def build(self) -> "EvaClipTemporal":
            """Builds the encoder with random weights."""
            return EvaClipTemporal(self)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.gmhra_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.gmhra = nn.ModuleList(
            GlobalMhra(
                config.width,
                config.num_heads,
                # Rounded here, cut off in the blocks: 6144 both for ViT-g.
                mlp_width=round(config.width * config.mlp_ratio),
                dropout=config.dropout,
            )
            for _ in range(config.num_global)
        )

    def new_patches(self) -> nn.Module:
        """Patches of one frame, or of three frames around every second one."""
        size = self.config.patch_size
        frames, step, padding = (3, 2, 1) if self.config.temporal_downsample else (1, 1, 0)
        return nn.Conv3d(3, self.width, (frames, size, size), stride=(step, size, size), padding=(padding, 0, 0))

    def new_block(self) -> Block:
        """One block of the transformer, with local relations if there are any."""
        config = self.config
        if config.local == "none":
            return super().new_block()
        return LocalBlock(
            Attention(config.width, config.num_heads, bias="qv"),
            width=config.width,
            mlp_width=int(config.width * config.mlp_ratio),
            reduction=config.local_reduction,
            is_double=config.local == "double",
        )

    def patch_tokens(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t2 p d"]:
        """One token for each patch, row by row, without its position; half the frames with `temporal_downsample`."""
        patches = self.patches(rearrange(frames, "b t c h w -> b c t h w"))
        return rearrange(patches, "b d t h w -> b t (h w) d")

    def forward(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b 1 p d"]:
        """Tokens of all frames, each frame's class token before its patches, and the global token last.

        Args:
            frames: normalised RGB.

        Raises:
            ValueError: the frames do not divide into whole patches.
        """
        num_rows, _ = patch_grid(frames.shape[-2], frames.shape[-1], self.config.patch_size)
        token = repeat(self.gmhra_token, "1 1 d -> b 1 d", b=len(frames))
        tokens = self.embed(frames)
        first = len(self.blocks) - len(self.gmhra)
        for index, block in enumerate(self.blocks):
            if isinstance(block, LocalBlock):
                tokens = block(tokens)
            else:
                each = block(rearrange(tokens, "b t p d -> (b t) p d"))
                tokens = rearrange(each, "(b t) p d -> b t p d", b=len(frames))
            if index >= first:
                token = self.gmhra[index - first](token, tokens, num_rows)
        clip = torch.cat([rearrange(tokens, "b t p d -> b (t p) d"), token], dim=1)
        return rearrange(clip, "b p d -> b 1 p d")
