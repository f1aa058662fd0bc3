"""Files and folders that appear whole: written beside, forced onto the disk, then put in place."""

import ctypes
import errno
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avllm.durable.faults import UNFINISHED, disk_faults
from avllm.durable.locks import lock_beside, locked, short
from avllm.errors import DiskError

HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux; RENAME_SWAP of macOS is 2 as well
DAY_SECONDS = 86400
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that know no such thing as a folder on disk
_numbers = itertools.count()
_mine: set[str] = set()  # unfinished files of this process


@contextmanager
def written_whole(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write into; it takes the place of `folder` when the block ends, and goes if that fails.

    At any moment, also when the process is killed, what was there before or what is new is there, whole.

    Args:
        folder: where to; what is there is replaced. A link is followed.

    Raises:
        DiskError: it is a file, or cannot be written.
        InUse: another process writes it.
    """
    folder = Path(os.path.realpath(folder))
    unfinished, aside = (folder.with_name(f"{UNFINISHED}{short(folder.name)}{end}") for end in ("", ".old"))
    with disk_faults(folder):
        if folder.exists() and not folder.is_dir():
            raise DiskError(f"{folder}: is a file; expected a folder, or a name that is free")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(folder), folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            if aside.exists() and not folder.exists():  # killed between the two renames below
                aside.rename(folder)
            shutil.rmtree(aside, ignore_errors=True)
            unfinished.mkdir()
            try:
                yield unfinished
                sync(unfinished)
                _put(unfinished, folder, aside)
                sync_folder(folder.parent)
            finally:  # now what was there before, or, after Ctrl-C and on a full disk, what is half written
                shutil.rmtree(unfinished, ignore_errors=True)


def _put(unfinished: Path, folder: Path, aside: Path) -> None:
    if not folder.exists():
        unfinished.rename(folder)
    elif not _exchange(unfinished, folder):
        # A file system that cannot do it in one: for an instant both lie beside the place, each whole.
        folder.rename(aside)
        unfinished.rename(folder)
        shutil.rmtree(aside)


@contextmanager
def file_whole(path: str | Path) -> Iterator[Path]:
    """A name to write a file under; it takes the place of `path` when the block ends, and goes if that fails.

    Raises:
        DiskError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    unfinished = path.with_name(f"{_stem(path)}.{os.getpid()}.{next(_numbers)}")
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        _mine.add(unfinished.name)
        try:
            yield unfinished
            _sync_file(unfinished)
            unfinished.replace(path)
            sync_folder(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
            _mine.discard(unfinished.name)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file that is there whole or not at all; half of a surrogate pair, which has no UTF-8, as `\\udXXX`.

    Raises:
        DiskError: it cannot be written.
    """
    with file_whole(path) as unfinished:
        unfinished.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Writes JSON that people may read, whole or not at all."""
    write_whole(path, json.dumps(data, indent=2) + "\n")


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in a folder, of which the caller holds the lock."""
    for left in folder.glob(f"{UNFINISHED}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Forces the files of a folder, and its list of them, onto the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Forces the list of files of a folder onto the disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _stem(path: Path) -> str:
    """How unfinished files for a path begin: so that what another process on this machine left can be told."""
    return f"{UNFINISHED}{short(path.name)}.{short(platform.node())[:60]}"


def _sweep(path: Path) -> None:
    """Removes what killed processes left of a file: those of this machine, and whoever's after a day."""
    for left in path.parent.glob(f"{_escaped(UNFINISHED + short(path.name))}.*"):
        try:
            pid = int(left.name.split(".")[-2])
            is_here = left.name.startswith(_stem(path))
            is_old = left.stat().st_mtime < time.time() - DAY_SECONDS
            if left.name not in _mine and (is_old or (is_here and (pid == os.getpid() or not _is_alive(pid)))):
                left.unlink()
        except (OSError, ValueError, IndexError):  # gone meanwhile, or not of ours
            continue


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; whether the system and the file system can."""
    system, names = ctypes.CDLL(None), (os.fsencode(one), os.fsencode(other))
    if sys.platform == "darwin" and hasattr(system, "renamex_np"):
        return system.renamex_np(*names, EXCHANGE) == 0
    if sys.platform == "linux" and hasattr(system, "renameat2"):
        return system.renameat2(HERE, names[0], HERE, names[1], EXCHANGE) == 0
    return False
