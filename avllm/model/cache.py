"""The decoder's memory of a conversation, which grows in place."""

from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

BLOCK = 256
# What decoders of `transformers` call the cache, as an argument and in what they return; 5.24 renamed it.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer in buffers with room behind them: a new token is written, nothing is copied.

    `DynamicLayer` writes the whole cache anew for every token. Keys and values are views of the buffers; whatever
    replaces them (beams, rows that leave) gets new buffers at the next token.
    """

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Float[Tensor, "b h l d"], value_states: Float[Tensor, "b h l v"], *args, **kwargs
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n v"]]:
        """Appends; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        total = length + key_states.shape[-2]
        if not self._has_room(key_states, total):
            self._buffers = (self._grown(self.keys, key_states, total), self._grown(self.values, value_states, total))
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., length:total, :] = states
        self.keys, self.values = (buffer[..., :total, :] for buffer in self._buffers)
        return self.keys, self.values

    def reset(self) -> None:
        super().reset()
        self._buffers = None

    def _has_room(self, states: Tensor, total: int) -> bool:
        if self._buffers is None or self.keys is None or self.keys.numel() == 0:
            return False
        held = self._buffers[0]
        is_view = self.keys.data_ptr() == held.data_ptr() and len(held) == len(states)
        return is_view and total <= held.shape[-2]

    @staticmethod
    def _grown(held: Tensor | None, states: Tensor, total: int) -> Tensor:
        room = -(-(total + BLOCK // 2) // BLOCK) * BLOCK
        buffer = states.new_empty(*states.shape[:-2], room, states.shape[-1])
        if held is not None and held.numel():
            buffer[..., : held.shape[-2], :] = held
        return buffer


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a decoder of this configuration, which `generate` takes as its argument `CACHE`.

    Layers that remember otherwise (sliding windows) stay those of `transformers`.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def grows(cache: DynamicCache) -> bool:
    """Whether every layer keeps all positions, so that rows can be put together and shortened freely."""
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)
