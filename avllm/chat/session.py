"""A conversation: turns, their media, and the decoder's memory of them."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

from transformers.cache_utils import DynamicCache

from avllm.chat.assistant import Assistant, Prompted
from avllm.chat.generation import StopOnText, TextStreamer
from avllm.chat.perceiver import AudioMode
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.errors import DataError
from avllm.model import Turn
from avllm.model.cache import growing_cache

Overflow = Literal["error", "drop_oldest_turn"]
GIVEN = ("video", "image", "audio", "media", "audio_mode", "num_frames")


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """A question, what came with it, and its reply.

    Args:
        question: as it was asked.
        given: media and how they were to be read, as `Session.ask` took them.
        media: what the model was given for them.
        reply: the answer and how it came about.
    """

    question: str
    given: Mapping[str, Any]
    media: tuple[Perceived, ...]
    reply: Reply

    def turn(self) -> Turn:
        """The exchange as the prompt sees it."""
        seen = tuple(item.medium for item in self.media)
        return Turn(question=self.question, media=seen, answer=self.reply.answer)


class Session:
    """Questions and answers that build on each other. Media given once stay in view for later questions.

    Args:
        assistant: who answers.
        system: in place of the system text of the prompt form.
        overflow: when a conversation no longer fits into the decoder's context: "error" says what to drop,
            "drop_oldest_turn" forgets the oldest questions and answers; media stay in view.
    """

    def __init__(self, assistant: Assistant, *, system: str | None = None, overflow: Overflow = "error") -> None:
        self.assistant, self.system, self.overflow = assistant, system, overflow
        self.exchanges: list[Exchange] = []
        self._cache: DynamicCache | None = None
        self._cached: list[Any] = []

    @property
    def turns(self) -> list[Turn]:
        """The conversation so far, as the prompt sees it."""
        return [exchange.turn() for exchange in self.exchanges]

    @property
    def media(self) -> list[Perceived]:
        """All media in view, in the order of their turns."""
        return [item for exchange in self.exchanges for item in exchange.media]

    @property
    def last(self) -> Reply | None:
        """The last reply, which tells how the answer came about."""
        return self.exchanges[-1].reply if self.exchanges else None

    def reset(self) -> None:
        """Forgets turns and media. Encoded media stay in the assistant's store."""
        self.exchanges = []
        self._cache, self._cached = None, []

    def undo(self) -> Exchange | None:
        """Takes back the last question with its media; None when there is none."""
        return self.exchanges.pop() if self.exchanges else None

    def regenerate(self, **options: Any) -> str:
        """Answers the last question anew, for example with `do_sample=True, seed=1`; the old answer is lost.

        Raises:
            DataError: nothing has been asked yet.
        """
        return self.edit_last(None, **options)

    def edit_last(self, question: str | None, **options: Any) -> str:
        """Asks another question in place of the last one, about the same media.

        Args:
            question: the new one; None keeps it.
            options: as in `ask`.

        Raises:
            DataError: nothing has been asked yet.
        """
        old = self.undo()
        if old is None:
            raise DataError("there is no question to answer anew; ask one first")
        try:
            return self.ask(old.question if question is None else question, **{**old.given, **options})
        except BaseException:
            self.exchanges.append(old)
            raise

    def ask(
        self,
        question: str,
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        media: Any = (),
        audio_mode: AudioMode = "auto",
        num_frames: int | None = None,
        **options: Any,
    ) -> str:
        """The answer to a question; `last` tells how it came about.

        Args:
            question: any text; nothing in it has a special meaning.
            video: a new video: a path or another source that `avllm.media` opens.
            image: a new image.
            audio: a new sound, in place of the video's own.
            media: several at once, as content parts: `[{"type": "video", "video": SOURCE}, {"type": "image", ...}]`.
            audio_mode: whether a video's own sound is used: "auto", "require" or "off".
            num_frames: frames of the video to look at.
            options: `seed`, `stop` (further stop texts) and what `generate` of `transformers` takes (`max_new_tokens`,
                `do_sample`, `temperature`, `top_p`, `top_k`, `num_beams`, `repetition_penalty`, `min_new_tokens`, ...).

        Raises:
            MediaError: a medium cannot be read. The conversation stays as it was.
            ConfigError: the conversation does not fit into the decoder's context.
        """
        given = {"video": video, "image": image, "audio": audio, "media": media}
        given |= {"audio_mode": audio_mode, "num_frames": num_frames}
        return self._answer(question, given, options, None, None).answer

    def stream(self, question: str, **options: Any) -> Generator[str, None, None]:
        """The same as `ask`, in pieces as they are written. To leave the loop early ends the answer there.

        With `num_beams` above 1 no word is certain before the end, so the answer is one piece.
        """
        is_plain = options.get("num_beams") in (None, 1)
        given = {name: options.pop(name) for name in GIVEN if name in options}
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        cancelled = Event()

        def work() -> None:
            try:
                streamer = TextStreamer(self.assistant.processor, pieces.put) if is_plain else None
                reply = self._answer(question, given, options, streamer, cancelled)
                if not is_plain:
                    pieces.put(reply.answer)
                pieces.put(None)
            except BaseException as error:  # handed to the reader, who raises it
                pieces.put(error)

        worker = Thread(target=work, daemon=True)
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            cancelled.set()
            worker.join()

    def _answer(
        self,
        question: str,
        given: dict[str, Any],
        options: dict[str, Any],
        streamer: TextStreamer | None,
        cancelled: Event | None,
    ) -> Reply:
        started = time.perf_counter()
        new = tuple(self.assistant.perceive_all(**given))
        turn = Turn(question=question, media=tuple(item.medium for item in new))
        prompt, kept = self._prompt(turn, new, options)
        is_plain = options.get("num_beams") in (None, 1) and options.get("num_return_sequences") in (None, 1)
        cache = self._recall(prompt) if is_plain else None
        stop = StopOnText(self.assistant.processor, cancelled, options.pop("stop", ()))
        out = self.assistant.generate(prompt.embeds, cache=cache, stop=stop, streamer=streamer, **options)
        if cache is not None:
            # The last new token was never fed back, so the cache does not hold it.
            self._cache, self._cached = cache, [*prompt.keys, *out.ids[0]][: cache.get_seq_length()]
        media = [*(item for exchange in kept for item in exchange.media), *new]
        timings = {**out.timings_s, "total": time.perf_counter() - started}
        answer = stop.cut(self.assistant.processor.answer(out.ids[0]))
        reply = self.assistant.reply(question, answer, media, timings, new=len(new))
        self.exchanges = [*kept, Exchange(question=question, given=given, media=new, reply=reply)]
        return reply

    def _prompt(
        self, turn: Turn, new: tuple[Perceived, ...], options: Mapping[str, Any]
    ) -> tuple[Prompted, list[Exchange]]:
        """The prompt, and the exchanges that are in it: all, unless the oldest had to be dropped."""
        kept = list(self.exchanges)
        while True:
            media = [*(item for exchange in kept for item in exchange.media), *new]
            prompt = self.assistant.prompt([*(exchange.turn() for exchange in kept), turn], media, self.system)
            if self.overflow == "error" or not kept or self.assistant.fits(len(prompt.ids), options):
                return prompt, kept
            oldest = kept.pop(0)
            if kept:
                kept[0] = replace(kept[0], media=(*oldest.media, *kept[0].media))
            else:
                new = (*oldest.media, *new)
                turn = replace(turn, media=tuple(item.medium for item in new))

    def _recall(self, prompt: Prompted) -> DynamicCache:
        """The cache, cut to what it shares with the prompt. It leaves the session until the answer is there."""
        cache, cached = self._cache, self._cached
        self._cache, self._cached = None, []
        shared = 0
        for known, wanted in zip(cached, prompt.keys[:-1], strict=False):  # one position is always computed
            if known != wanted:
                break
            shared += 1
        if cache is None or shared == 0:
            return growing_cache(self.assistant.model.config.text_config)
        if shared < len(cached):
            cache.crop(shared - len(cached))
        return cache

    def to_dict(self) -> dict[str, Any]:
        """The conversation as plain data, for JSON; `from_dict` reads it.

        Raises:
            DataError: a medium was given as data in memory, which has no name to write down.
        """
        turns = []
        for exchange in self.exchanges:
            asked = {name: value for name, value in exchange.given.items() if value is not None}
            given = {name: _named(value) for name, value in asked.items()}
            turns.append({"question": exchange.question, "given": given, "reply": exchange.reply.to_dict()})
        return {"version": 1, "model": self.assistant.name, "system": self.system, "turns": turns}

    @classmethod
    def from_dict(cls, assistant: Assistant, data: Mapping[str, Any], *, overflow: Overflow = "error") -> "Session":
        """Goes on with a stored conversation: its media are read again, its answers are taken as they are.

        Raises:
            DataError: the data are no conversation.
            MediaError: a medium is not there any more.
        """
        try:
            session = cls(assistant, system=data["system"], overflow=overflow)
            for turn in data["turns"]:
                media = tuple(assistant.perceive_all(**turn["given"]))
                known = {**turn["reply"]}
                known |= {name: tuple(known[name]) for name in ("streams_used", "frames")}
                session.exchanges.append(
                    Exchange(question=turn["question"], given=turn["given"], media=media, reply=Reply(**known))
                )
        except (KeyError, TypeError) as error:
            raise DataError(f"not a conversation of avllm ({type(error).__name__}: {error})") from error
        return session


def _named(value: Any) -> Any:
    """A source of media as text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _named(item) for name, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    raise DataError(f"a medium given as {type(value).__name__} in memory cannot be written; give it as a file")
