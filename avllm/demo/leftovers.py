"""Folders of visitors' files that a killed demo left behind: removed by the next one."""

import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nothing tells whether a folder is still in use, so none is removed
    fcntl = None

log = logging.getLogger(__name__)
PREFIX = "avllm-demo-"
LOCK = ".in-use"


def claim() -> tuple[Path, IO[bytes]]:
    """Makes a folder for the files of this process.

    Returns:
        The folder, and a file in it whose lock ends with the process, however that ends.
    """
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    held = (root / LOCK).open("wb")
    if fcntl is not None:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return root, held


def remove_leftovers() -> int:
    """Removes the folders of demos whose process is gone; those of others and those in use stay.

    Returns:
        How many were removed.
    """
    if fcntl is None:
        return 0
    folders = Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
    return sum(_remove_if_abandoned(folder) for folder in folders)


def _remove_if_abandoned(folder: Path) -> bool:
    assert fcntl is not None
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        # Not through a link: this file is opened for writing.
        held = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # it is gone, it is another's, or it is no folder of a demo
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError as error:
        if not isinstance(error, BlockingIOError | PermissionError):
            log.warning("a folder that an earlier demo left could not be removed (%s)", error.strerror)
        return False
    finally:
        os.close(held)
    log.info("removed the files that an earlier demo left")
    return True
