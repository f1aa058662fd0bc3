"""Files that visitors send: counted while they come, kept under names of our own, removed with the visitor."""

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from avllm.demo.leftovers import claim
from avllm.errors import MediaError

# What a browser may play inline. Anything else is kept without a telling suffix and offered as a download.
_VIDEO = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpeg", ".mpg", ".ogv")
_AUDIO = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus")
PLAYABLE = frozenset((*_VIDEO, *_AUDIO, ".png", ".jpg", ".jpeg", ".gif", ".webp"))
_VISITORS, _SENT = "visitors", "sent"
_ADDRESS = re.compile(r"([A-Za-z0-9_-]{22})/([0-9]{1,9}\.[a-z0-9]{1,5})")
_SECONDS_TOLD = 60.0


class OverQuota(MediaError):
    """A file is more than the visitor, or all visitors together, may leave here."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How much may lie here.

    Args:
        file_bytes: largest file.
        sent_bytes, sent_files: what one sender may have sent that is not in a chat yet.
        all_bytes, all_files: everything, also what is in chats.
        keep_seconds: a file that no chat took by then is removed.
    """

    file_bytes: int
    sent_bytes: int = 512 * 2**20
    sent_files: int = 128
    all_bytes: int = 8 * 2**30
    all_files: int = 2000
    keep_seconds: float = 300.0


@dataclass(eq=False)
class Incoming:
    """A file on its way here, or here and not in a chat yet."""

    sender: str
    path: Path
    file: IO[bytes]
    num_bytes: int = 0
    began: float = field(default_factory=time.monotonic)
    suffix: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.suffix != ""


class Uploads:
    """The demo's own folder of temporary files, removed when the demo ends.

    A file is sent to a name that nobody can guess, and moves into the visitor's folder, of such a name as well, when a
    chat takes it. Every byte is counted before it is written.
    """

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.root, self._held = claim()
        self._sent: dict[str, Incoming] = {}
        self._taken: dict[Path, int] = {}
        self._refusals: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        for name in (_VISITORS, _SENT):
            (self.root / name).mkdir()

    def folder(self) -> Path:
        """Makes the folder of one visitor; its name is random and part of every address below it."""
        folder = self.root / _VISITORS / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def begin(self, sender: str, declared_bytes: int = 0) -> str:
        """Makes room for a file; bytes follow with `write`.

        Args:
            sender: whose quota it counts for.
            declared_bytes: how large it is said to be; 0 for unknown.

        Returns:
            The name under which `write`, `finish` and `take` know it.

        Raises:
            OverQuota: it is too large, or there is no room for it.
        """
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._require_room(sender, declared_bytes, more_files=1)
            path = self.root / _SENT / token
            self._sent[token] = Incoming(sender=sender, path=path, file=path.open("xb"))
        return token

    def write(self, token: str, data: bytes) -> None:
        """Adds bytes.

        Raises:
            OverQuota: they are too many; then the file is gone.
        """
        try:
            with self._lock:
                incoming = self._sent.get(token)
                if incoming is None:  # its sender left meanwhile
                    raise OverQuota("the file was removed before it was whole; send it again")
                if incoming.num_bytes + len(data) > self.quota.file_bytes:
                    raise OverQuota(too_large(incoming.num_bytes + len(data), self.quota.file_bytes))
                self._require_room(incoming.sender, len(data), more_files=0)
                incoming.num_bytes += len(data)
            incoming.file.write(data)
        except BaseException:
            self.abandon(token)
            raise

    def finish(self, token: str, name: str) -> None:
        """All bytes are here.

        Args:
            token: the file.
            name: as the sender calls it; only its suffix is kept, if a browser can play it.
        """
        suffix = os.path.splitext(name)[1].lower()
        with self._lock:
            incoming = self._sent.get(token)
            if incoming is not None:
                incoming.file.close()
                incoming.suffix = suffix if suffix in PLAYABLE else ".bin"
                incoming.began = time.monotonic()

    def abandon(self, token: str) -> None:
        """Removes a file that is not in a chat."""
        with self._lock:
            incoming = self._sent.pop(token, None)
        if incoming is not None:
            incoming.file.close()
            incoming.path.unlink(missing_ok=True)

    def take(self, token: str, folder: Path, *, number: int) -> Path:
        """Moves a file that was sent into a visitor's folder.

        Args:
            token: what the page reports; it comes from the visitor, so it is looked up and never opened.
            folder: the visitor's folder.
            number: running number, the new name.

        Raises:
            MediaError: there is no such file, or no longer.
        """
        with self._lock:
            incoming = self._sent.get(token)
            if incoming is None or not incoming.is_whole:
                raise MediaError("the upload did not arrive; send the file again")
            target = folder / f"{number}{incoming.suffix}"
            try:
                os.replace(incoming.path, target)
            except OSError as error:  # the visitor's folder went meanwhile
                raise MediaError("the upload did not arrive; send the file again") from error
            del self._sent[token]
            self._taken[target] = incoming.num_bytes
        return target

    def forget(self, path: Path) -> None:
        """Removes a file of a chat."""
        path.unlink(missing_ok=True)
        with self._lock:
            self._taken.pop(path, None)

    def remove_folder(self, folder: Path) -> None:
        """Removes a visitor's folder with all that is in it."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            for path in [path for path in self._taken if path.parent == folder]:
                del self._taken[path]

    def leave(self, sender: str) -> None:
        """Removes what a sender sent and no chat took."""
        self._abandon_all(token for token, incoming in [*self._sent.items()] if incoming.sender == sender)

    def sweep(self) -> None:
        """Removes what no chat took in time."""
        old = time.monotonic() - self.quota.keep_seconds
        self._abandon_all(
            token for token, incoming in [*self._sent.items()] if incoming.is_whole and incoming.began < old
        )
        with self._lock:
            told = time.monotonic() - _SECONDS_TOLD
            self._refusals = {sender: refusal for sender, refusal in self._refusals.items() if refusal[0] > told}

    def find(self, address: str) -> Path | None:
        """The file of a chat behind the address that the page gives it; None when it is none."""
        match = _ADDRESS.fullmatch(address)
        path = self.root / _VISITORS / match[1] / match[2] if match else None
        return path if path is not None and path.is_file() and not path.is_symlink() else None

    def note_refusal(self, sender: str, reason: str) -> None:
        """Keeps why a file was refused, to be told in the chat of its sender."""
        with self._lock:
            self._refusals[sender] = (time.monotonic(), reason)

    def last_refusal(self, sender: str) -> str | None:
        """Why this sender's last file was refused, told once."""
        with self._lock:
            told_at, reason = self._refusals.pop(sender, (0.0, ""))
        return reason if reason and time.monotonic() - told_at < _SECONDS_TOLD else None

    def used(self) -> tuple[int, int]:
        """Bytes and files that lie here."""
        sent = [incoming.num_bytes for incoming in [*self._sent.values()]]
        return sum(sent) + sum(self._taken.values()), len(sent) + len(self._taken)

    def remove(self) -> None:
        """Removes everything."""
        for incoming in [*self._sent.values()]:
            incoming.file.close()
        shutil.rmtree(self.root, ignore_errors=True)
        self._held.close()

    def _require_room(self, sender: str, more_bytes: int, *, more_files: int) -> None:
        quota = self.quota
        if more_bytes > quota.file_bytes:
            raise OverQuota(too_large(more_bytes, quota.file_bytes))
        own = [incoming.num_bytes for incoming in self._sent.values() if incoming.sender == sender]
        if len(own) + more_files > quota.sent_files or sum(own) + more_bytes > quota.sent_bytes:
            num_own = len(own) - 1 + more_files  # without the one that is refused
            raise OverQuota(
                f"you have sent {num_own} files that are in no chat yet ({_mb(sum(own))}), at most {quota.sent_files} "
                f"and {_mb(quota.sent_bytes)} are kept; use them, or wait {quota.keep_seconds:.0f} s"
            )
        num_bytes, num_files = self.used()
        if num_files + more_files > quota.all_files or num_bytes + more_bytes > quota.all_bytes:
            raise OverQuota("the demo holds as many files as it may; try again in a few minutes")

    def _abandon_all(self, tokens: Iterable[str]) -> None:
        for token in [*tokens]:
            self.abandon(token)


def address(path: Path) -> str:
    """How the page calls a file of a chat: by the names of its folder and its own."""
    return f"{path.parent.name}/{path.name}"


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-links a file, or copies it where the file system cannot link."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def too_large(num_bytes: int, max_bytes: int) -> str:
    """The one sentence for a file over the limit."""
    return f"the file has {_mb(num_bytes)}, at most {max_bytes / 2**20:.0f} MB are taken; cut or compress it"


def shown_name(name: str, limit: int = 60) -> str:
    """A file name as it may be shown: the last part, without control characters, cut in the middle when long."""
    name = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable()).strip() or "file"
    return name if len(name) <= limit else f"{name[: limit - 16]}…{name[-15:]}"


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MB"
