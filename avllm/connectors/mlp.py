"""The projector of LLaVA: every token of every frame on its own, or the mean over frames."""

from dataclasses import dataclass

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn


class MlpConnector(nn.Module):
    """Projects each media token on its own into the width of the decoder: `linear` at depth 1, else linear and GELU.

    Source: LLaVA-1.5 (arXiv:2310.03744), "MLP vision-language connector", where `depth` is 2. Video-LLaVA
    (arXiv:2311.10122) gives the tokens of all frames, VideoLLaMA 2 (arXiv:2406.07476) their mean over frames.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes.

        Args:
            depth: linear layers, with an exact GELU between two.
            averages_frames: whether the projection is of the mean over frames; otherwise of each frame's tokens.
        """

        depth: int = 2
        averages_frames: bool = False

        def build(self, *, in_width: int, out_width: int) -> "MlpConnector":
            """Builds it with random weights between an encoder and a decoder of these widths."""
            return MlpConnector(self, in_width=in_width, out_width=out_width)

        def num_tokens(self, num_frames: int, num_patches: int) -> int:
            """Tokens for the decoder of an encoder's [t p d]."""
            return num_patches if self.averages_frames else num_frames * num_patches

    def __init__(self, config: Config, *, in_width: int, out_width: int) -> None:
        super().__init__()
        if config.depth < 1:
            raise ValueError(f"connector.depth is {config.depth}, expected 1 (one linear layer) or more")
        self.config = config
        layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
        for _ in range(config.depth - 1):
            layers += [nn.GELU(), nn.Linear(out_width, out_width)]
        self.layers = nn.Sequential(*layers)

    def prefix(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b t p d_in"]:
        """The tokens unchanged: all of this connector is trained."""
        return tokens

    def resample(self, features: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        """From the encoder's tokens to the decoder's, frame after frame."""
        if self.config.averages_frames:
            return self.layers(reduce(features, "b t p d -> b p d", "mean"))
        return self.layers(rearrange(features, "b t p d -> b (t p) d"))

    def forward(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        return self.resample(tokens)
