"""What the page does, without the page: files come, questions are asked, answers are streamed."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from avllm.demo.config import DemoConfig
from avllm.demo.examples import Example
from avllm.demo.model import DemoModel
from avllm.demo.reading import Medium
from avllm.demo.settings import Settings
from avllm.demo.uploads import Uploads, link_or_copy, shown_name, too_large
from avllm.demo.visitors import Asked, Visitor, Visitors
from avllm.demo.votes import Votes
from avllm.errors import AvllmError, MediaError

log = logging.getLogger(__name__)
_WARN = "⚠ "
_INSIDE = "Something went wrong inside, and not with your file; the log of the demo says what. Try again."
_VOTES = {True: "up", False: "down"}


class Conversations:
    """All visitors' conversations.

    Args:
        models: by name; the first one looks what an upload is.
        config: of the demo.
        uploads: where files go.
        votes: where thumbs up and down go; None offers none.
    """

    def __init__(
        self, models: Mapping[str, DemoModel], config: DemoConfig, uploads: Uploads, votes: Votes | None = None
    ) -> None:
        self.models, self.config, self.uploads, self.votes = models, config, uploads, votes
        self.model = models[config.model]
        self.visitors = Visitors(uploads, config.page)

    def visitor(self, key: str | None) -> Visitor:
        """The visitor of a browser tab."""
        return self.visitors.get(key)

    def load_upload(self, visitor: Visitor, path: str, name: str, *, adds: bool = False) -> None:
        """Takes over an uploaded file and looks what it is. A file that cannot be read gives one line in the chat.

        Args:
            visitor: whose.
            path: where Gradio stored it.
            name: as the visitor's machine calls it.
            adds: join the conversation that is there; otherwise a new one begins.
        """
        name = shown_name(name)
        self._end_answer(visitor)
        try:
            self._require_room(visitor, adds)
            visitor.num_files += 1
            taken = self.uploads.take(path, visitor.folder, number=visitor.num_files)
            try:
                medium = self.model.inspect(taken, name)
            except Exception:
                taken.unlink(missing_ok=True)
                raise
        except AvllmError as error:
            visitor.say("assistant", f"{_WARN}{name}: {_one_line(error)}")
            return
        except Exception:  # no fault of the file, so it is not called one
            log.exception("a file could not be looked at")
            visitor.say("assistant", f"{_WARN}{name}: {_INSIDE}")
            return
        self._add_medium(visitor, medium, self.config.page.questions, adds)

    def load_example(self, visitor: Visitor, example: Example, *, adds: bool = False) -> None:
        """Loads an example clip."""
        self._end_answer(visitor)
        visitor.num_files += 1
        copy = visitor.folder / f"{visitor.num_files}{example.path.suffix}"
        try:
            self._require_room(visitor, adds)
            link_or_copy(example.path, copy)
            medium = self.model.inspect(copy, example.title)
        except (AvllmError, OSError) as error:
            visitor.say("assistant", f"{_WARN}{example.title}: {_one_line(error)}")
            return
        self._add_medium(visitor, medium, example.questions, adds)

    def refuse_upload(self, visitor: Visitor, num_bytes: int, reason: str) -> None:
        """Says why a file was not even sent."""
        if num_bytes > self.uploads.max_bytes:
            told = too_large(num_bytes, self.uploads.max_bytes)
        elif reason == "no_device":
            told = "the browser gives no camera or microphone; allow it for this page, or add a file"
        else:
            told = "the file could not be sent; check the connection and try again"
        visitor.say("assistant", f"{_WARN}{told}")

    def unload(self, visitor: Visitor) -> None:
        """Removes the loaded files; the conversation about them stays to be read."""
        self._end_answer(visitor)
        for medium in visitor.media:
            medium.path.unlink(missing_ok=True)
        visitor.media, visitor.fresh, visitor.session, visitor.context = [], [], None, None

    def clear(self, visitor: Visitor) -> None:
        """Starts the conversation again; the files stay."""
        self._end_answer(visitor)
        visitor.messages, visitor.asked, visitor.evidence = [], [], None
        visitor.session, visitor.context = None, None

    def undo(self, visitor: Visitor) -> str | None:
        """Takes back the last question with its answer, and returns it; None when there is none."""
        self._end_answer(visitor)
        if not visitor.asked:
            return None
        asked = visitor.asked.pop()
        visitor.messages = visitor.messages[: asked.first_message]
        visitor.evidence = None
        session = visitor.session
        if asked.is_answered and session is not None and session.exchanges:
            session.undo()
            visitor.fresh = [medium for medium in (*asked.media, *visitor.fresh) if medium in visitor.media]
            if not session.exchanges:
                visitor.context = None
        return asked.question

    def regenerate(self, visitor: Visitor) -> bool:
        """Takes back the last answer and asks its question again; whether there is one."""
        if visitor.medium is None or not visitor.asked:
            return False
        question = self.undo(visitor)
        return question is not None and self.accept(visitor, question)

    def edit(self, visitor: Visitor, message: int, question: str) -> bool:
        """Asks another question in place of the one that stands at `message`, and forgets what came after it."""
        if visitor.medium is None or not question.strip():
            return False
        if message not in [asked.first_message for asked in visitor.asked]:
            return False
        while visitor.asked and visitor.asked[-1].first_message >= message:
            self.undo(visitor)
        return self.accept(visitor, question)

    def vote(self, visitor: Visitor, message: int, liked: object) -> None:
        """Writes down a thumb for the answer that stands at `message`, if votes are kept."""
        before = [asked for asked in visitor.asked if asked.first_message < message]
        if self.votes is None or not before or message >= len(visitor.messages):
            return
        asked, answer = before[-1], visitor.messages[message]
        if answer["role"] == "assistant":
            vote = _VOTES.get(liked, "none") if isinstance(liked, bool) else "none"
            self.votes.add(vote, model=asked.model, question=asked.question, answer=answer["content"])

    def accept(self, visitor: Visitor, question: str) -> bool:
        """Puts a question into the conversation if it can be answered now; else says in the chat what is missing."""
        question = question.strip()[: self.config.page.max_question_chars]
        if not question or (visitor.pending is not None and not visitor.pending.stop.is_set()):
            return False
        if visitor.medium is None:
            visitor.say("assistant", "Pick an example or add a file first, then ask about it.")
            return False
        if len(visitor.asked) >= self.config.page.max_turns:
            visitor.say("assistant", f"This conversation has {len(visitor.asked)} questions; Clear starts a new one.")
            return False
        self._end_answer(visitor)
        visitor.pending = Asked(question=question, first_message=len(visitor.messages))
        visitor.asked.append(visitor.pending)
        visitor.say("user", question)
        return True

    def answer(self, visitor: Visitor, settings: Settings) -> Iterator[None]:
        """Answers the accepted question, if any; `visitor.messages` has grown at each step."""
        asked = visitor.pending
        if asked is None or asked.is_started or not visitor.media:
            return
        asked.is_started = True
        visitor.say("assistant", "…")
        message = visitor.messages[-1]
        yield
        try:
            yield from self._stream(visitor, asked, settings, message)
        except AvllmError as error:
            message["content"] = f"{_WARN}{_one_line(error)}"
        except Exception:  # whatever it is, the other visitors go on, and this one is told
            log.exception("an answer failed")
            message["content"] = f"{_WARN}{_INSIDE}"
        finally:
            if visitor.pending is asked:
                if not asked.is_answered:
                    self._end_answer(visitor)
                visitor.pending = None

    def _stream(self, visitor: Visitor, asked: Asked, settings: Settings, message: dict[str, Any]) -> Iterator[None]:
        model = self.models[settings.model]
        known = visitor.session if visitor.context == settings.context() else None
        session, begins = (model.new_session(), True) if known is None else (known, False)
        media = tuple(visitor.media if begins else visitor.fresh)
        asked.kept = None if begins else list(session.exchanges)
        num_before = len(session.exchanges)
        pieces = model.stream(session, asked.question, settings, media, asked.stop)
        text = ""
        try:
            for piece in pieces:
                text += piece
                message["content"] = text.strip() or "…"
                yield
                if asked.stop.is_set():
                    break
        finally:
            pieces.close()
        is_stopped = asked.stop.is_set()
        message["content"] = f"{text.strip()} ⏹ stopped".strip() if is_stopped else text.strip() or "(no words)"
        if visitor.pending is not asked or len(session.exchanges) <= num_before:
            return
        asked.media, asked.model, asked.is_answered = media, model.name, True
        visitor.session, visitor.context, visitor.fresh = session, settings.context(), []
        visitor.evidence = model.evidence(session, visitor.media, settings)

    def _require_room(self, visitor: Visitor, adds: bool) -> None:
        if adds and len(visitor.media) >= self.config.page.max_media:
            raise MediaError(f"this chat has {len(visitor.media)} files, which is the most; Remove begins anew")

    def _add_medium(self, visitor: Visitor, medium: Medium, questions: tuple[str, ...], adds: bool) -> None:
        visitor.questions = questions
        if adds:
            visitor.media.append(medium)
            visitor.fresh.append(medium)
            if visitor.messages:
                visitor.say("user", f"+ {medium.name}")
            return
        self.unload(visitor)
        self.clear(visitor)
        visitor.media = [medium]

    def _end_answer(self, visitor: Visitor) -> None:
        """Stops the answer that is being written; its session is left to it, as it may yet grow by half an answer."""
        asked = visitor.pending
        if asked is None:
            return
        visitor.stop()
        visitor.pending = None
        if asked.kept is not None and visitor.session is not None:
            session = self.models[visitor.context[0]].new_session()  # type: ignore[index]
            session.exchanges, session.system = asked.kept, visitor.session.system
            visitor.session = session


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
