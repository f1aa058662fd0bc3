"""VideoLLaMA 2's connectors over space and time: convolutions on each frame, fewer frames and patches, a projection."""

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPS = 1e-5  # timm's LayerNorm2d has 1e-6, but not where it is made with an activation as here.
SQUEEZE = 0.25


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, image: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        return rearrange(super().forward(rearrange(image, "n d h w -> n h w d")), "n h w d -> n d h w")


class ConvNorm(nn.Module):
    """Convolution without bias that keeps height and width, layer norm, and SiLU if asked.

    Args:
        in_width: channels in.
        out_width: channels out.
        kernel_size: odd side of the kernel.
        groups: of the convolution.
        has_activation: whether SiLU follows.
    """

    def __init__(
        self, in_width: int, out_width: int, *, kernel_size: int = 1, groups: int = 1, has_activation: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
        self.norm = LayerNorm2d(out_width, eps=NORM_EPS)
        self.has_activation = has_activation

    def forward(self, image: Float[Tensor, "n d_in h w"]) -> Float[Tensor, "n d_out h w"]:
        image = self.norm(self.conv(image))
        return F.silu(image) if self.has_activation else image


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the mean over all pixels says.

    Source: Squeeze-and-Excitation (arXiv:1709.01507), section 3, with SiLU inside as EfficientNet has it.
    """

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, hidden_width, 1)
        self.up = nn.Conv2d(hidden_width, width, 1)

    def forward(self, image: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        return image * self.up(F.silu(self.down(image.mean((2, 3), keepdim=True)))).sigmoid()


class Bottleneck(nn.Module):
    """1x1, depthwise 3x3, squeeze and excitation, 1x1, residual, SiLU; no channel is bottled up.

    Source: RegNet (arXiv:2003.13678), the Y block with group width 1.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.expand = ConvNorm(in_width, out_width)
        self.depthwise = ConvNorm(out_width, out_width, kernel_size=3, groups=out_width)
        # The squeeze follows the width that comes in, not that of what it squeezes.
        self.excite = SqueezeExcitation(out_width, round(in_width * SQUEEZE))
        self.project = ConvNorm(out_width, out_width, has_activation=False)
        is_same = in_width == out_width
        self.shortcut = nn.Identity() if is_same else ConvNorm(in_width, out_width, has_activation=False)

    def forward(self, image: Float[Tensor, "n d_in h w"]) -> Float[Tensor, "n d_out h w"]:
        out = self.project(self.excite(self.depthwise(self.expand(image))))
        return F.silu(out + self.shortcut(image))


class Sampler(nn.Module):
    """Fewer frames and patches: a 3-d convolution or a mean whose windows touch, then SiLU.

    Args:
        width: d, channels.
        kind: `conv` or `pool`.
        stride: window over (t, h, w).
        padding: zeros on every side of every axis, of the convolution alone.
    """

    def __init__(
        self, width: int, *, kind: Literal["conv", "pool"], stride: tuple[int, int, int], padding: int
    ) -> None:
        super().__init__()
        if kind == "conv":
            self.window = nn.Conv3d(width, width, stride, stride=stride, padding=padding)
        else:
            self.window = nn.AvgPool3d(stride, stride=stride)

    def forward(self, video: Float[Tensor, "b d t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        return F.silu(self.window(video))


class Stc(nn.Module):
    """Spatial-temporal convolution connector: RegNet stage, sampler, RegNet stage, MLP.

    Source: VideoLLaMA 2 (arXiv:2406.07476), section 3.1, and its published code for the variants. By settings:
    STC (the defaults), STC v3.5 (`padding: 0`), STP (`sampler: pool`), spatial conv and spatial pool
    (`depth: 0, stride: [1, 2, 2]`).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of VideoLLaMA2-7B.

        Args:
            depth: blocks of each stage; 0 leaves both stages out and needs an encoder of the decoder's width.
            sampler: how frames and patches become fewer: a convolution or a mean.
            stride: frames, rows and columns that become one.
            padding: zeros around frames, rows and columns; of the convolution alone. With 1, 8 frames give 5 steps.
            mlp_depth: linear layers behind, with an exact GELU between two.
        """

        depth: int = 4
        sampler: Literal["conv", "pool"] = "conv"
        stride: tuple[int, int, int] = (2, 2, 2)
        padding: int = 1
        mlp_depth: int = 2

        def build(self, *, in_width: int, out_width: int) -> "Stc":
            """Builds it with random weights between an encoder and a decoder of these widths."""
            return Stc(self, in_width=in_width, out_width=out_width)

        def num_tokens(self, num_frames: int, num_patches: int) -> int:
            """Tokens for the decoder of an encoder's [t p d].

            Raises:
                ValueError: the patches are no square, or there are fewer frames or rows than one window takes.
            """
            side = square_side(num_patches)
            padding = self.padding if self.sampler == "conv" else 0
            counts = [
                (size + 2 * padding) // stride
                for size, stride in zip((num_frames, side, side), self.stride, strict=True)
            ]
            if not all(counts):
                raise ValueError(
                    f"{num_frames} frames of {side} x {side} patches are fewer than one window of the connector, "
                    f"{self.stride} (connector.stride) with padding {padding}; repeat the frame or use larger pictures"
                )
            return math.prod(counts)

    def __init__(self, config: Config, *, in_width: int, out_width: int) -> None:
        super().__init__()
        if config.depth == 0 and in_width != out_width:
            raise ValueError(
                f"connector.depth is 0, which keeps the width: the encoder has {in_width}, the decoder {out_width}; "
                f"expected one width or a depth of 1 or more"
            )
        self.config = config
        self.before = stage(config.depth, in_width, out_width)
        self.sampler = Sampler(out_width, kind=config.sampler, stride=config.stride, padding=config.padding)
        self.after = stage(config.depth, out_width, out_width)
        layers: list[nn.Module] = [nn.Linear(out_width, out_width)]
        for _ in range(config.mlp_depth - 1):
            layers += [nn.GELU(), nn.Linear(out_width, out_width)]
        self.projection = nn.Sequential(*layers)

    def prefix(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b t p d_in"]:
        """The tokens unchanged: all of this connector is trained."""
        return tokens

    def resample(self, features: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        """From the patches of each frame to the decoder's tokens, in the order (t h w).

        Raises:
            ValueError: the patches are no square, or there are fewer frames or rows than one window takes.
        """
        num_clips, num_frames, num_patches, _ = features.shape
        self.config.num_tokens(num_frames, num_patches)  # says what is wrong before a convolution does
        video = rearrange(features, "b t (h w) d -> (b t) d h w", h=square_side(num_patches))
        video = self.sampler(rearrange(self.before(video), "(b t) d h w -> b d t h w", b=num_clips))
        video = self.after(rearrange(video, "b d t h w -> (b t) d h w"))
        return self.projection(rearrange(video, "(b t) d h w -> b (t h w) d", b=num_clips))

    def forward(self, tokens: Float[Tensor, "b t p d_in"]) -> Float[Tensor, "b m d_out"]:
        return self.resample(tokens)


def stage(depth: int, in_width: int, out_width: int) -> nn.Sequential:
    """`depth` bottleneck blocks; the first changes the width."""
    return nn.Sequential(*(Bottleneck(in_width if i == 0 else out_width, out_width) for i in range(depth)))


def square_side(num_patches: int) -> int:
    """Rows, and columns, of the square that the patches of a frame make.

    Raises:
        ValueError: they make none.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches or not side:
        raise ValueError(
            f"a frame has {num_patches} tokens, which make no square; expected square pictures and "
            f"encoder.feature: patch, without the class token"
        )
    return side
