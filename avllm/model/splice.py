"""Puts the tokens of media into their slots of the prompt."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


def splice(
    embeds: Float[Tensor, "b l d"], is_slot: Bool[Tensor, "b l"], tokens: Float[Tensor, "m d"]
) -> Float[Tensor, "b l d"]:
    """Fills the slots, row by row from left to right, with the tokens in their order.

    Args:
        embeds: embedded prompt; what stands in the slots is overwritten.
        is_slot: which positions are slots.
        tokens: media tokens of the whole batch, one per slot.

    Raises:
        ValueError: the number of slots is not the number of tokens.
    """
    num_slots = int(is_slot.sum())
    if num_slots != len(tokens):
        raise ValueError(
            f"the prompts hold {num_slots} media slots, encoders gave {len(tokens)} tokens; "
            f"pass the media in batch order, one for each medium of the prompts"
        )
    return embeds.masked_scatter(rearrange(is_slot, "b l -> b l 1"), tokens.to(embeds.dtype))
