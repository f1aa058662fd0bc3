"""A conversation: turns, their media, and the decoder's memory of them."""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Literal, get_args

from transformers.cache_utils import DynamicCache

from avllm.chat.asked import GIVEN, Asked, AudioMode, require_text
from avllm.chat.assistant import Assistant, Prompted, turn_of
from avllm.chat.generate_options import settled
from avllm.chat.generation import StopOnText, TextStreamer
from avllm.chat.reply import Reply
from avllm.chat.store import Perceived
from avllm.config import check_choice
from avllm.errors import DataError
from avllm.media import Source
from avllm.model import Turn
from avllm.model.cache import growing_cache

Overflow = Literal["error", "drop_oldest_turn"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """A question, what came with it, and its reply.

    Args:
        question: as it was asked: a text, or content parts.
        given: media and how they were to be read, as `Session.ask` took them.
        asked: both of them, checked.
        media: what the model was given for them.
        reply: the answer and how it came about.
    """

    question: str | Sequence[Any]
    given: Mapping[str, Any]
    asked: Asked
    media: tuple[Perceived, ...]
    reply: Reply


class Session:
    """Questions and answers that build on each other. Media given once stay in view for later questions.

    Args:
        assistant: who answers.
        system: in place of the system text of the prompt form.
        overflow: when a conversation no longer fits into the decoder's context: "error" says what to drop,
            "drop_oldest_turn" forgets the oldest questions and answers; media stay in view.

    `exchanges` are the questions and answers in view, `forgotten` those of which only the media are.
    """

    def __init__(self, assistant: Assistant, *, system: str | None = None, overflow: Overflow = "error") -> None:
        check_choice("overflow", overflow, get_args(Overflow))
        if system is not None:
            require_text(system, "system")
        self.assistant, self.system, self.overflow = assistant, system, overflow
        self.exchanges: list[Exchange] = []
        self.forgotten: list[Exchange] = []
        self._cache: DynamicCache | None = None
        self._cached: list[Any] = []

    @property
    def turns(self) -> list[Turn]:
        """The conversation so far, as the prompt sees it."""
        return _turns(self.forgotten, self.exchanges)

    @property
    def media(self) -> list[Perceived]:
        """All media in view, in the order of their turns."""
        return _media(self.forgotten, self.exchanges)

    @property
    def last(self) -> Reply | None:
        """The last reply, which tells how the answer came about."""
        return self.exchanges[-1].reply if self.exchanges else None

    def reset(self) -> None:
        """Forgets turns and media. Encoded media stay in the assistant's store."""
        self.exchanges, self.forgotten = [], []
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

    def edit_last(self, question: str | Sequence[Any] | None, **options: Any) -> str:
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
        question: str | Sequence[Any],
        *,
        video: Any = None,
        image: Any = None,
        audio: Any = None,
        media: Any = None,
        audio_mode: AudioMode = "auto",
        num_frames: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        **options: Any,
    ) -> str:
        """The answer to a question; `last` tells how it came about.

        Args:
            question: any text; nothing in it has a special meaning. Or content parts, which keep their order where the
                system's prompt does: `[{"type": "text", "text": "First:"}, {"type": "video", "video": SOURCE}, ...]`.
            video: a new video: a path or another source that `avllm.media` opens.
            image: a new image.
            audio: a new sound, in place of the video's own.
            media: several at once, as content parts: `[{"type": "video", "video": SOURCE}, {"type": "image", ...}]`;
                options of a medium may stand beside its source.
            audio_mode: whether a video's own sound is used: "auto", "require" or "off".
            num_frames: frames of the video to look at; for more control `fps`, `sampling`, `max_frames`, `source_fps`
                (see `avllm.model.options`).
            start_s: the part of a video and its sound to look at, in seconds from the start.
            end_s: where that part ends, exclusive.
            options: `seed`, `stop` (further stop texts) and what `generate` of `transformers` takes (`max_new_tokens`,
                `temperature`, `top_p`, `top_k`, `num_beams`, `repetition_penalty`, `min_new_tokens`, ...). Greedy is
                the default and a temperature of 0; one above it draws.

        Raises:
            MediaError: a medium cannot be read. The conversation stays as it was.
            ConfigError: an option is unknown, wrong, or no new medium has use for it; the conversation does not fit
                into the decoder's context.
            DataError: the question is no text, or a content part has another form.
        """
        given = {"video": video, "image": image, "audio": audio, "media": media, "audio_mode": audio_mode}
        options |= {**given, "num_frames": num_frames, "start_s": start_s, "end_s": end_s}
        return self._answer(question, options, None, None).answer

    def stream(self, question: str | Sequence[Any], **options: Any) -> Generator[str, None, None]:
        """The same as `ask`, in pieces as they are written. To leave the loop early ends the answer there.

        With `num_beams` above 1 no word is certain before the end, so the answer is one piece.
        """
        is_plain = options.get("num_beams") in (None, 1)
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        cancelled = Event()

        def work() -> None:
            try:
                streamer = TextStreamer(self.assistant.processor, pieces.put) if is_plain else None
                reply = self._answer(question, options, streamer, cancelled)
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
        question: str | Sequence[Any],
        options: dict[str, Any],
        streamer: TextStreamer | None,
        cancelled: Event | None,
    ) -> Reply:
        started, stops = time.perf_counter(), options.pop("stop", None) or ()
        given = {name: options.pop(name) for name in GIVEN if name in options}
        given = {name: value for name, value in given.items() if value is not None}
        asked, options = Asked.checked(question, **given), settled(options)
        self.assistant.check(asked)
        before = self.turns if self.overflow == "error" and self.exchanges else []
        expected = asked.turn(*self.assistant.least(asked))
        longest = options["max_new_tokens"]
        self.assistant.require_room([*before, expected], system=self.system, max_new_tokens=longest)
        new = tuple(self.assistant.look(asked))
        prompt, num_dropped = self._prompt(asked, new, options)
        is_plain = options.get("num_beams") in (None, 1) and options.get("num_return_sequences") in (None, 1)
        cache = self._recall(prompt) if is_plain else None
        stop = StopOnText(self.assistant.processor, cancelled, stops)
        out = self.assistant.generate(prompt.embeds, cache=cache, stop=stop, streamer=streamer, **options)
        if cache is not None:
            # The last new token was never fed back, so the cache does not hold it.
            self._cache, self._cached = cache, [*prompt.keys, *out.ids[0]][: cache.get_seq_length()]
        media = [*self.media, *new]
        timings = {**out.timings_s, "total": time.perf_counter() - started}
        answer = stop.cut(self.assistant.processor.answer(out.ids[0]))
        reply = self.assistant.reply(asked.text, answer, media, timings, new=len(new))
        self.forgotten += self.exchanges[:num_dropped]
        exchange = Exchange(question=question, given=given, asked=asked, media=new, reply=reply)
        self.exchanges = [*self.exchanges[num_dropped:], exchange]
        return reply

    def _prompt(self, asked: Asked, new: Sequence[Perceived], options: Mapping[str, Any]) -> tuple[Prompted, int]:
        """The prompt, and how many of the oldest exchanges had to be dropped from it."""
        media = [*self.media, *new]
        for num_dropped in range(len(self.exchanges) + 1):
            forgotten, kept = [*self.forgotten, *self.exchanges[:num_dropped]], self.exchanges[num_dropped:]
            prompt = self.assistant.prompt(_turns(forgotten, kept, asked, new), media, self.system)
            if self.overflow == "error" or self.assistant.fits(len(prompt.ids), options):
                break
        return prompt, num_dropped

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
        for number, exchange in enumerate([*self.forgotten, *self.exchanges]):
            given = {name: _named(value) for name, value in exchange.given.items()}
            plain = {"question": _named(exchange.question), "given": given, "reply": exchange.reply.to_dict()}
            turns.append({**plain, "forgotten": True} if number < len(self.forgotten) else plain)
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
                question, given = turn["question"], turn["given"]
                asked = Asked.checked(question, **given)
                media = tuple(assistant.look(asked))
                known = {**turn["reply"]}
                known |= {name: tuple(known[name]) for name in ("streams_used", "frames")}
                reply = Reply(**known)
                exchange = Exchange(question=question, given=given, asked=asked, media=media, reply=reply)
                (session.forgotten if turn.get("forgotten") else session.exchanges).append(exchange)
        except (KeyError, TypeError) as error:
            raise DataError(f"not a conversation of avllm ({type(error).__name__}: {error})") from error
        return session


def _media(forgotten: Sequence[Exchange], kept: Sequence[Exchange]) -> list[Perceived]:
    return [item for exchange in (*forgotten, *kept) for item in exchange.media]


def _turns(
    forgotten: Sequence[Exchange],
    kept: Sequence[Exchange],
    asked: Asked | None = None,
    new: Sequence[Perceived] = (),
) -> list[Turn]:
    """A conversation as the prompt sees it; media of forgotten exchanges stand in front of the first text.

    Args:
        forgotten: exchanges of which only the media are in view.
        kept: those in view.
        asked: the question that follows, if there is one.
        new: its media.
    """
    rows = [(exchange.asked, exchange.media, exchange.reply.answer) for exchange in kept]
    asking = [] if asked is None else [(asked, tuple(new), None)]
    front = [replace(item, part=-1) for item in _media(forgotten, ())]  # their places were in texts that are gone
    turns = []
    for row, media, answer in [*rows, *asking]:
        turns.append(turn_of(row, [*front, *media], answer))
        front = []
    return turns


def _named(value: Any) -> Any:
    """A source of media as text."""
    if isinstance(value, Source) and value.path is not None:
        return str(value.path)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _named(item) for name, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    raise DataError(f"a medium given as {type(value).__name__} in memory cannot be written; give it as a file")
