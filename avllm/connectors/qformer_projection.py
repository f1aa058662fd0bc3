"""VideoChat's connector: one Q-Former with extra query tokens reads all tokens of a clip, and a projection follows."""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avllm.connectors.qformer import FrameQFormer


class QFormerProjection(nn.Module):
    """Reads a clip into a fixed number of tokens by BLIP-2's queries and further ones, then projects all of them.

    BLIP-2's Q-Former and its queries stay frozen; the extra queries, the norm of the encoder's tokens and the
    projection are what VideoChat trains. As the norm stands before the Q-Former, no part of this can be stored.

    Source: VideoChat (arXiv:2305.06355), section 3.2.1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of VideoChat.

        Args:
            num_extra_queries: query tokens besides those of the Q-Former.
            frame_qformer: the Q-Former of BLIP-2, which reads all frames at once here.
        """

        num_extra_queries: int = 64
        frame_qformer: FrameQFormer.Config = field(default_factory=FrameQFormer.Config)

        def build(self, *, in_width: int, out_width: int) -> "QFormerProjection":
            """Builds it with random weights between an encoder and a decoder of these widths."""
            return QFormerProjection(self, in_width=in_width, out_width=out_width)

        def num_tokens(self, num_frames: int, num_patches: int) -> int:
            """Tokens for the decoder of an encoder's [t p d]: always one for each query."""
            return self.frame_qformer.num_queries + self.num_extra_queries

    def __init__(self, config: Config, *, in_width: int, out_width: int) -> None:
        super().__init__()
        if config.num_extra_queries < 0:
            raise ValueError(f"num_extra_queries is {config.num_extra_queries}, expected 0 or more")
        self.config = config
        self.frame_qformer = config.frame_qformer.build(context_width=in_width)
        # Zeros, as published: training begins with queries that differ in nothing but what they learn.
        self.extra_query_tokens = nn.Parameter(torch.zeros(1, config.num_extra_queries, config.frame_qformer.width))
        self.projection = nn.Linear(config.frame_qformer.width, out_width)

    def prefix(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b t p d_in"]:
        """The tokens unchanged: the norm that reads them is trained."""
        return tokens

    def resample(self, features: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        """From the encoder's tokens, of all frames at once, to the decoder's."""
        context = rearrange(features, "b t p d -> b (t p) d")
        return self.projection(self.frame_qformer(context, extra_queries=self.extra_query_tokens))

    def forward(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        return self.resample(self.prefix(tokens))
