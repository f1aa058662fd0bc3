"""Video-LLaMA's connector: per-frame Q-Former, a position per frame, a Q-Former over all frames, a projection."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avllm.connectors.qformer import FrameQFormer, QFormer, new_query_tokens


class FrameEmbedding(nn.Module):
    """Adds a learned embedding of the frame (or segment) index to every token of that frame.

    Source: Video-LLaMA (arXiv:2306.02858), section 2.1, and section 2.2 for segments of sound.

    Args:
        max_frames: longest clip accepted, in frames or segments.
        width: d, width of the tokens.
    """

    def __init__(self, *, max_frames: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_frames, width)

    def forward(self, tokens: Float[Tensor, "b t q d"]) -> Float[Tensor, "b t q d"]:
        """Raises ValueError when t is more than `max_frames`; clips are never cut silently."""
        num_frames, max_frames = tokens.shape[1], self.table.num_embeddings
        if num_frames > max_frames:
            raise ValueError(
                f"clip has {num_frames} frames or segments, the frame embedding holds {max_frames}; "
                f"sample fewer (media.num_frames, media.num_segments) or raise connector.max_frames"
            )
        index = torch.arange(num_frames, device=tokens.device)
        return tokens + rearrange(self.table(index), "t d -> 1 t 1 d")


class TemporalQFormer(nn.Module):
    """Reads all frames (or segments) of a clip into a fixed number of tokens for the decoder.

    Two parts in series: `prefix` works on each frame alone and is frozen in training, so its output may be stored;
    `resample` holds everything that is trained. `forward` is both.

    Source: Video-LLaMA (arXiv:2306.02858), sections 2.1 and 2.2.
    """

    PREFIX = ("frame_qformer",)  # the parts that `prefix` uses

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of Video-LLaMA's vision branch.

        Args:
            num_queries: m, tokens given to the decoder for a clip of any length.
            max_frames: longest clip accepted, in frames or segments.
            width: d of the Q-Former over frames.
            depth: its layers; each of them attends to the frames.
            num_heads: its attention heads.
            mlp_width: hidden width of its feed-forward.
            dropout: in training only.
            frame_qformer: Q-Former that reads each frame first; None when the encoder gives few tokens already.
        """

        num_queries: int = 32
        max_frames: int = 32
        width: int = 768
        depth: int = 2
        num_heads: int = 12
        mlp_width: int = 3072
        dropout: float = 0.1
        frame_qformer: FrameQFormer.Config | None = None

        def build(self, *, in_width: int, out_width: int) -> "TemporalQFormer":
            """Builds it with random weights between an encoder and a decoder of these widths."""
            return TemporalQFormer(self, in_width=in_width, out_width=out_width)

        def num_tokens(self, num_frames: int, num_patches: int) -> int:
            """Tokens for the decoder of an encoder's [t p d]: always `num_queries`."""
            return self.num_queries

    def __init__(self, config: Config, *, in_width: int, out_width: int) -> None:
        super().__init__()
        self.config = config
        frames = config.frame_qformer
        self.frame_qformer = frames.build(context_width=in_width) if frames is not None else None
        frame_width = frames.width if frames is not None else in_width
        self.frame_embedding = FrameEmbedding(max_frames=config.max_frames, width=frame_width)
        self.query_tokens = new_query_tokens(config.num_queries, config.width)
        self.qformer = QFormer.Config(
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_width=config.mlp_width,
            cross_every=1,
            dropout=config.dropout,
        ).build(context_width=frame_width)
        self.projection = nn.Linear(config.width, out_width)

    def prefix(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b t q d"]:
        """The part that sees one frame at a time; the tokens unchanged without a `frame_qformer`."""
        if self.frame_qformer is None:
            return tokens
        read = self.frame_qformer(rearrange(tokens, "b t p d -> (b t) p d"))
        return rearrange(read, "(b t) q d -> b t q d", b=len(tokens))

    def resample(self, features: Float[Tensor, "b t q d"]) -> Float[Tensor, "b m d_out"]:
        """From the features of each frame to the decoder's tokens.

        Raises:
            ValueError: more frames than `max_frames`.
        """
        context = rearrange(self.frame_embedding(features), "b t q d -> b (t q) d")
        return self.projection(self.qformer(self.query_tokens, context))

    def forward(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        return self.resample(self.prefix(tokens))
