"""Folders that appear whole: written beside, forced onto the disk, then put in the place of what was there."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avllm.errors import CheckpointError

HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux; RENAME_SWAP of macOS is 2 as well


@contextmanager
def written_whole(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write into; it takes the place of `folder` when the block ends, and goes if that fails.

    At any moment, also when the process is killed, what was there before or what is new is there, whole.

    Args:
        folder: where to; what is there is replaced. A link is followed.

    Raises:
        CheckpointError: it is a file.
    """
    folder = Path(os.path.realpath(folder))
    if folder.is_file():
        raise CheckpointError(f"{folder}: is a file; expected a folder, or a name that is free")
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        sync(unfinished)
        if not folder.exists():
            unfinished.rename(folder)
        elif not _exchange(unfinished, folder):
            # A file system that cannot do it in one: for an instant both lie beside the place, each whole.
            aside = folder.with_name(f"{folder.name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            unfinished.rename(folder)
            shutil.rmtree(aside)
        sync_folder(folder.parent)
    finally:  # now what was there before, or, after Ctrl-C and on a full disk, what is half written
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(folder: Path) -> None:
    """Forces the files of a folder, and its list of them, onto the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Forces the list of files of a folder onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; whether the system and the file system can."""
    system, names = ctypes.CDLL(None), (os.fsencode(one), os.fsencode(other))
    if sys.platform == "darwin" and hasattr(system, "renamex_np"):
        return system.renamex_np(*names, EXCHANGE) == 0
    if sys.platform == "linux" and hasattr(system, "renameat2"):
        return system.renameat2(HERE, names[0], HERE, names[1], EXCHANGE) == 0
    return False
