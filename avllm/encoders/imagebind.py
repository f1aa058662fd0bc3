"""ImageBind: pictures, sounds and texts as vectors of one space. Video-LLaMA hears with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from avllm.encoders.transformer import Attention, Block, init_weights, patch_grid, resize_positions

MAX_LOGIT_SCALE = 100.0
AnyTrunk = TypeVar("AnyTrunk", bound="Trunk")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes of the vision trunk.

    Args:
        image_size: side in pixels of the images of which the position table is stored.
        patch_size: side of a patch in pixels.
        clip_frames: frames of one clip; a still image is repeated so often.
        width: d of the trunk.
        depth: blocks.
        num_heads: attention heads.
    """

    image_size: int = 224
    patch_size: int = 14
    clip_frames: int = 2
    width: int = 1280
    depth: int = 32
    num_heads: int = 16


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Sizes of the audio trunk.

    Args:
        num_mel_bins: f of a segment.
        num_frames: n, mel frames of a segment.
        kernel_size: side of a patch, in bins and frames.
        stride: step between patches, in bins and frames.
        width: d of the trunk.
        depth: blocks.
        num_heads: attention heads.
        logit_scale: length of the embeddings before weights are loaded; it is not trained.
    """

    num_mel_bins: int = 128
    num_frames: int = 204
    kernel_size: int = 16
    stride: int = 10
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    logit_scale: float = 20.0


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Sizes of the text trunk.

    Args:
        context_length: token ids of a text, padded with zeros.
        vocab_size: the largest id ends a text.
        width: d of the trunk.
        depth: blocks.
        num_heads: attention heads.
        logit_scale: length of the embeddings at the start; it is trained.
    """

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    logit_scale: float = 1 / 0.07


class Trunk(nn.Module):
    """Stem, positions, blocks and head of one modality; the subclass makes tokens and picks the one that speaks.

    Args:
        width: d of the trunk.
        depth: blocks.
        num_heads: attention heads.
        out_width: width of the joint space.
        has_extra_key: as in `Attention`.
        is_causal: as in `Attention`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        out_width: int,
        has_extra_key: bool = False,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                Attention(width, num_heads, has_extra_key=has_extra_key, is_causal=is_causal),
                width=width,
                mlp_width=4 * width,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.projection = nn.Linear(width, out_width, bias=False)

    def run_blocks(self, tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        """All blocks in order."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def head(self, token: Float[Tensor, "b d"]) -> Float[Tensor, "b d_out"]:
        """Norm and projection of the token that speaks for the input."""
        return self.projection(self.norm(token))


class VisionTrunk(Trunk):
    """Clips of a few frames; one convolution over time and space makes the patches, a norm precedes the blocks."""

    def __init__(self, config: VisionConfig, out_width: int) -> None:
        super().__init__(width=config.width, depth=config.depth, num_heads=config.num_heads, out_width=out_width)
        self.config = config
        self.stored_grid = patch_grid(config.image_size, config.image_size, config.patch_size)
        kernel = (config.clip_frames, config.patch_size, config.patch_size)
        self.patches = nn.Conv3d(3, config.width, kernel, stride=kernel, bias=False)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + self.stored_grid[0] * self.stored_grid[1], config.width))
        self.pre_norm = nn.LayerNorm(config.width, eps=1e-6)

    def tokens(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b p d"]:
        """Class token and patches with their positions."""
        if clips.shape[2] != self.config.clip_frames:
            raise ValueError(
                f"clip has {clips.shape[2]} frames, ImageBind's vision trunk takes {self.config.clip_frames}; "
                f"cut the video into clips of {self.config.clip_frames} frames or pass still frames"
            )
        grid = patch_grid(clips.shape[-2], clips.shape[-1], self.config.patch_size)
        patches = rearrange(self.patches(clips), "b d 1 h w -> b (h w) d")
        tokens = torch.cat([repeat(self.class_token, "1 1 d -> b 1 d", b=len(patches)), patches], dim=1)
        return tokens + resize_positions(self.positions, grid, self.stored_grid)

    def forward(self, clips: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d_out"]:
        return self.head(self.run_blocks(self.pre_norm(self.tokens(clips)))[:, 0])


class AudioTrunk(Trunk):
    """Log-mel segments in overlapping patches; every block has one learned key and value more."""

    def __init__(self, config: AudioConfig, out_width: int) -> None:
        super().__init__(
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            out_width=out_width,
            has_extra_key=True,
        )
        self.config = config
        for name, size in (("num_mel_bins", config.num_mel_bins), ("num_frames", config.num_frames)):
            if size < config.kernel_size:
                raise ValueError(f"audio.{name} is {size}, less than kernel_size {config.kernel_size}; raise it")
        rows, columns = (
            (size - config.kernel_size) // config.stride + 1 for size in (config.num_mel_bins, config.num_frames)
        )
        self.patches = nn.Conv2d(1, config.width, config.kernel_size, stride=config.stride, bias=False)
        self.stem_norm = nn.LayerNorm(config.width, eps=1e-5)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + rows * columns, config.width))
        self.register_buffer("log_logit_scale", torch.tensor(math.log(config.logit_scale)))
        self.log_logit_scale: Tensor

    def tokens(self, segments: Float[Tensor, "b c f n"]) -> Float[Tensor, "b p d"]:
        """Class token and normalised patches with their positions."""
        expected = (self.config.num_mel_bins, self.config.num_frames)
        if tuple(segments.shape[-2:]) != expected:
            raise ValueError(
                f"segments are {segments.shape[-2]} mel bins x {segments.shape[-1]} frames, "
                f"the audio encoder takes {expected[0]} x {expected[1]}; set media.num_mel_bins and media.num_frames"
            )
        patches = self.stem_norm(rearrange(self.patches(segments), "b d f n -> b (f n) d"))
        tokens = torch.cat([repeat(self.class_token, "1 1 d -> b 1 d", b=len(patches)), patches], dim=1)
        return tokens + self.positions

    def forward(self, segments: Float[Tensor, "b c f n"]) -> Float[Tensor, "b d_out"]:
        return self.head(self.run_blocks(self.tokens(segments))[:, 0])


class TextTrunk(Trunk):
    """Token ids under a causal mask; the token with the largest id, which ends the text, speaks."""

    def __init__(self, config: TextConfig, out_width: int) -> None:
        super().__init__(
            width=config.width, depth=config.depth, num_heads=config.num_heads, out_width=out_width, is_causal=True
        )
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(1, config.context_length, config.width))
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))

    def tokens(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Embedded ids with their positions."""
        if ids.shape[1] != self.config.context_length:
            raise ValueError(
                f"texts have {ids.shape[1]} ids, the text trunk takes {self.config.context_length}; "
                f"pad with zeros after the end id"
            )
        return self.token_embedding(ids) + self.positions

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d_out"]:
        last = self.run_blocks(self.tokens(ids))[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return self.head(last)


class ImageBind(nn.Module):
    """The trunks of ImageBind that a system needs, with their heads into the joint space.

    Pictures become unit vectors. Sounds and texts become unit vectors times a logit scale (20 for the published
    sounds), so a connector trained on pictures meets longer vectors when it hears; this is what was published.

    Source: ImageBind (arXiv:2305.05665), section 3 and appendix B; in Video-LLaMA (arXiv:2306.02858) section 2.2.
    """

    PARTS = {"own": ("audio",), "vision": ("vision",)}  # fed -> the parts that are used

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which trunks exist and their sizes; the defaults are those of ImageBind-huge.

        Args:
            width: d of the joint space.
            vision: trunk of frames and short clips; None leaves it out.
            audio: trunk of log-mel segments; None leaves it out.
            text: trunk of token ids; None leaves it out.
        """

        width: int = 1024
        vision: VisionConfig | None = None
        audio: AudioConfig | None = None
        text: TextConfig | None = None

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(t, p) of the tokens for segments or frames of shape (t, ...): one vector each."""
            return shape[0], 1

        def build(self) -> "ImageBind":
            """Builds the encoder with random weights."""
            return ImageBind(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.vision = VisionTrunk(config.vision, config.width) if config.vision else None
        self.audio = AudioTrunk(config.audio, config.width) if config.audio else None
        self.text = TextTrunk(config.text, config.width) if config.text else None
        self.apply(init_weights)
        for name, parameter in self.named_parameters():
            if name.rsplit(".", 1)[-1] in {"class_token", "positions", "extra_key", "extra_value"}:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, segments: Float[Tensor, "b t c f n"]) -> Float[Tensor, "b t 1 d"]:
        """One vector per segment of sound, of length `exp(log_logit_scale)`; no mean over segments.

        Args:
            segments: normalised log-mel, f bins of n frames, c is 1.

        Raises:
            ValueError: this configuration has no audio trunk, or the segments have other sizes than it takes.
        """
        trunk = _present(self.audio, "audio")
        vectors = _scaled(trunk(rearrange(segments, "b t c f n -> (b t) c f n")), trunk.log_logit_scale)
        return rearrange(vectors, "(b t) d -> b t 1 d", b=len(segments))

    def encode_vision(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t 1 d"]:
        """One unit vector per frame; each frame is a still image.

        Raises:
            ValueError: this configuration has no vision trunk.
        """
        num_frames = _present(self.vision, "vision").config.clip_frames
        return self.encode_clips(repeat(frames, "b t c h w -> b t c k h w", k=num_frames))

    def encode_clips(self, clips: Float[Tensor, "b t c k h w"]) -> Float[Tensor, "b t 1 d"]:
        """One unit vector per clip of k frames.

        Raises:
            ValueError: this configuration has no vision trunk, or clips of another length.
        """
        trunk = _present(self.vision, "vision")
        vectors = F.normalize(trunk(rearrange(clips, "b t c k h w -> (b t) c k h w")), dim=-1)
        return rearrange(vectors, "(b t) d -> b t 1 d", b=len(clips))

    def encode_text(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """One vector per text, of length `exp(log_logit_scale)`.

        Args:
            ids: start id, text, end id (the largest), then zeros up to `context_length`.

        Raises:
            ValueError: this configuration has no text trunk, or ids of another length.
        """
        trunk = _present(self.text, "text")
        return _scaled(trunk(ids), trunk.log_logit_scale)


def _scaled(vectors: Float[Tensor, "b d"], log_logit_scale: Float[Tensor, ""]) -> Float[Tensor, "b d"]:
    return F.normalize(vectors, dim=-1) * log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)


def _present(trunk: AnyTrunk | None, name: str) -> AnyTrunk:
    if trunk is None:
        raise ValueError(f"this ImageBind has no {name} trunk; add encoder.{name} to the system's YAML")
    return trunk
