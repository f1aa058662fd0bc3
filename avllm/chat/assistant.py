"""A system that is loaded once and answers many: media are decoded and encoded once, questions go in batches."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.generation import StoppingCriteriaList

from avllm.chat.generation import StopOnText
from avllm.chat.reply import Reply
from avllm.chat.store import MediaStore, Perceived
from avllm.checkpoints.load import load_model
from avllm.errors import ConfigError, DataError, MediaError, NoAudioStream
from avllm.media import content_key
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, Loaded, Turn
from avllm.model.plan import Workload, out_of_memory_named
from avllm.model.prompts import Kind
from avllm.model.quirks import cut_prompt_from_left

if TYPE_CHECKING:
    from avllm.chat.session import Session

AudioMode = Literal["auto", "require", "off"]
# Greedy and of bounded length unless the caller says otherwise, whatever a model's own generation_config.json holds.
DEFAULTS: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": 128}
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question on its own, for `Assistant.answers`; media as in `Session.ask`.

    Args:
        answer_start: what the answer begins with; the model goes on from there.
    """

    question: str
    video: Any = None
    image: Any = None
    audio: Any = None
    audio_mode: AudioMode = "auto"
    num_frames: int | None = None
    system: str | None = None
    answer_start: str = ""


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


class Assistant:
    """Answers questions about media; `chat()` starts a conversation.

    Args:
        model: the system's model.
        processor: its processor.
        name: how replies name it.
        max_media_bytes: of encoded media that are kept for later questions.
    """

    def __init__(
        self,
        model: AvllmForConditionalGeneration,
        processor: AvllmProcessor,
        *,
        name: str = "",
        max_media_bytes: int = 256 * 2**20,
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.store = MediaStore(max_media_bytes)

    def chat(self, *, system: str | None = None, overflow: Literal["error", "drop_oldest_turn"] = "error") -> "Session":
        """Starts a conversation; see `Session` for the settings."""
        from avllm.chat.session import Session

        return Session(self, system=system, overflow=overflow)

    @torch.no_grad()
    def perceive(self, source: Any, kind: Kind, **options: Any) -> Perceived:
        """Decodes and encodes a medium, or takes it from the store.

        Args:
            source: whatever `avllm.media` opens.
            kind: what to read it as; the sound of a video is read as "audio".
            options: see `AvllmProcessor.read`.

        Raises:
            MediaError: it cannot be read.
        """
        try:
            key = content_key(source, {"kind": kind, **options})
        except OSError as error:  # a file that may not be read, a disk that fails
            raise MediaError(f"{error.filename or source}: {error.strerror or error}") from error
        found = self.store.get(key)
        if found is not None:
            return found
        started = time.perf_counter()
        loaded = self.processor.read(source, kind, **options)
        decoded = time.perf_counter()
        tokens = self.model.branch_tokens(loaded.branch, [loaded.values.to(self.model.device)], None)
        perceived = Perceived(
            key=key,
            medium=self.processor.medium(loaded),
            tokens=tokens,
            decode_s=decoded - started,
            encode_s=time.perf_counter() - decoded,
        )
        self.store.put(perceived)
        return perceived

    def perceive_all(
        self,
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        media: Sequence[Mapping[str, Any]] = (),
        audio_mode: AudioMode = "auto",
        num_frames: int | None = None,
        **options: Any,
    ) -> list[Perceived]:
        """The media of one turn; a sound before or after its picture, as the prompt of the system has it.

        Args:
            video: source of a video; its sound is used too, as `audio_mode` says.
            image: source of an image.
            audio: source of a sound, in place of the video's own.
            media: further media as content parts, `{"type": "video", "video": SOURCE}`, in their order.
            audio_mode: of a video's sound: "auto" if there is any and the system hears, "require" it, "off".
            num_frames: frames to look at.
            options: fields of `avllm.media.Sampling` and `limits`.

        Raises:
            NoAudioStream: sound is required and there is none.
            MediaError: anything else that is wrong with a medium.
        """
        seen = {"num_frames": num_frames, **options} if num_frames is not None else options
        heard, shown = [], []
        sound = video if audio is None else audio
        if sound is not None and (audio is not None or audio_mode != "off"):
            heard = self._hear(sound, "require" if audio is not None else audio_mode, options)
        if image is not None:
            shown.append(self.perceive(image, "image", **_only(options, ("limits",))))
        if video is not None:
            shown.append(self.perceive(video, "video", **seen))
        result = [*shown, *heard] if self._sees_first else [*heard, *shown]
        for part in media:
            kind, source = content_part(part)
            result += self.perceive_all(**{kind: source}, audio_mode=audio_mode, num_frames=num_frames, **options)
        return result

    @property
    def _sees_first(self) -> bool:
        """Whether the prompt writes any media in their order, a sound behind its picture."""
        forms = self.processor.prompt.chat.media
        pair = forms.get("audio+video", "")
        return "*" in forms and pair.find("{video}") < pair.find("{audio}")

    def _hear(self, source: Any, mode: AudioMode, options: Mapping[str, Any]) -> list[Perceived]:
        if "audio" not in self.processor.branches:
            if mode == "require":
                raise ConfigError(f"model {self.name}: sound is required, but this system has no audio branch")
            return []
        try:
            return [self.perceive(source, "audio", **_only(options, ("start_s", "end_s", "limits")))]
        except NoAudioStream:
            if mode == "require":
                raise
            logger.info("no audio track; answering from the picture alone")
            return []

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
        cache: Cache | None = None,
        stop: StopOnText | None = None,
        **options: Any,
    ) -> Generated:
        """New ids for embedded prompts.

        Args:
            embeds: whole conversations, padded on the left.
            attention_mask: 0 at the padding.
            cache: of the conversation so far; what it holds is not computed again.
            stop: also tells when the first token came.
            options: what `generate` of `transformers` takes.

        Raises:
            ConfigError: prompt and answer do not fit into the decoder's context.
            NumericError: the logits are not finite.
        """
        options = {**DEFAULTS, **{key: value for key, value in options.items() if value is not None}}
        embeds, attention_mask = self._fit(embeds, attention_mask, options["max_new_tokens"])
        seed = options.pop("seed", None)
        stop = stop or StopOnText(self.processor)
        criteria = StoppingCriteriaList([stop, *options.pop("stopping_criteria", ())])
        started = time.perf_counter()
        with self._memory_named(embeds, options["max_new_tokens"]), _seeded(seed, embeds.device):
            rows = self.model.generate(
                inputs_embeds=embeds,
                attention_mask=attention_mask,
                past_key_values=cache,
                stopping_criteria=criteria,
                pad_token_id=self.processor.pad_id,
                **options,
            )
        timings = {"first_token": stop.first_token_s or 0.0, "generate": time.perf_counter() - started}
        return Generated(ids=rows.tolist(), timings_s=timings)

    def _memory_named(self, embeds: Float[Tensor, "b l d"], new_tokens: int) -> AbstractContextManager[None]:
        def work() -> Workload:
            dtype = self.model.dtype
            return Workload(dtype=dtype, batch=len(embeds), text_tokens=embeds.shape[1], new_tokens=new_tokens)

        config = self.model.config
        assert isinstance(config, AvllmConfig)
        return out_of_memory_named(config, work, embeds.device)

    def fits(self, num_tokens: int, options: Mapping[str, Any]) -> bool:
        """Whether a prompt of so many tokens and its answer fit into the decoder's context."""
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        longest = options.get("max_new_tokens") or DEFAULTS["max_new_tokens"]
        return limit is None or num_tokens + longest <= limit

    def _fit(
        self, embeds: Float[Tensor, "b l d"], mask: Tensor | None, max_new_tokens: int
    ) -> tuple[Float[Tensor, "b m d"], Tensor | None]:
        if "cut_prompt_from_left" in self.processor.published_quirks:
            return cut_prompt_from_left(embeds, max_new_tokens), None
        if not self.fits(embeds.shape[1], {"max_new_tokens": max_new_tokens}):
            raise ConfigError(
                f"the conversation has {embeds.shape[1]} tokens and the answer may take {max_new_tokens}, the decoder "
                f"holds {self.model.config.text_config.max_position_embeddings}; start a new chat, drop media or "
                f'earlier turns (overflow="drop_oldest_turn" does), or lower max_new_tokens'
            )
        return embeds, mask

    def perceive_request(self, item: Request) -> list[Perceived]:
        """The media of a request, as `perceive_all` gives them."""
        return self.perceive_all(
            video=item.video,
            image=item.image,
            audio=item.audio,
            audio_mode=item.audio_mode,
            num_frames=item.num_frames,
        )

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
        media = media if media is not None else [self.perceive_request(item) for item in requests]
        turns = [
            Turn(question=item.question, media=tuple(one.medium for one in found))
            for item, found in zip(requests, media, strict=True)
        ]
        prompts = [
            self.prompt([turn], found, item.system, item.answer_start)
            for turn, found, item in zip(turns, media, requests, strict=True)
        ]
        longest = max(len(prompt.ids) for prompt in prompts)
        embeds = prompts[0].embeds.new_zeros(len(prompts), longest, prompts[0].embeds.shape[-1])
        mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=embeds.device)
        for row, prompt in enumerate(prompts):
            embeds[row, longest - len(prompt.ids) :] = prompt.embeds[0]
            mask[row, longest - len(prompt.ids) :] = 1
        out = self.generate(embeds, attention_mask=mask, **options)
        return [
            self.reply(item.question, self.processor.answer(ids), found, out.timings_s)
            for item, ids, found in zip(requests, out.ids, media, strict=True)
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
        )


def load(name: str | Path = "nano", **options: Any) -> Assistant:
    """Loads a system by name or folder; see `avllm.checkpoints.load.load_model` for the options.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
    """
    model, processor = load_model(name, **options)
    return Assistant(model, processor, name=str(name))


def content_part(part: Mapping[str, Any]) -> tuple[Kind, Any]:
    """Kind and source of a content part `{"type": KIND, KIND: SOURCE}`.

    Raises:
        DataError: it has another form.
    """
    kind = part.get("type")
    if kind not in ("video", "image", "audio") or part.get(kind) is None:
        raise DataError(f'media: expected {{"type": "video"|"image"|"audio", TYPE: SOURCE}}, got keys {sorted(part)}')
    return kind, part[kind]


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws from a seed inside the block and leaves the generators outside as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _only(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


__all__ = ["Assistant", "Generated", "Loaded", "MediaError", "Prompted", "Request", "load"]
