"""The work of `avllm chat`: a conversation in the terminal."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avllm.chat.ask import kind_of, told_apart
from avllm.chat.asked import AudioMode, audio_mode_of
from avllm.chat.assistant import load
from avllm.chat.session import Overflow, Session
from avllm.chat.threads import choose_threads
from avllm.durable import write_json
from avllm.errors import AvllmError, DataError, named_fault
from avllm.model.options import SHARED, for_kind
from avllm.terminal import say

HISTORY = Path("~/.cache/avllm/history").expanduser()
HELP = """\
/video FILE    look at a video (its sound too)     /undo        take back the last question, not its files
/image FILE    look at an image                    /again       answer the last question anew
/audio FILE    listen to a sound                   /edit TEXT   ask TEXT in place of the last question
/audio-off     leave out the sound of videos       /reset       forget everything, files too
/audio-on      use it again                        /save FILE   write the conversation as JSON
/drop          leave out files not yet asked about /quit        leave (or Ctrl-D)
Ctrl-C stops an answer. A line that begins with // is a question that begins with /."""


class Console:
    """Reads lines, runs commands, streams answers.

    Args:
        session: the conversation.
        audio: whether a video's own sound is used.
        write: where answers go.
        tell: where everything else goes.
        options: of every answer, and of how new media are read where they have use for it.
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
        self.session, self.audio, self.write, self.tell = session, audio_mode_of(audio), write, tell
        self.reading, self.writing = told_apart(options)
        self.pending: list[dict[str, Any]] = []
        self.commands: dict[str, Callable[[list[str]], bool]] = {
            **{f"/{kind}": self._adder(kind) for kind in ("video", "image", "audio")},
            "/audio-off": lambda args: self._set_audio("off"),
            "/audio-on": lambda args: self._set_audio("auto"),
            "/undo": self._undo,
            "/again": lambda args: self._stream(None, is_anew=True),
            "/drop": self._drop,
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
                name, _, rest = text.partition(" ")
                if name == "/edit":  # a question is no list of words: it may hold an apostrophe
                    return self._stream(rest.strip(), is_anew=True) if rest.strip() else self._say("/edit expects text")
                name, *args = shlex.split(text)
                command = self.commands.get(name)
                return command(args) if command else self._say(f"unknown command {name}; /help shows all")
            return self._stream(text.removeprefix("/") if text.startswith("//") else text)
        except (AvllmError, OSError, ValueError) as error:
            return self._say(f"! {' '.join(str(error).split())}")
        except Exception as error:
            return self._say(f"! {named_fault(error)}")

    def _stream(self, question: str | None, *, is_anew: bool = False) -> bool:
        """Streams the answer to a question.

        Args:
            question: None asks the last one again.
            is_anew: in place of the last question, about the same media.
        """
        old = self.session.undo() if is_anew else None
        if is_anew and old is None:
            return self._say("nothing to answer anew")
        if old is not None:
            given, question = dict(old.given), old.asked.text if question is None else question
        else:
            given = {"media": tuple(self.pending), "audio_mode": self.audio, **self._of_use()}
        last = self.session.last
        pieces = self.session.stream(question or "", **given, **self.writing)
        try:
            for piece in pieces:
                self.write(piece)
        except KeyboardInterrupt:
            pieces.close()
            self.tell(" (stopped)")
        finally:
            is_answered = self.session.last is not None and self.session.last is not last
            if is_answered and old is None:
                self.pending = []
            elif not is_answered and old is not None:
                self.session.exchanges.append(old)
            self.write("\n")
        return True

    def _of_use(self) -> dict[str, Any]:
        """How media are read, as far as the pending ones have use for it."""
        useful = {name for part in self.pending for name in for_kind(part["type"], self.reading)}
        return {name: value for name, value in self.reading.items() if name in useful}

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
        if old is None:
            return self._say("nothing to take back")
        # What was shown stays shown: files belong to the conversation.
        self.pending = [*_parts_of(old.given), *self.pending]
        in_view = (*self.session.forgotten, *self.session.exchanges)
        kept = [_name(part) for exchange in in_view for part in _parts_of(exchange.given)]
        kept += [_name(part) for part in self.pending]
        return self._say(f"took back: {old.asked.text} (still there: {', '.join(kept) or 'no file'})")

    def _drop(self, args: list[str]) -> bool:
        dropped, self.pending = self.pending, []
        return self._say(f"left out: {', '.join(map(_name, dropped)) or 'nothing, all files have been asked about'}")

    def _reset(self, args: list[str]) -> bool:
        self.session.reset()
        self.pending = []
        return self._say("forgotten")

    def _save(self, args: list[str]) -> bool:
        if len(args) != 1:
            return self._say("/save expects one file")
        if not Path(args[0]).absolute().parent.is_dir():
            raise DataError(f"{args[0]}: no such folder")
        write_json(args[0], self.session.to_dict())
        return self._say(f"wrote {args[0]}")

    def _say(self, text: str) -> bool:
        self.tell(text + "\n")
        return True


def _parts_of(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The media of a question of this console, with how they were read."""
    reading = {name: value for name, value in given.items() if name in SHARED}
    return [{**for_kind(part["type"], reading), **part} for part in given.get("media") or ()]


def _name(part: Mapping[str, Any]) -> str:
    return str(part[part["type"]])


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
        options: of `Session.ask`; those that are None are left out. Those of reading hold for all media that have use
            for them.

    Raises:
        MediaError: one of `media` cannot be read.
        ConfigError: an option is wrong.
        CheckpointError: the model cannot be loaded.
    """
    told_apart(options)
    audio_mode_of(audio)
    kinds = [kind_of(source) for source in media]
    assistant = load(model)
    choose_threads(assistant.model)
    is_terminal = sys.stdin.isatty()
    console = Console(
        assistant.chat(system=system, overflow=overflow),
        audio=audio,
        write=lambda text: say(text, end=""),
        tell=lambda text: say(text, end="", file=sys.stderr),
        **options,
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
