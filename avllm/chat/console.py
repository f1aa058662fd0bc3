"""The work of `avllm chat`: a conversation in the terminal."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avllm.chat.ask import kind_of
from avllm.chat.assistant import load
from avllm.chat.perceiver import AudioMode
from avllm.chat.session import Overflow, Session
from avllm.chat.threads import choose_threads
from avllm.errors import AvllmError, DataError

HISTORY = Path("~/.cache/avllm/history").expanduser()
HELP = """\
/video FILE    look at a video (its sound too)     /undo        take back the last question
/image FILE    look at an image                    /again       answer the last question anew
/audio FILE    listen to a sound                   /reset       forget everything
/audio-off     leave out the sound of videos       /save FILE   write the conversation as JSON
/audio-on      use it again                        /quit        leave (or Ctrl-D)
Ctrl-C stops an answer. A line that begins with // is a question that begins with /."""


class Console:
    """Reads lines, runs commands, streams answers.

    Args:
        session: the conversation.
        audio: whether a video's own sound is used.
        write: where answers go.
        tell: where everything else goes.
        options: of every answer.
    """

    def __init__(
        self,
        session: Session,
        *,
        audio: AudioMode = "auto",
        write: Callable[[str], object],
        tell: Callable[[str], object],
        **options: Any,
    ) -> None:
        self.session, self.audio, self.write, self.tell = session, audio, write, tell
        self.options = options
        self.pending: list[dict[str, Any]] = []
        self.commands: dict[str, Callable[[list[str]], bool]] = {
            **{f"/{kind}": self._adder(kind) for kind in ("video", "image", "audio")},
            "/audio-off": lambda args: self._set_audio("off"),
            "/audio-on": lambda args: self._set_audio("auto"),
            "/undo": self._undo,
            "/again": lambda args: self._stream(None),
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda args: self._say(HELP),
            "/quit": lambda args: False,
        }

    def add(self, kind: str, source: str) -> None:
        """Puts a medium beside the next question.

        Raises:
            MediaError: it is not of that kind, or cannot be read.
        """
        found = kind_of(source)
        if found != kind and not (kind == "audio" and found == "video"):
            raise DataError(f"{source}: is {'an' if found[0] in 'ai' else 'a'} {found}; use /{found}")
        self.pending.append({"type": kind, kind: source})

    def line(self, text: str) -> bool:
        """Takes a line; False when it says to leave. Errors are told, and nothing is lost."""
        text = text.strip()
        if not text:
            return True
        try:
            if text.startswith("/") and not text.startswith("//"):
                name, *args = shlex.split(text)
                command = self.commands.get(name)
                return command(args) if command else self._say(f"unknown command {name}; /help shows all")
            return self._stream(text.removeprefix("/") if text.startswith("//") else text)
        except (AvllmError, OSError, ValueError) as error:
            return self._say(f"! {' '.join(str(error).split())}")

    def _stream(self, question: str | None) -> bool:
        """Streams the answer to a question; None answers the last one anew."""
        given: dict[str, Any] = {"media": tuple(self.pending), "audio_mode": self.audio}
        old = self.session.undo() if question is None else None
        if question is None:
            if old is None:
                return self._say("nothing to answer anew")
            question, given = old.question, dict(old.given)
        count = len(self.session.exchanges)
        pieces = self.session.stream(question, **given, **self.options)
        try:
            for piece in pieces:
                self.write(piece)
        except KeyboardInterrupt:
            pieces.close()
            self.tell(" (stopped)")
        finally:
            if len(self.session.exchanges) > count:
                self.pending = [] if old is None else self.pending
            elif old is not None:
                self.session.exchanges.append(old)
            self.write("\n")
        return True

    def _adder(self, kind: str) -> Callable[[list[str]], bool]:
        def command(args: list[str]) -> bool:
            if len(args) != 1:
                return self._say(f"/{kind} expects one file")
            self.add(kind, args[0])
            return self._say(f"{kind} {args[0]}: ask about it")

        return command

    def _set_audio(self, mode: AudioMode) -> bool:
        self.audio = mode
        return self._say(f"sound of videos given from now on: {mode}")

    def _undo(self, args: list[str]) -> bool:
        old = self.session.undo()
        return self._say(f"took back: {old.question}" if old else "nothing to take back")

    def _reset(self, args: list[str]) -> bool:
        self.session.reset()
        self.pending = []
        return self._say("forgotten")

    def _save(self, args: list[str]) -> bool:
        if len(args) != 1:
            return self._say("/save expects one file")
        Path(args[0]).write_text(json.dumps(self.session.to_dict(), indent=1) + "\n", encoding="utf-8")
        return self._say(f"wrote {args[0]}")

    def _say(self, text: str) -> bool:
        self.tell(text + "\n")
        return True


def chat(
    media: Sequence[str],
    *,
    model: str | Path = "nano",
    audio: AudioMode = "auto",
    system: str | None = None,
    overflow: Overflow = "error",
    **options: Any,
) -> int:
    """Chats until the input ends.

    Args:
        media: files to look at first.
        model: a name or a folder.
        audio: whether a video's own sound is used.
        system: in place of the system text of the prompt form.
        overflow: see `Session`.
        options: of `Session.ask`; those that are None are left out.

    Raises:
        MediaError: one of `media` cannot be read.
        CheckpointError: the model cannot be loaded.
    """
    kinds = [kind_of(source) for source in media]
    assistant = load(model)
    choose_threads(assistant.model)
    is_terminal = sys.stdin.isatty()
    known = {name: value for name, value in options.items() if value is not None}
    console = Console(
        assistant.chat(system=system, overflow=overflow),
        audio=audio,
        write=lambda text: (sys.stdout.write(text), sys.stdout.flush()),
        tell=lambda text: (sys.stderr.write(text), sys.stderr.flush()),
        **known,
    )
    console.pending = [{"type": kind, kind: source} for kind, source in zip(kinds, media, strict=True)]
    if is_terminal:
        _keep_history()
        console.tell(f"{model}: ask about {', '.join(media) or 'a file (/video FILE)'}; /help shows the commands\n")
    while True:
        try:
            text = input("> " if is_terminal else "")
        except EOFError:
            return 0
        except KeyboardInterrupt:
            console.tell("\n(Ctrl-D or /quit leaves)\n")
            continue
        if not console.line(text):
            return 0


def _keep_history() -> None:
    """Arrow keys bring back earlier lines, also of earlier chats; without readline there is none."""
    try:
        import atexit
        import readline

        HISTORY.parent.mkdir(parents=True, exist_ok=True)
        HISTORY.touch()
        readline.read_history_file(HISTORY)
        readline.set_history_length(1000)
        atexit.register(readline.write_history_file, HISTORY)
    except (ImportError, OSError):
        return
