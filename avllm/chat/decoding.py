"""How answers are written token by token: rows that leave the batch, prompts without padding, a seed per row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.generation import LogitsProcessorList, StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from avllm.model.cache import CACHE, growing_cache, grows

# Options with which `generate` of transformers runs a loop of its own.
OTHER_LOOPS = ("assistant_model", "prompt_lookup_num_tokens", "custom_generate", "cache_implementation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """A loop for `custom_generate` of `transformers`, which prepares everything else; greedy or drawn.

    Against the loop that is there, a row that has ended leaves the batch, each row has a limit of its own, and a seed
    gives the same answer in any batch and beside any other thread. On a CPU, where a batch does not make the reading
    of prompts cheaper, they are read one by one, and what a prompt shares with an earlier one (a system text, a medium)
    is read once.

    Args:
        limits: the most new tokens of each row.
        mask: 0 at the padding of the prompts. Given here, as `generate` of `transformers` (5.23) takes its zeros for
            new tokens that `repetition_penalty` shall spare.
        seed: of what is drawn, the same for every row; None draws from torch's own state.
        streamer: takes the new tokens of a single row.
    """

    limits: Sequence[int]
    mask: Int[Tensor, "b l"] | None = None
    seed: int | None = None
    streamer: BaseStreamer | None = None

    def __call__(
        self,
        model: Any,
        input_ids: Int[Tensor, "b 0"],
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **inputs: Any,
    ) -> list[list[int]]:
        """New ids of every row, without padding. `generate` names its `inputs` like arguments of the decoder."""
        batch = _Batch(model, inputs["inputs_embeds"], self.mask, inputs[CACHE])
        generators = [_generator(self.seed, input_ids.device) for _ in self.limits]
        answers: list[list[int]] = [[] for _ in self.limits]
        ids, logits = input_ids, batch.read_prompts()
        while True:
            scores = logits_processor(cast(Any, ids), cast(Any, logits.to(ids.device, torch.float32, copy=True)))
            drawn = [generators[row] for row in batch.rows] if generation_config.do_sample else None
            ids = torch.cat([ids, _choose(scores, drawn)], dim=1)
            if self.streamer is not None:
                self.streamer.put(ids[:, -1].cpu())
            ended = stopping_criteria(ids, None).tolist()  # type: ignore[arg-type]
            going = []
            for index, row in enumerate(batch.rows):
                if ended[index] or ids.shape[1] >= self.limits[row]:
                    answers[row] = ids[index].tolist()
                else:
                    going.append(index)
            if not going:
                break
            if len(going) < len(ids):
                ids = ids[going]
                batch.keep(going)
            logits = batch.step(ids[:, -1:])
        if self.streamer is not None:
            self.streamer.end()
        return answers


class _Batch:
    """The rows that are still being written, and what the decoder remembers of them."""

    def __init__(
        self, model: Any, embeds: Float[Tensor, "b l d"], mask: Int[Tensor, "b l"] | None, cache: DynamicCache
    ) -> None:
        self.model, self.embeds, self.mask, self.cache = model, embeds, mask, cache
        self.layers: list[Any] = cache.layers  # each with keys and values
        self.rows = list(range(len(embeds)))
        self.lengths: list[int] = [embeds.shape[1]] * len(embeds) if mask is None else mask.sum(-1).tolist()
        self.width, self.num_new = embeds.shape[1], 0

    def read_prompts(self) -> Float[Tensor, "b v"]:
        """The logits of the first new token of each row."""
        if len(self.rows) == 1:
            known = self.cache.get_seq_length()
            return self._forward(self.cache, inputs_embeds=self.embeds[:, known:])
        if self.embeds.device.type == "cpu" and grows(self.cache):
            return self._read_one_by_one()
        mask = self.mask
        positions = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
        return self._forward(self.cache, inputs_embeds=self.embeds, attention_mask=mask, position_ids=positions)

    def _read_one_by_one(self) -> Float[Tensor, "b v"]:
        longest, logits = self.embeds.shape[1], []
        prompts = [self.embeds[row, longest - length :] for row, length in enumerate(self.lengths)]
        for row, prompt in enumerate(prompts):
            shared, source = max(
                ((_num_shared(known, prompt), j) for j, known in enumerate(prompts[:row])), default=(0, 0)
            )
            known, start = growing_cache(self.model.config), longest - self.lengths[source]
            known_layers: list[Any] = known.layers
            for layer, held in zip(known_layers, self.layers, strict=True):
                if shared:
                    layer.update(*(part[source : source + 1, :, start : start + shared] for part in _parts(held)))
            logits.append(self._forward(known, inputs_embeds=prompt[None, shared:]))
            for layer, filled in zip(self.layers, known_layers, strict=True):
                if row == 0:
                    layer.update(*(_room(part, len(prompts), longest) for part in _parts(filled)))
                for part, new in zip(_parts(layer), _parts(filled), strict=True):
                    part[row, :, longest - len(prompt) :] = new[0]
        return torch.cat(logits)

    def step(self, ids: Int[Tensor, "b 1"]) -> Float[Tensor, "b v"]:
        """The logits after one more token in each row."""
        if self.mask is None or set(self.lengths) == {self.width}:
            self.num_new += 1
            return self._forward(self.cache, input_ids=ids)
        positions = torch.tensor(self.lengths, device=ids.device) + self.num_new
        self.num_new += 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        positions = rearrange(positions, "b -> b 1")
        return self._forward(self.cache, input_ids=ids, attention_mask=self.mask, position_ids=positions)

    def keep(self, indices: list[int]) -> None:
        """Lets the other rows go, and with them the padding that the longest of them needed."""
        chosen = torch.tensor(indices, device=self.embeds.device)
        self.rows = [self.rows[index] for index in indices]
        lengths = [self.lengths[index] for index in indices]
        spare = self.width - max(lengths) if grows(self.cache) else 0
        self.lengths, self.width = lengths, self.width - spare
        for layer in self.layers:
            layer.batch_select_indices(chosen)
            if spare:
                layer.keys, layer.values = layer.keys[..., spare:, :], layer.values[..., spare:, :]
        if self.mask is not None:
            self.mask = self.mask[chosen, spare:]

    def _forward(self, cache: DynamicCache, **inputs: Any) -> Float[Tensor, "b v"]:
        out = self.model(**{CACHE: cache}, use_cache=True, logits_to_keep=1, **inputs)
        return out.logits[:, -1]


def _choose(scores: Float[Tensor, "b v"], generators: list[torch.Generator | None] | None) -> Int[Tensor, "b 1"]:
    if generators is None:
        return scores.argmax(-1, keepdim=True)
    shares = scores.softmax(-1)
    return torch.stack([torch.multinomial(row, 1, generator=g) for row, g in zip(shares, generators, strict=True)])


def _generator(seed: int | None, device: torch.device) -> torch.Generator | None:
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def _num_shared(first: Float[Tensor, "l d"], second: Float[Tensor, "m d"]) -> int:
    """How many positions two prompts have in common from the start; one of the second is always left to compute."""
    length = min(len(first), len(second) - 1)
    differs = (first[:length] != second[:length]).any(-1).nonzero()
    return int(differs[0]) if len(differs) else length


def _parts(layer: Any) -> tuple[Float[Tensor, "b h l d"], Float[Tensor, "b h l v"]]:
    return layer.keys, layer.values


def _room(part: Float[Tensor, "1 h l d"], num_rows: int, length: int) -> Float[Tensor, "b h m d"]:
    return part.new_zeros(num_rows, part.shape[1], length, part.shape[3])
