"""Locks between processes: one goes on, the other says at once who holds it. With the process its locks end as well."""

import errno
import fcntl
import logging
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

from avllm.durable.faults import disk_faults
from avllm.errors import InUse

logger = logging.getLogger(__name__)
IN_USE = ".in_use"
LONGEST_NAME = 150  # bytes of a name that others are made of; file systems hold 255
LONGEST_COMMAND = 160
# File systems without locks, of networks above all, say one of these.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
HELD = (errno.EACCES, errno.EAGAIN)
WAIT_SECONDS = 0.05
# Path -> thread and how often. A lock of the system is the process's: it tells its own threads nothing, and closing
# its file a second time would end it.
_held: dict[str, tuple[int, int]] = {}
_guard = threading.Lock()


@contextmanager
def locked(lock: str | Path, what: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock for the time of a block; the thread that holds it may take it once more.

    A lock belongs to this process alone, and not to those that it forks: readers that outlive it for seconds after
    kill -9 do not hold it. Its file is removed at the end; one that a kill left holds nothing.

    Args:
        lock: the file that is locked; nothing else may open it.
        what: what it stands for, for the error.
        wait: until it is free.

    Raises:
        InUse: another process or thread holds it, and `wait` is off.
        DiskError: the file cannot be made.
    """
    key = os.path.realpath(lock)
    while not _took(key):
        if not wait:
            raise InUse(f"{what}: another thread of this process writes it right now; wait for its end")
        time.sleep(WAIT_SECONDS)
    file: TextIO | None = None
    try:
        if _held[key][1] == 1:
            with disk_faults(what):
                file = _acquired(key, what, wait)
        yield
    finally:
        if file is not None:
            try:
                os.unlink(key)
            except OSError as error:  # it stays, and holds nothing
                logger.debug("%s: %s", key, error)
            file.close()
        _gave(key)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder for the time of a block. Of torchrun's processes the first holds it for all.

    Raises:
        InUse: another process writes into it.
        DiskError: it cannot be made.
    """
    if int(os.environ.get("RANK", 0)):
        yield
        return
    with disk_faults(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / IN_USE, folder):
            yield
    finally:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def lock_beside(path: Path) -> Path:
    """The lock of a file, or of a folder that is replaced: a file beside it."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{short(path.name)}.lock")


def short(name: str) -> str:
    """A name that leaves room for more; of a long one its digest."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST_NAME else blake2b(data, digest_size=16).hexdigest()


def _took(key: str) -> bool:
    me = threading.get_ident()
    with _guard:
        thread, times = _held.get(key, (me, 0))
        if thread == me:
            _held[key] = (me, times + 1)
        return thread == me


def _gave(key: str) -> None:
    with _guard:
        thread, times = _held.pop(key)
        if times > 1:
            _held[key] = (thread, times - 1)


def _acquired(lock: str, what: str | Path, wait: bool) -> TextIO:
    """The open file of a lock that is held."""
    os.makedirs(os.path.dirname(lock), exist_ok=True)
    while True:
        file = open(lock, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  (open as long as it is held)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_same(file, lock):  # its holder ended and removed it meanwhile
                file.close()
                continue
            file.truncate(0)
            file.write(_me())
            file.flush()
            return file
        except OSError as error:
            if error.errno in NO_LOCKS:
                logger.warning(
                    "%s: its file system knows no locks; see to it that no second process writes there", what
                )
                return file
            holder = _holder(file) if error.errno in HELD else ""
            file.close()
            if not holder:
                raise
            raise InUse(f"{what}: {holder} writes it right now; wait for its end, or name another place") from None
        except BaseException:
            file.close()
            raise


def _is_same(file: TextIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _me() -> str:
    command = " ".join(shlex.join([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]]).split())
    if len(command) > LONGEST_COMMAND:
        command = command[: LONGEST_COMMAND - 3] + "..."
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"process {os.getpid()} on {platform.node()} ({command}), since {since},"


def _holder(file: TextIO) -> str:
    """Who holds a lock; for an instant after it was taken nobody has signed it."""
    for _ in range(10):
        file.seek(0)
        signed = file.read().strip()
        if signed:
            return signed
        time.sleep(WAIT_SECONDS)
    return "another process"
