"""What the page does, without the page: files come, questions are asked, answers are streamed."""

import gc
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import torch

from avllm.demo.config import DemoConfig
from avllm.demo.examples import Example
from avllm.demo.model import DemoModel
from avllm.demo.reading import Medium
from avllm.demo.settings import Settings
from avllm.demo.told import INSIDE, is_out_of_memory, line_for_visitor, log_fault
from avllm.demo.uploads import Uploads, link_or_copy, shown_name, too_large
from avllm.demo.visitors import Asked, Visitor, Visitors
from avllm.demo.votes import Votes
from avllm.errors import DiskError, MediaError

log = logging.getLogger(__name__)
_WARN = "⚠ "
_BUSY = "another file of yours is still being read; wait for it, then add this one"
_TURN_SECONDS = 0.2
_MAX_VOTES = 200  # of one visitor; a file of votes must not fill the disk
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
        self.free_turns = BoundedSemaphore(config.page.max_concurrent)

    def visitor(self, key: str | None, sender: str = "") -> Visitor:
        """The visitor of a browser tab; see `Visitors.get`."""
        return self.visitors.get(key, sender)

    def load_upload(self, visitor: Visitor, token: str, name: str, *, adds: bool = False) -> None:
        """Takes over an uploaded file and looks what it is. A file that cannot be read gives one line in the chat.

        Args:
            visitor: whose.
            token: under which it was sent.
            name: as the visitor's machine calls it.
            adds: join the conversation that is there; otherwise a new one begins.
        """
        name = shown_name(name)
        if not visitor.loading.acquire(blocking=False):  # a visitor reads one file at a time, so that others go on
            self.uploads.abandon(token)
            visitor.say("assistant", f"{_WARN}{name}: {_BUSY}")
            return
        try:
            self._end_answer(visitor)
            self._require_room(visitor, adds)
            visitor.num_files += 1
            taken = self.uploads.take(token, visitor.folder, number=visitor.num_files)
            try:
                medium = self.model.inspect(taken, name)
            except Exception:
                self.uploads.forget(taken)
                raise
            self._add_medium(visitor, medium, self.config.page.questions, adds)
        except Exception as error:
            self.uploads.abandon(token)
            visitor.say("assistant", f"{_WARN}{name}: {self._told(error, visitor, 'a file could not be read', name)}")
        finally:
            visitor.loading.release()

    def load_example(self, visitor: Visitor, example: Example, *, adds: bool = False) -> None:
        """Loads an example clip."""
        if not visitor.loading.acquire(blocking=False):
            visitor.say("assistant", f"{_WARN}{example.title}: {_BUSY}")
            return
        visitor.num_files += 1
        copy = visitor.folder / f"{visitor.num_files}{example.path.suffix}"
        try:
            self._end_answer(visitor)
            self._require_room(visitor, adds)
            link_or_copy(example.path, copy)
            medium = self.model.inspect(copy, example.title)
            self._add_medium(visitor, medium, example.questions, adds)
        except Exception as error:
            self.uploads.forget(copy)
            told = self._told(error, visitor, "an example could not be read")
            visitor.say("assistant", f"{_WARN}{example.title}: {told}")
        finally:
            visitor.loading.release()

    def refuse_upload(self, visitor: Visitor, num_bytes: int, reason: str) -> None:
        """Says why a file was not even sent."""
        refused = self.uploads.last_refusal(visitor.sender)
        if num_bytes > self.uploads.quota.file_bytes:
            told = too_large(num_bytes, self.uploads.quota.file_bytes)
        elif reason == "no_device":
            told = "the browser gives no camera or microphone; allow it for this page, or add a file"
        elif refused is not None:
            told = refused
        else:
            told = "the file could not be sent; check the connection and try again"
        visitor.say("assistant", f"{_WARN}{told}")

    def unload(self, visitor: Visitor) -> None:
        """Removes the loaded files; the conversation about them stays to be read."""
        self._end_answer(visitor)
        for medium in visitor.media:
            self.uploads.forget(medium.path)
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
        visitor.num_votes += 1
        if visitor.num_votes > _MAX_VOTES:
            return
        asked, answer = before[-1], visitor.messages[message]
        if answer["role"] == "assistant":
            vote = _VOTES.get(liked, "none") if isinstance(liked, bool) else "none"
            try:
                self.votes.add(vote, model=asked.model, question=asked.question, answer=answer["content"])
            except DiskError as error:
                log.error("a vote was not stored: %s", error)

    def accept(self, visitor: Visitor, question: str) -> bool:
        """Puts a question into the conversation if it can be answered now; else says in the chat what is missing."""
        question = question.strip()[: self.config.page.max_question_chars]
        if not question or (visitor.pending is not None and not visitor.pending.stop.is_set()):
            return False
        if visitor.medium is None:
            visitor.say("assistant", "Pick an example or add a file first, then ask about it.")
            return False
        if len(visitor.asked) >= self.config.page.max_turns or visitor.is_full:
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
        except Exception as error:  # whatever it is, the other visitors go on, and this one is told
            message["content"] = f"{_WARN}{self._told(error, visitor, 'an answer failed', settings.system or '')}"
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
        model.read_ahead(settings, media)  # before it is this visitor's turn: a slow file is its own visitor's alone
        text = ""
        with self._turn(asked) as is_turn:
            pieces = model.stream(session, asked.question, settings, media, asked.stop) if is_turn else None
            try:
                for piece in pieces or ():
                    text += piece
                    message["content"] = text.strip() or "…"
                    yield
                    if asked.stop.is_set():
                        break
            finally:
                if pieces is not None:
                    pieces.close()
        is_stopped = asked.stop.is_set()
        message["content"] = f"{text.strip()} ⏹ stopped".strip() if is_stopped else text.strip() or "(no words)"
        if visitor.pending is not asked or len(session.exchanges) <= num_before:
            return
        asked.media, asked.model, asked.is_answered = media, model.name, True
        visitor.session, visitor.context, visitor.fresh = session, settings.context(), []
        visitor.evidence = model.evidence(session, visitor.media, settings)

    @contextmanager
    def _turn(self, asked: Asked) -> Iterator[bool]:
        """Waits until fewer answers are written than at most; whether that came before the visitor stopped this one."""
        while not asked.stop.is_set():
            if self.free_turns.acquire(timeout=_TURN_SECONDS):
                asked.free_turns = self.free_turns
                break
        try:
            yield asked.free_turns is not None
        finally:
            asked.give_back()

    def _told(self, error: Exception, visitor: Visitor, what: str, *private: str) -> str:
        """What the visitor reads of an error; what is no fault of a file or a question goes to the log."""
        told = line_for_visitor(error)
        if told is None:
            texts = [message["content"] for message in visitor.messages]
            names = [medium.name for medium in visitor.media]
            log_fault(log, what, error, [*texts, *names, *private, str(visitor.folder)])
        if is_out_of_memory(error):
            log.warning("%s: out of memory", what)
            traceback.clear_frames(error.__traceback__)  # they hold what filled it
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return told or INSIDE

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
