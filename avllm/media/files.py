"""Files on disk: regular ones alone, by names that a message can show, and the pictures of a folder in order."""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avllm.errors import MediaError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".heic", ".heif", ".tif", ".tiff"})
_LONGEST_NAME = 255
# Opening a pipe that nobody writes to would wait for ever without O_NONBLOCK; of a regular file it changes nothing.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def shown(text: str) -> str:
    """A name of any characters as a part of one line: what cannot be printed is escaped, what is long is cut."""
    text = text if len(text) <= _LONGEST_NAME else f"{text[:40]}... ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown_name(path: Path) -> str:
    """The last part of a path of any system, for messages: where a file lies is its owner's business alone."""
    return shown(path.name.rsplit("\\", 1)[-1] or path.name or str(path))


def open_regular(path: Path, name: str) -> io.BufferedReader:
    """A file, opened; never a pipe, a device or a socket, also when one took its place a moment ago.

    Raises:
        MediaError: there is none, it is none, or it may not be read.
    """
    try:
        _check_regular(path.stat(), name)
        descriptor = os.open(path, _READING)
    except (OSError, ValueError) as error:
        raise cannot_open(name, error) from error
    try:
        _check_regular(os.fstat(descriptor), name)
    except MediaError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{name}: not a regular file; expected a media file or a folder of frames")


def cannot_open(name: str, error: OSError | ValueError) -> MediaError:
    """What a system call says of a path, in words; of a MediaError, that one."""
    if isinstance(error, MediaError):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "no name that a file can have"
    return MediaError(f"{name}: cannot be opened ({reason}); check the path")


@contextmanager
def disk_faults(name: str) -> Iterator[None]:
    """Around reading from an open file: a disk that fails is no damaged file. Raises MediaError in place of OSError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not said by the system
            raise
        raise MediaError(f"{name}: cannot be read ({error.strerror}); check the disk") from error


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when another file takes the place of this one, or when it is written to. Raises OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def frame_files(folder: Path, name: str) -> list[Path]:
    """The pictures of a folder by their suffixes, in the natural order of their names (2 before 10).

    Raises:
        MediaError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    except (OSError, ValueError) as error:
        raise cannot_open(name, error) from error
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    # Names that differ in case or in leading zeros alone have an order, too.
    return [(0, int(part)) if place % 2 else (1, part) for place, part in enumerate(parts)], path.name
