"""Who is on the page: one conversation, one folder and one stop switch per browser tab."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avllm.demo.config import PageConfig
from avllm.demo.evidence import Evidence
from avllm.demo.reading import Medium
from avllm.demo.uploads import Uploads
from avllm.errors import AvllmError

log = logging.getLogger(__name__)
_SWEEP_SECONDS = 20.0
_ACTIVE_SECONDS = 60.0
MAX_MESSAGES = 300
_TURNS = threading.Lock()
FULL = "the demo has as many visitors as it takes; try again in a few minutes"


class Refused(AvllmError):
    """A request that belongs to no visitor, or to one too many."""


@dataclass(kw_only=True, eq=False)
class Asked:
    """A question of the conversation; `stop` ends its answer at the next token.

    Args:
        question: as it is shown.
        first_message: where it stands among the visitor's messages.
        media: files that the model was given with it.
        model: who answered.
        kept: what the session held before it; None as long as the session has not been touched.
        is_answered: whether the session holds it, with a whole or a stopped answer.
        free_turns: what it took its turn to be answered from; None when it has none.
    """

    question: str
    first_message: int
    stop: threading.Event = field(default_factory=threading.Event)
    is_started: bool = False
    media: tuple[Medium, ...] = ()
    model: str = ""
    kept: list[Any] | None = None
    is_answered: bool = False
    free_turns: threading.BoundedSemaphore | None = None

    def end(self) -> None:
        """Ends the answer at the next token; its turn is free at once, also if nobody reads the answer any more."""
        self.stop.set()
        self.give_back()

    def give_back(self) -> None:
        """Gives its turn to the next one; once, whoever comes first."""
        with _TURNS:
            turns, self.free_turns = self.free_turns, None
        if turns is not None:
            turns.release()


@dataclass(kw_only=True, eq=False)
class Visitor:
    """One browser tab.

    Args:
        folder: holds this visitor's files and nothing else.
        sender: whose quota the files count for until a chat takes them.
        session: the model's side of the conversation (`avllm.chat.Session`); None before it has begun.
        media: the files of the conversation, the newest last.
        fresh: those of them that the session has not been given yet.
        questions: offered as buttons for the newest.
        context: the settings under which the session has read its media; None when it must read all of them anew.
        evidence: what the model got for the last answer.
        messages: the conversation as the page shows it.
        asked: its questions.
        pending: the one that is being answered.
        loading: held while a file is read; a visitor reads one at a time.
    """

    folder: Path
    sender: str = ""
    session: Any = None
    media: list[Medium] = field(default_factory=list)
    fresh: list[Medium] = field(default_factory=list)
    questions: tuple[str, ...] = ()
    context: object = None
    evidence: Evidence | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    pending: Asked | None = None
    num_files: int = 0
    num_votes: int = 0
    loading: Any = field(default_factory=threading.Lock)
    last_seen: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    _updates: int = 0

    @property
    def medium(self) -> Medium | None:
        """The newest file."""
        return self.media[-1] if self.media else None

    def num_updates(self) -> int:
        """Counts how often the page was drawn anew."""
        self._updates += 1
        return self._updates

    def stop(self) -> None:
        """Ends the answer that is being written, if any."""
        if self.pending is not None:
            self.pending.end()

    def say(self, role: str, text: str) -> None:
        """Adds a message; where there are as many as are kept, in place of the last."""
        if self.is_full and self.pending is None:
            self.messages.pop()
        self.messages.append({"role": role, "content": text})

    @property
    def is_full(self) -> bool:
        """Whether the chat has as many messages as are kept."""
        return len(self.messages) >= MAX_MESSAGES


class Visitors:
    """All open tabs, by the key that Gradio gives each. A thread closes those that left or went idle."""

    def __init__(self, uploads: Uploads, config: PageConfig) -> None:
        self._uploads = uploads
        self._config = config
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self.on_sweep: list[Callable[[frozenset[str]], None]] = []

    def get(self, key: str | None, sender: str = "") -> Visitor:
        """The visitor of a tab; a new one on its first visit.

        Raises:
            Refused: the request names no tab, or there are too many visitors who are all at it.
        """
        if not key:
            raise Refused("the request names no session; reload the page")
        with self._lock:
            visitor = self._visitors.get(key)
            idlest = None
            if visitor is None:
                if len(self._visitors) >= self._config.max_visitors:
                    idlest = self._idlest()
                visitor = self._visitors[key] = Visitor(folder=self._uploads.folder(), sender=sender)
            visitor.last_seen, visitor.closed_at = time.monotonic(), None
        if idlest is not None:
            self._drop(idlest)
        return visitor

    def refusal(self, key: str) -> str | None:
        """Why a tab would not be let in; None for one that is known or would be."""
        with self._lock:
            if key in self._visitors or len(self._visitors) < self._config.max_visitors:
                return None
            try:
                self._idlest()
            except Refused as error:
                return str(error)
        return None

    def _idlest(self) -> str:
        """The tab that goes when another comes: one that was closed, else the one idle longest, if it is idle."""
        key = min(self._visitors, key=lambda k: (self._visitors[k].closed_at is None, self._visitors[k].last_seen))
        visitor = self._visitors[key]
        is_active = visitor.pending is not None or time.monotonic() - visitor.last_seen < _ACTIVE_SECONDS
        if visitor.closed_at is None and is_active:
            raise Refused(FULL)
        return key

    def leave(self, key: str | None) -> None:
        """The tab is closed or its connection is lost: stop writing, and remove it if it does not come back."""
        with self._lock:
            visitor = self._visitors.get(key or "")
        if visitor is not None:
            visitor.stop()
            visitor.closed_at = time.monotonic()

    def sweep(self) -> None:
        """Closes the tabs that left or went idle, and removes their files."""
        now = time.monotonic()
        with self._lock:
            gone = [
                key
                for key, visitor in self._visitors.items()
                if now - visitor.last_seen > 60.0 * self._config.idle_minutes
                or (visitor.closed_at is not None and now - visitor.closed_at > self._config.keep_closed_seconds)
            ]
        for key in gone:
            self._drop(key)
        self._uploads.sweep()
        for forget in self.on_sweep:
            forget(frozenset(self._visitors))

    def start_sweeping(self) -> None:
        """Sweeps now and then, in a thread, until `close`."""
        interval = min(_SWEEP_SECONDS, max(0.2, self._config.keep_closed_seconds / 2))

        def run() -> None:
            while not self._end.wait(interval):
                try:
                    self.sweep()
                except OSError:
                    log.exception("could not remove temporary files")

        threading.Thread(target=run, name="avllm-demo-sweeper", daemon=True).start()

    def close(self) -> None:
        """Ends all answers and removes all files."""
        self._end.set()
        for key in list(self._visitors):
            self._drop(key)

    def __len__(self) -> int:
        return len(self._visitors)

    def _drop(self, key: str) -> None:
        with self._lock:
            visitor = self._visitors.pop(key, None)
        if visitor is not None:
            visitor.stop()
            self._uploads.remove_folder(visitor.folder)
            if visitor.sender not in {other.sender for other in [*self._visitors.values()]}:
                self._uploads.leave(visitor.sender)
