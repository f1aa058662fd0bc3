"""A system that is loaded once and answers many: media are decoded and encoded once, questions go in batches."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.generation import StoppingCriteriaList

from avllm.chat.asked import GIVEN, Asked, AudioMode, require_text
from avllm.chat.decoding import OTHER_LOOPS, Decoding
from avllm.chat.generate_options import DEFAULTS, settled
from avllm.chat.generation import StopOnText, seeded
from avllm.chat.layout import lay_out_for_cpu
from avllm.chat.perceiver import Perceiver
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.checkpoints.load import load_model
from avllm.errors import ConfigError
from avllm.model import Turn
from avllm.model.cache import CACHE, growing_cache
from avllm.model.plan import Workload, out_of_memory_named
from avllm.model.quirks import cut_prompt_from_left

if TYPE_CHECKING:
    from avllm.chat.session import Session


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question on its own, for `Assistant.answers`; question, media and how they are read as in `Session.ask`.

    Args:
        system: in place of the system text of the prompt form.
        answer_start: what the answer begins with; the model goes on from there.
        max_new_tokens: the longest answer, in place of the one given for all.
    """

    question: str | Sequence[Any]
    video: Any = None
    image: Any = None
    audio: Any = None
    media: Any = None
    audio_mode: AudioMode = "auto"
    num_frames: int | None = None
    sampling: str | None = None
    fps: float | None = None
    max_frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    source_fps: float | None = None
    source_rate: int | None = None
    limits: Any = None
    system: str | None = None
    answer_start: str = ""
    max_new_tokens: int | None = None

    def asked(self) -> Asked:
        """The question and its media, checked.

        Raises:
            AvllmError: see `Asked.checked`; also of a system text or `answer_start` that is no text.
        """
        require_text(self.answer_start, "answer_start")
        if self.system is not None:
            require_text(self.system, "system")
        return Asked.checked(self.question, **{name: getattr(self, name) for name in GIVEN})

    def limit(self, default: int | None) -> int:
        """The longest answer in tokens; `default` where the request does not say it."""
        own = self.max_new_tokens
        return settled({"max_new_tokens": default if own is None else own})["max_new_tokens"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompted:
    """A conversation ready for the decoder.

    Args:
        ids: token ids, slots among them.
        keys: what stands at each position; a slot's key tells its medium, so that equal keys mean equal embeddings.
        embeds: the ids and media embedded.
    """

    ids: list[int]
    keys: list[Any]
    embeds: Float[Tensor, "1 l d"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """New ids of each row and seconds spent."""

    ids: list[list[int]]
    timings_s: dict[str, float] = field(default_factory=dict)


class Assistant(Perceiver):
    """Answers questions about media; `chat()` starts a conversation.

    Args:
        model: the system's model.
        processor: its processor.
        name: how replies name it.
        max_media_bytes: of encoded media that are kept for later questions.
    """

    def chat(self, *, system: str | None = None, overflow: Literal["error", "drop_oldest_turn"] = "error") -> "Session":
        """Starts a conversation; see `Session` for the settings."""
        from avllm.chat.session import Session

        return Session(self, system=system, overflow=overflow)

    def prompt(
        self, turns: Sequence[Turn], media: Sequence[Perceived], system: str | None = None, answer_start: str = ""
    ) -> Prompted:
        """Ids, keys and embeddings of a conversation whose media are `media`, in the order of their turns."""
        ids = list(self.processor.encode(turns, system=system).input_ids)
        if answer_start:
            ids += self.processor.tokenizer.encode(answer_start, add_special_tokens=False)
        slots = {token: name for name, token in self.processor.slot_ids.items()}
        fills = {
            name: iter(
                [(item.key, index) for item in media if item.medium.branch == name for index in range(len(item.tokens))]
            )
            for name in slots.values()
        }
        keys: list[Any] = [next(fills[slots[token]]) if token in slots else token for token in ids]
        tokens = {
            name: torch.cat([item.tokens for item in media if item.medium.branch == name])
            for name in {item.medium.branch for item in media}
        }
        with torch.no_grad():
            embeds = self.model.embed(torch.tensor([ids], device=self.model.device), tokens=tokens)
        return Prompted(ids=ids, keys=keys, embeds=embeds)

    def generate(
        self,
        embeds: Float[Tensor, "b l d"],
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        stop: StopOnText | None = None,
        limits: Sequence[int] | None = None,
        **options: Any,
    ) -> Generated:
        """New ids for embedded prompts.

        Args:
            embeds: whole conversations, padded on the left.
            attention_mask: 0 at the padding.
            cache: of the conversation so far; what it holds is not computed again.
            stop: also tells when the first token came.
            limits: the most new tokens of each row, in place of `max_new_tokens`.
            options: `seed`, and what `generate` of `transformers` takes; see `generate_options.settled`.

        Raises:
            ConfigError: an option is unknown or wrong, or prompt and answer do not fit into the decoder's context.
            NumericError: the logits are not finite.
        """
        options = settled(options)
        limits = list(limits) if limits is not None else [options["max_new_tokens"]] * len(embeds)
        options["max_new_tokens"] = max(limits)
        embeds, attention_mask = self._fit(embeds, attention_mask, limits)
        seed = options.pop("seed", None)
        stop = stop or StopOnText(self.processor)
        criteria = StoppingCriteriaList([stop, *options.pop("stopping_criteria", ())])
        is_plain = options["num_beams"] == options.get("num_return_sequences", 1) == 1
        if is_plain and not any(name in options for name in OTHER_LOOPS):
            streamer = options.pop("streamer", None)
            loop = Decoding(limits=limits, mask=attention_mask, seed=seed, streamer=streamer)
            cache = growing_cache(self.model.config.text_config) if cache is None else cache
            options["custom_generate"], attention_mask, seed = loop, None, None
        started = time.perf_counter()
        with self._memory_named(embeds, options["max_new_tokens"]), seeded(seed, embeds.device):
            rows = self.model.generate(
                inputs_embeds=embeds,
                attention_mask=attention_mask,
                **{CACHE: cache},
                stopping_criteria=criteria,
                pad_token_id=self.processor.pad_id,
                **options,
            )
        timings = {"first_token": stop.first_token_s or 0.0, "generate": time.perf_counter() - started}
        return Generated(ids=rows if isinstance(rows, list) else rows.tolist(), timings_s=timings)

    def _memory_named(self, embeds: Float[Tensor, "b l d"], new_tokens: int) -> AbstractContextManager[None]:
        def work() -> Workload:
            dtype = self.model.dtype
            return Workload(dtype=dtype, batch=len(embeds), text_tokens=embeds.shape[1], new_tokens=new_tokens)

        return out_of_memory_named(self._config, work, embeds.device)

    def fits(self, num_tokens: int, options: Mapping[str, Any]) -> bool:
        """Whether a prompt of so many tokens and its answer fit into the decoder's context."""
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        longest = options.get("max_new_tokens") or DEFAULTS["max_new_tokens"]
        return limit is None or num_tokens + longest <= limit

    def require_room(
        self,
        turns: Sequence[Turn],
        *,
        system: str | None = None,
        answer_start: str = "",
        max_new_tokens: int | None = None,
    ) -> None:
        """That a conversation and its answer fit into the decoder's context, as far as its turns tell.

        Raises:
            ConfigError: they do not.
        """
        if "cut_prompt_from_left" not in self.processor.published_quirks:
            ids = self.processor.encode(turns, system=system).input_ids
            begun = self.processor.tokenizer.encode(answer_start, add_special_tokens=False) if answer_start else []
            self._require_room(len(ids) + len(begun), max_new_tokens or DEFAULTS["max_new_tokens"])

    def _require_room(self, length: int, longest: int) -> None:
        if not self.fits(length, {"max_new_tokens": longest}):
            raise ConfigError(
                f"the conversation has {length} tokens and the answer may take {longest}, the decoder holds "
                f"{self.model.config.text_config.max_position_embeddings}; start a new chat, drop media or "
                f'earlier turns (overflow="drop_oldest_turn" does), or lower max_new_tokens'
            )

    def _fit(
        self, embeds: Float[Tensor, "b l d"], mask: Tensor | None, limits: Sequence[int]
    ) -> tuple[Float[Tensor, "b m d"], Tensor | None]:
        if "cut_prompt_from_left" in self.processor.published_quirks:
            return cut_prompt_from_left(embeds, max(limits)), None
        lengths = [embeds.shape[1]] * len(embeds) if mask is None else mask.sum(-1).tolist()
        for length, longest in zip(lengths, limits, strict=True):
            self._require_room(length, longest)
        return embeds, mask

    def perceive_request(self, item: Request) -> list[Perceived]:
        """The media of a request, as `perceive_all` gives them."""
        return self.look(item.asked())

    def check_request(self, item: Request, max_new_tokens: int | None = None) -> None:
        """What can be said of a request before its media are opened.

        Args:
            item: the request.
            max_new_tokens: the longest answer, where the request does not say it.

        Raises:
            AvllmError: it cannot be answered.
        """
        asked, limit = item.asked(), item.limit(max_new_tokens)
        self.check(asked)
        turn = asked.turn(*self.least(asked))
        self.require_room([turn], system=item.system, answer_start=item.answer_start, max_new_tokens=limit)

    def answers(
        self, requests: Sequence[Request], *, media: Sequence[list[Perceived]] | None = None, **options: Any
    ) -> list[Reply]:
        """Answers independent questions as one batch; each is what it would be alone.

        Args:
            requests: questions, with media or without.
            media: what `perceive_request` gave for each, if that is done already.
            options: what `generate` of `transformers` takes.
        """
        if not requests:
            return []
        asked = [item.asked() for item in requests]
        media = media if media is not None else [self.look(one) for one in asked]
        turns = [turn_of(one, found) for one, found in zip(asked, media, strict=True)]
        prompts = [
            self.prompt([turn], found, item.system, item.answer_start)
            for turn, found, item in zip(turns, media, requests, strict=True)
        ]
        embeds, mask = _left_padded([prompt.embeds for prompt in prompts])
        default = settled(options)["max_new_tokens"]
        limits = [item.limit(default) for item in requests]
        out = self.generate(embeds, attention_mask=mask, limits=limits, **options)
        return [
            self.reply(turn.question, self.processor.answer(ids), found, out.timings_s)
            for turn, ids, found in zip(turns, out.ids, media, strict=True)
        ]

    def reply(
        self, question: str, answer: str, media: Sequence[Perceived], timings_s: Mapping[str, float], new: int = -1
    ) -> Reply:
        """The reply to a question in a conversation with these media, of which the last `new` were new (-1: all)."""
        fresh = media[len(media) - new :] if new >= 0 else media
        spent = {
            "decode": sum(item.decode_s for item in fresh),
            "encode": sum(item.encode_s for item in fresh),
            **timings_s,
        }
        spent["total"] = spent["decode"] + spent["encode"] + spent.get("generate", 0.0)
        kinds = {item.medium.kind for item in media}
        seen = [item for item in media if item.medium.kind == "video"]
        return Reply(
            question=question,
            answer=answer,
            streams_used=tuple(kind for kind in ("video", "image", "audio") if kind in kinds),
            frames=seen[-1].medium.times_s if seen else (),
            model=self.name,
            timings_s=spent,
            num_damaged=sum(item.num_damaged for item in media),
        )


def load(name: str | Path = "nano", **options: Any) -> Assistant:
    """Loads a system by name or folder; see `avllm.checkpoints.load.load_model` for the options.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
    """
    model, processor = load_model(name, **options)
    lay_out_for_cpu(model)
    return Assistant(model, processor, name=str(name))


def _left_padded(
    prompts: Sequence[Float[Tensor, "1 _ d"]],
) -> tuple[Float[Tensor, "b l d"], Int[Tensor, "b l"]]:
    """Prompts side by side, and 1 where they stand."""
    longest = max(prompt.shape[1] for prompt in prompts)
    embeds = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[-1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=embeds.device)
    for row, prompt in enumerate(prompts):
        embeds[row, longest - prompt.shape[1] :] = prompt[0]
        mask[row, longest - prompt.shape[1] :] = 1
    return embeds, mask


def turn_of(asked: Asked, media: Sequence[Perceived], answer: str | None = None) -> Turn:
    """A question with what was found of its media, as the prompt sees it."""
    return asked.turn([item.medium for item in media], [item.part for item in media], answer)


__all__ = ["Assistant", "Generated", "Prompted", "Request", "load"]
