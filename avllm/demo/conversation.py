"""What the page does, without the page: files come, questions are asked, answers are streamed."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from avllm.demo.config import AudioMode, DemoConfig
from avllm.demo.examples import Example
from avllm.demo.model import DemoModel
from avllm.demo.reading import Medium
from avllm.demo.uploads import Uploads, link_or_copy, shown_name, too_large
from avllm.demo.visitors import Pending, Visitor, Visitors
from avllm.errors import AvllmError

log = logging.getLogger(__name__)
_WARN = "⚠ "
_INSIDE = "Something went wrong inside; the log of the demo says what. Ask again, or add the file again."


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the visitor set for an answer, within what the configuration allows."""

    audio: AudioMode
    frames: int | None
    temperature: float
    top_p: float
    max_new_tokens: int

    @classmethod
    def checked(
        cls, config: DemoConfig, *, audio: object, frames: object, temperature: object, max_new_tokens: object
    ) -> "Settings":
        """Takes values from the page, which a visitor can forge; what is out of range is brought back into it."""
        media, generation = config.media, config.generation
        modes: dict[str, AudioMode] = {"auto": "auto", "require": "require", "off": "off"}
        most = media.max_frames
        return cls(
            audio=modes.get(str(audio), media.audio) if "audio" in media.branches else media.audio,
            frames=media.frames if most is None else round(_within(frames, 1, most, media.frames or most)),
            temperature=_within(temperature, 0.0, 2.0, generation.temperature),
            top_p=generation.top_p,
            max_new_tokens=round(
                _within(max_new_tokens, 1, generation.max_new_tokens_limit, generation.max_new_tokens)
            ),
        )

    @classmethod
    def default(cls, config: DemoConfig) -> "Settings":
        """What the configuration says."""
        media, generation = config.media, config.generation
        return cls(
            audio=media.audio,
            frames=media.frames,
            temperature=generation.temperature,
            top_p=generation.top_p,
            max_new_tokens=generation.max_new_tokens,
        )


def _within(value: object, low: float, high: float, default: float) -> float:
    if not isinstance(value, int | float) or value != value:
        return default
    return min(max(value, low), high)


class Conversations:
    """All visitors' conversations with one model."""

    def __init__(self, model: DemoModel, config: DemoConfig, uploads: Uploads) -> None:
        self.model = model
        self.config = config
        self.uploads = uploads
        self.visitors = Visitors(model.new_session, uploads, config.page)

    def visitor(self, key: str | None) -> Visitor:
        """The visitor of a browser tab."""
        return self.visitors.get(key)

    def load_upload(self, visitor: Visitor, path: str, name: str) -> None:
        """Takes over an uploaded file and looks what it is. A file that cannot be read gives one line in the chat."""
        name = shown_name(name)
        self._end_answer(visitor)
        try:
            visitor.num_files += 1
            taken = self.uploads.take(path, visitor.folder, number=visitor.num_files)
            try:
                medium = self.model.inspect(taken, name)
            except AvllmError:
                taken.unlink(missing_ok=True)
                raise
        except AvllmError as error:
            visitor.say("assistant", f"{_WARN}{name}: {_one_line(error)}")
            return
        self._set_medium(visitor, medium, self.config.page.questions)

    def load_example(self, visitor: Visitor, example: Example) -> None:
        """Loads an example clip."""
        self._end_answer(visitor)
        visitor.num_files += 1
        copy = visitor.folder / f"{visitor.num_files}{example.path.suffix}"
        try:
            link_or_copy(example.path, copy)
            medium = self.model.inspect(copy, example.title)
        except (AvllmError, OSError) as error:
            visitor.say("assistant", f"{_WARN}{example.title}: {_one_line(error)}")
            return
        self._set_medium(visitor, medium, example.questions)

    def refuse_upload(self, visitor: Visitor, num_bytes: int) -> None:
        """Says why a file was not even sent."""
        if num_bytes > self.uploads.max_bytes:
            visitor.say("assistant", f"{_WARN}{too_large(num_bytes, self.uploads.max_bytes)}")
        else:
            visitor.say("assistant", f"{_WARN}the file could not be sent; check the connection and try again")

    def unload(self, visitor: Visitor) -> None:
        """Removes the loaded file; the conversation about it stays to be read."""
        self._end_answer(visitor)
        if visitor.medium is not None:
            visitor.medium.path.unlink(missing_ok=True)
        visitor.medium = visitor.in_context = None

    def clear(self, visitor: Visitor) -> None:
        """Starts the conversation again; the file stays."""
        self._end_answer(visitor)
        visitor.messages, visitor.evidence, visitor.in_context, visitor.num_turns = [], None, None, 0

    def accept(self, visitor: Visitor, question: str) -> bool:
        """Puts a question into the conversation if it can be answered now; else says in the chat what is missing."""
        question = question.strip()[: self.config.page.max_question_chars]
        if not question or (visitor.pending is not None and not visitor.pending.stop.is_set()):
            return False
        if visitor.medium is None:
            visitor.say("assistant", "Pick an example or add a file first, then ask about it.")
            return False
        if visitor.num_turns >= self.config.page.max_turns:
            visitor.say("assistant", f"This conversation has {visitor.num_turns} questions; Clear starts a new one.")
            return False
        self._end_answer(visitor)
        visitor.pending = Pending(question=question)
        visitor.say("user", question)
        return True

    def answer(self, visitor: Visitor, settings: Settings) -> Iterator[None]:
        """Answers the accepted question, if any; `visitor.messages` has grown at each step."""
        pending, medium = visitor.pending, visitor.medium
        if pending is None or pending.is_started or medium is None:
            return
        pending.is_started = True
        visitor.say("assistant", "…")
        message = visitor.messages[-1]
        yield
        is_whole = False
        try:
            yield from self._stream(visitor, pending, medium, settings, message)
            is_whole = not pending.stop.is_set()
        except AvllmError as error:
            message["content"] = f"{_WARN}{_one_line(error)}"
        except Exception:  # whatever it is, the other visitors go on, and this one is told
            log.exception("an answer failed")
            message["content"] = f"{_WARN}{_INSIDE}"
        finally:
            if visitor.pending is pending:
                if not is_whole:
                    self._end_answer(visitor)
                visitor.pending = None

    def _stream(
        self, visitor: Visitor, pending: Pending, medium: Medium, settings: Settings, message: dict[str, Any]
    ) -> Iterator[None]:
        context = (medium, settings.audio, settings.frames)
        is_new = visitor.in_context != context
        pieces = self.model.stream(visitor.session, pending.question, settings, medium if is_new else None)
        text = ""
        try:
            for piece in pieces:
                text += piece
                message["content"] = text.strip() or "…"
                yield
                if pending.stop.is_set():
                    break
        finally:
            pieces.close()
        if pending.stop.is_set():
            message["content"] = f"{text.strip()} ⏹ stopped".strip()
            return
        message["content"] = text.strip() or "(no words)"
        if visitor.pending is pending:
            visitor.in_context = context
            visitor.num_turns += 1
            visitor.evidence = self.model.evidence(visitor.session, medium, settings)

    def _set_medium(self, visitor: Visitor, medium: Medium, questions: tuple[str, ...]) -> None:
        old = visitor.medium
        self.clear(visitor)
        visitor.medium, visitor.questions = medium, questions
        if old is not None:
            old.path.unlink(missing_ok=True)

    def _end_answer(self, visitor: Visitor) -> None:
        """Stops the answer that is being written; its session is left to it, as it holds half an answer."""
        if visitor.pending is not None:
            visitor.stop()
            visitor.session = self.model.new_session()
            visitor.pending = visitor.in_context = None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
