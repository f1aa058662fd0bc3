"""What a disk says when it cannot write, in one line that names the file and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avllm.errors import AvllmError, DiskError

UNFINISHED = ".unfinished-"  # how everything begins to be called that is not whole yet
# What cannot be written because of the disk, whichever file of it was meant.
SPACE = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the quota of its disk is used up",
    errno.EFBIG: "it is larger than its file system, or a limit of this process (ulimit -f), allows",
    errno.EROFS: "its file system is read-only; name a place that can be written",
    errno.EIO: "its disk reports an error; look into the system's log, and write to another disk",
}
# What one file or folder cannot be.
PLACE = {
    errno.EACCES: "no permission; change the rights of its folder, or name another place",
    errno.EPERM: "not permitted; name another place",
    errno.ENAMETOOLONG: "its name is too long; name it with at most 200 bytes",
    errno.ENOTDIR: "a part of its path is a file; expected a folder",
    errno.EISDIR: "is a folder; expected a file, or a name that is free",
    errno.EEXIST: "is a file; expected a folder, or a name that is free",
    errno.ELOOP: "its links lead in a circle",
    errno.ESTALE: "its network file system has lost it; mount it again",
}
# How safetensors, torch and NumPy tell it, none of them with a number of its own.
_NUMBERED = re.compile(r"os error (\d+)\)")
_CUT_SHORT = re.compile(r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed|requested and \d+ written")


@contextmanager
def disk_faults(path: str | Path, *, doing: str = "written") -> Iterator[None]:
    """Tells what a disk says about a file, or about what is in a folder, as a DiskError; lets other errors pass.

    Args:
        path: what is read or written in the block.
        doing: what cannot be done, "written" or "read".
    """
    try:
        yield
    except AvllmError:
        raise
    except Exception as error:
        number, path = _number_of(error), Path(path)
        if number in SPACE or (number in PLACE and _is_about(error, path)):
            raise DiskError(_told(path, number, doing)) from error
        raise


def _is_about(error: Exception, path: Path) -> bool:
    """Whether an error names what is written, what is in it, what it is in, or nothing."""
    named = getattr(error, "filename", None)
    if named is None:
        return True
    found, whole = (Path(os.path.abspath(os.fsdecode(name))) for name in (named, path))
    is_unfinished = any(part.startswith(UNFINISHED) for part in found.parts)
    return is_unfinished or found.is_relative_to(whole) or whole.is_relative_to(found)


def told_of_disk(error: BaseException) -> str | None:
    """The line for an error that nobody put beside its file; None if it is not the disk's."""
    number, named = _number_of(error), getattr(error, "filename", None)
    if number in SPACE or (number in PLACE and named is not None):
        return _told(Path(os.fsdecode(named)) if named is not None else None, number, "written")
    return None


def _number_of(error: BaseException) -> int:
    """As errno counts; 0 for what is not about files."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    found = _NUMBERED.search(text)
    if found:
        return int(found[1])
    return errno.ENOSPC if _CUT_SHORT.search(text) else 0


def _told(path: Path | None, number: int, doing: str) -> str:
    where = f"{path}: " if path is not None else "a file "
    reason = SPACE.get(number) or PLACE[number]
    if number in (errno.ENOSPC, errno.EDQUOT):
        reason += f"{_free(path)}; free some, or name a place on another disk"
    return f"{where}cannot be {doing}: {reason}"


def _free(path: Path | None) -> str:
    """How much is free where a file is to lie."""
    here = next((place for place in (path.absolute().parents if path is not None else ()) if place.is_dir()), None)
    if here is None:
        return ""
    usage = shutil.disk_usage(here)
    return f" ({usage.free / 2**20:.1f} of {usage.total / 2**20:.1f} MiB are free)"
