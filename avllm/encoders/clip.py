"""CLIP and SigLIP: the vision towers of VideoLLaMA 2, through the classes of `transformers`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Family = Literal["clip", "siglip"]


class Clip(nn.Module):
    """The tokens of each frame after one of the tower's blocks; what comes after that block is not built.

    CLIP's class token leads its patches and is left out by the feature `patch`; SigLIP has none.

    Source: CLIP (arXiv:2103.00020), SigLIP (arXiv:2303.15343); as VideoLLaMA 2 (arXiv:2406.07476, section 3.1) and
    LLaVA-1.5 use them: the tokens after the last block but one.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes; the defaults are those of CLIP ViT-L/14 at 336 pixels.

        Args:
            family: whether there are a class token and a norm before the blocks (CLIP) or not (SigLIP).
            image_size: side in pixels of the images of which the position table is stored.
            patch_size: side of a patch in pixels; what is left over at the right and at the bottom is not seen.
            width: d of the tokens.
            depth: blocks of the published tower.
            num_heads: attention heads.
            mlp_width: hidden width of the feed-forward.
            activation: of the feed-forward.
            layer_norm_eps: of every norm.
            layer: whose tokens go on; 0 is the input of the first block, `depth` or -1 the output of the last.
            feature: `patch`, or `cls_patch` with the class token first.
        """

        family: Family = "clip"
        image_size: int = 336
        patch_size: int = 14
        width: int = 1024
        depth: int = 24
        num_heads: int = 16
        mlp_width: int = 4096
        activation: Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"] = "quick_gelu"
        layer_norm_eps: float = 1e-5
        layer: int = -2
        feature: Literal["patch", "cls_patch"] = "patch"

        @property
        def num_blocks(self) -> int:
            """Blocks that are run."""
            return self.layer if self.layer >= 0 else self.depth + 1 + self.layer

        def token_shape(self, shape: Sequence[int]) -> tuple[int, int]:
            """(t, p) of the tokens for frames of shape (t, c, h, w)."""
            patches = (shape[-2] // self.patch_size) * (shape[-1] // self.patch_size)
            return shape[0], patches + (self.feature == "cls_patch")

        def build(self) -> "Clip":
            """Builds the encoder with random weights."""
            return Clip(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not 0 <= config.num_blocks <= config.depth:
            raise ValueError(
                f"encoder.layer is {config.layer}, the tower has {config.depth} blocks; "
                f"expected {-config.depth - 1} to {config.depth}"
            )
        if config.family == "siglip" and config.feature == "cls_patch":
            raise ValueError("encoder.feature is cls_patch, SigLIP has no class token; expected patch")
        self.config, self.width = config, config.width
        sizes = {
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.num_blocks,
            "num_attention_heads": config.num_heads,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "hidden_act": config.activation,
            "layer_norm_eps": config.layer_norm_eps,
        }
        self.tower = _tower(config.family, sizes)
        self.tower.add_module("post_layernorm", nn.Identity())  # the systems here read the blocks' output as it is

    def forward(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t p d"]:
        """Tokens of every frame on its own; p is the patches row by row, after the class token if there is one.

        Args:
            frames: normalised RGB; another size than the stored one interpolates the position table.

        Raises:
            ValueError: the frames are smaller than a patch.
        """
        tokens = self.tower(
            pixel_values=rearrange(frames, "b t c h w -> (b t) c h w"),
            interpolate_pos_encoding=self.is_other_size(frames),
        ).last_hidden_state
        return self.chosen(rearrange(tokens, "(b t) p d -> b t p d", b=len(frames)))

    def is_other_size(self, frames: Float[Tensor, "b t c h w"]) -> bool:
        """Whether the frames have another size than the one of which positions are stored.

        Raises:
            ValueError: they are smaller than a patch.
        """
        height, width = frames.shape[-2:]
        if min(height, width) < self.config.patch_size:
            raise ValueError(
                f"frames are {height} x {width} pixels, a patch is {self.config.patch_size}; enlarge them (media.size)"
            )
        return (height, width) != (self.config.image_size, self.config.image_size)

    def chosen(self, tokens: Float[Tensor, "b t p d"]) -> Float[Tensor, "b t q d"]:
        """The tokens that the feature names, of all that a block gave."""
        leaves_class_token = self.config.family == "clip" and self.config.feature == "patch"
        return tokens[:, :, 1:] if leaves_class_token else tokens


def _tower(family: Family, sizes: Mapping[str, Any]) -> nn.Module:
    # Imported here: the other systems need not wait for them.
    if family == "clip":
        from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel

        return CLIPVisionModel(CLIPVisionConfig(**sizes))
    from transformers.models.siglip.modeling_siglip import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**sizes, vision_use_head=False))
