"""The Q-Former of BLIP-2: a few query tokens read a long context by cross attention."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-12  # BERT's; 1e-5 is visible in the outputs.


class QFormerAttention(nn.Module):
    """Attention, dropout, residual, layer norm: one post-norm step of BERT.

    Args:
        width: d of the queries.
        num_heads: attention heads.
        context_width: d of the keys and values.
        dropout: of the attention weights and of the output, in training only.
    """

    def __init__(self, width: int, num_heads: int, *, context_width: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} does not divide into {num_heads} heads; change width or num_heads")
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n d_in"],
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        q, k, v = (
            rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)
            for x in (self.query(queries), self.key(context), self.value(context))
        )
        mask = None
        if context_mask is not None:
            # Additive, not boolean: a row without any context then mixes all of it instead of giving NaN.
            lowest = torch.finfo(q.dtype).min
            mask = torch.zeros_like(context_mask, dtype=q.dtype).masked_fill(~context_mask, lowest)
            mask = rearrange(mask, "b n -> b 1 1 n")
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        mixed = F.dropout(self.out(rearrange(mixed, "b h q d -> b q (h d)")), dropout)
        return self.norm(mixed + queries)


class QFormerMlp(nn.Module):
    """Feed-forward, dropout, residual, layer norm, with exact GELU."""

    def __init__(self, width: int, hidden_width: int, *, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden_width)
        self.down = nn.Linear(hidden_width, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        return self.norm(self.dropout(self.down(F.gelu(self.up(queries)))) + queries)


class QFormerLayer(nn.Module):
    """Self attention among the queries, cross attention to the context in some layers, feed-forward."""

    def __init__(
        self, width: int, num_heads: int, mlp_width: int, *, context_width: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.self_attention = QFormerAttention(width, num_heads, context_width=width, dropout=dropout)
        self.cross_attention = (
            None
            if context_width is None
            else QFormerAttention(width, num_heads, context_width=context_width, dropout=dropout)
        )
        self.mlp = QFormerMlp(width, mlp_width, dropout=dropout)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n d_in"],
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        queries = self.self_attention(queries, queries)
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, context, context_mask)
        return self.mlp(queries)


class QFormer(nn.Module):
    """Query tokens that attend to each other and to a context; the text half of BLIP-2's is left out.

    Source: BLIP-2 (arXiv:2301.12597), section 3.1. Post-norm BERT layers; a layer norm, and no position, is applied
    to the query tokens first.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of BLIP-2.

        Args:
            width: d of the queries.
            depth: layers.
            num_heads: attention heads.
            mlp_width: hidden width of the feed-forward.
            cross_every: layers 0, k, 2k, ... attend to the context.
            dropout: of attention, outputs and queries, in training only.
        """

        width: int = 768
        depth: int = 12
        num_heads: int = 12
        mlp_width: int = 3072
        cross_every: int = 2
        dropout: float = 0.1

        def build(self, *, context_width: int) -> "QFormer":
            """Builds it with random weights for a context of width `context_width`."""
            return QFormer(self, context_width=context_width)

    def __init__(self, config: Config, *, context_width: int) -> None:
        super().__init__()
        if config.cross_every < 1:
            raise ValueError(f"cross_every is {config.cross_every}, expected 1 or more; 1 means every layer")
        self.config, self.width = config, config.width
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            QFormerLayer(
                config.width,
                config.num_heads,
                config.mlp_width,
                context_width=context_width if index % config.cross_every == 0 else None,
                dropout=config.dropout,
            )
            for index in range(config.depth)
        )
        self.apply(_init_weights)

    def forward(
        self,
        queries: Float[Tensor, "#b q d"],
        context: Float[Tensor, "b n d_in"],
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """What the queries have read.

        Args:
            queries: query tokens; one set serves the whole batch.
            context: tokens of an encoder.
            context_mask: True where the context is read; None reads all of it.
        """
        queries = self.norm(queries)
        if len(queries) != len(context):
            queries = repeat(queries, "1 q d -> b q d", b=len(context))
        queries = self.dropout(queries)
        for layer in self.layers:
            queries = layer(queries, context, context_mask)
        return queries


class FrameQFormer(nn.Module):
    """BLIP-2's front end: norm of the encoder's tokens, then a Q-Former with its own query tokens.

    Source: BLIP-2 (arXiv:2301.12597); frozen in Video-LLaMA, where it reads each frame.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(QFormer.Config):
        """A Q-Former with query tokens.

        Args:
            num_queries: q, query tokens.
            has_input_norm: whether a layer norm is applied to the encoder's tokens first (`ln_vision`, eps 1e-5).
        """

        num_queries: int = 32
        has_input_norm: bool = True

        def build(self, *, context_width: int) -> "FrameQFormer":
            """Builds it with random weights for a context of width `context_width`."""
            return FrameQFormer(self, context_width=context_width)

    def __init__(self, config: Config, *, context_width: int) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.input_norm = nn.LayerNorm(context_width, eps=1e-5) if config.has_input_norm else nn.Identity()
        self.query_tokens = new_query_tokens(config.num_queries, config.width)
        self.qformer = QFormer(config, context_width=context_width)

    def forward(
        self,
        context: Float[Tensor, "b n d_in"],
        context_mask: Bool[Tensor, "b n"] | None = None,
        *,
        extra_queries: Float[Tensor, "1 e d"] | None = None,
    ) -> Float[Tensor, "b q_all d"]:
        """What the queries have read.

        Args:
            context: tokens of an encoder.
            context_mask: True where the context is read; None reads all of it.
            extra_queries: further query tokens, which follow the module's own.
        """
        queries = self.query_tokens
        if extra_queries is not None:
            queries = torch.cat([queries, extra_queries], dim=1)
        return self.qformer(queries, self.input_norm(context), context_mask)


def new_query_tokens(num_queries: int, width: int) -> nn.Parameter:
    """Trainable query tokens, `[1 q d]`, drawn from N(0, 0.02)."""
    return nn.Parameter(torch.empty(1, num_queries, width).normal_(std=0.02))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
