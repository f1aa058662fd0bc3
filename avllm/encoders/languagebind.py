"""LanguageBind: an image tower and a video tower, between which the one branch of Video-LLaVA chooses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avllm.encoders.clip import Clip
from avllm.encoders.transformer import Attention

IMAGE_TOWER = Clip.Config(image_size=224, activation="gelu")
VIDEO_TOWER = replace(IMAGE_TOWER, feature="cls_patch")


class TemporalAttention(nn.Module):
    """Attention over time for each place of a frame, before a block of the video tower.

    The embedding of the frame's index stays in the residual stream, so that every block adds its own.

    Source: LanguageBind (arXiv:2310.01852); its published video tower has no feed-forward behind this.

    Args:
        width: d, width of the tokens.
        num_heads: attention heads, as many as in the block.
        num_frames: longest clip.
        eps: of the norm.
    """

    def __init__(self, *, width: int, num_heads: int, num_frames: int, eps: float) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(1, num_frames, width) * width**-0.5)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, num_heads)

    def forward(self, tokens: Float[Tensor, "b t p d"]) -> Float[Tensor, "b t p d"]:
        places = rearrange(tokens, "b t p d -> (b p) t d") + self.embedding[:, : tokens.shape[1]]
        places = places + self.attention(self.norm(places))
        return rearrange(places, "(b p) t d -> b t p d", b=len(tokens))


class LanguageBind(nn.Module):
    """The tokens of an image (a clip of one frame) by the image tower, of a video by the video tower.

    Source: Video-LLaVA (arXiv:2311.10122, section 3.1), LanguageBind (arXiv:2310.01852).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Two towers of one width; the defaults are those of LanguageBind_Image and LanguageBind_Video_merge.

        Args:
            image: of images; Video-LLaVA leaves out its class token.
            video: of videos; Video-LLaVA keeps the class token of every frame.
            temporal: whether frames see each other. The port of Video-LLaVA to `transformers` lost this.
            num_frames: longest clip when they do.
        """

        image: Clip.Config = IMAGE_TOWER
        video: Clip.Config = VIDEO_TOWER
        temporal: bool = True
        num_frames: int = 8

        @property
        def max_frames(self) -> int | None:
            """Longest clip; None when frames do not see each other."""
            return self.num_frames if self.temporal else None

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(t, p) of the tokens for frames of shape (t, c, h, w)."""
            return (self.image if shape[0] == 1 else self.video).token_shape(shape)

        def build(self) -> "LanguageBind":
            """Builds the encoder with random weights."""
            return LanguageBind(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        image, video = config.image, config.video
        if image.width != video.width:
            raise ValueError(
                f"encoder.image.width is {image.width} and encoder.video.width {video.width}; "
                f"expected the same, as one connector follows"
            )
        if (image.family, video.family) != ("clip", "clip"):
            raise ValueError(
                f"encoder.image and encoder.video: expected the family clip, got {image.family}, {video.family}"
            )
        self.config, self.width = config, image.width
        self.image, self.video = image.build(), video.build()
        self.temporal = nn.ModuleList(
            TemporalAttention(
                width=video.width, num_heads=video.num_heads, num_frames=config.num_frames, eps=video.layer_norm_eps
            )
            for _ in range(video.num_blocks if config.temporal else 0)
        )

    def forward(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t p d"]:
        """Tokens of every frame; p differs between images and videos.

        Args:
            frames: normalised RGB.

        Raises:
            ValueError: the clip has more frames than the video tower can place, or they are smaller than a patch.
        """
        if frames.shape[1] == 1:
            return self.image(frames)
        return self._video_over_time(frames) if self.config.temporal else self.video(frames)

    def _video_over_time(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t p d"]:
        num_clips, num_frames = frames.shape[:2]
        if num_frames > self.config.num_frames:
            raise ValueError(
                f"clip has {num_frames} frames, the video tower has places for {self.config.num_frames}; "
                f"sample fewer frames (media.num_frames)"
            )
        tower: Any = self.video.tower
        pixels = rearrange(frames, "b t c h w -> (b t) c h w")
        tokens = tower.embeddings(pixels, interpolate_pos_encoding=self.video.is_other_size(frames))
        tokens = rearrange(tower.pre_layrnorm(tokens), "(b t) p d -> b t p d", b=num_clips)
        for temporal, block in zip(self.temporal, tower.encoder.layers, strict=True):
            tokens = rearrange(temporal(tokens), "b t p d -> (b t) p d")
            tokens = rearrange(block(tokens, None), "(b t) p d -> b t p d", b=num_clips)
        return self.video.chosen(tokens)
