"""Files of rows, one on a line, that grow: whole rows alone, whatever ends the process or fills the disk."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from avllm.durable.faults import disk_faults
from avllm.durable.locks import lock_beside, locked
from avllm.errors import DataError, DiskError

SYNC_SECONDS = 1.0
# Line ends to some readers, though not to JSON.
_SEPARATORS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}


class Appender:
    """Adds lines to an open file: whole, or none of them when the disk is full.

    Args:
        file: opened for appending.
        path: its name.
    """

    def __init__(self, file: FileIO, path: Path) -> None:
        self._file, self._path, self._synced = file, path, time.monotonic()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows as lines of JSON.

        Raises:
            DiskError: there is no place for them; none of them is in the file.
        """
        self.add_text("".join(f"{json_line(row)}\n" for row in rows))

    def add_text(self, text: str) -> None:
        """Appends whole lines; see `add`."""
        data, before = text.encode(errors="backslashreplace"), os.fstat(self._file.fileno()).st_size
        with disk_faults(self._path):
            try:
                while data:  # a disk that is nearly full takes a part
                    data = data[self._file.write(data) :]
                if time.monotonic() - self._synced >= SYNC_SECONDS:
                    self.sync()
            except BaseException:
                os.truncate(self._file.fileno(), before)
                raise

    def sync(self) -> None:
        """Forces what was added onto the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextmanager
def appending(path: str | Path, *, wait: bool = False) -> Iterator[Appender]:
    """Opens a file of rows for one process alone; a row that a kill cut off is removed first.

    Args:
        path: the file; made if it is not there.
        wait: until another process has done with it.

    Raises:
        InUse: another process writes to it, and `wait` is off.
        DiskError: it cannot be written.
        DataError: it ends in what is no row.
    """
    path = Path(path)
    with ExitStack() as stack:
        with disk_faults(path):
            if path.exists() and not path.is_file():
                raise DiskError(f"{path}: is no file that rows can be kept in; name another")
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock_beside(path), path, wait=wait))
            file = stack.enter_context(FileIO(path, "a"))
            _mend(path, file)
        appender = Appender(file, path)
        try:
            yield appender
        finally:
            with disk_faults(path):
                appender.sync()


def append_line(path: str | Path, text: str) -> None:
    """Adds one line to a file; one before it that a kill cut off is ended first."""
    path = Path(path)
    with disk_faults(path), FileIO(path, "a+") as file:
        size = file.seek(0, os.SEEK_END)
        is_cut = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        Appender(file, path).add_text(("\n" if is_cut else "") + text + "\n")


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of strict JSON that UTF-8 can hold; what is no finite number is null."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_SEPARATORS)
    except ValueError:
        return json_line(_finite(row))
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair in an id or a file's name
        text = json.dumps(row)
    return text


def whole_lines(path: str | Path) -> list[bytes]:
    """Lines of a file of rows, without their ends, and without a last one that a kill cut off.

    Raises:
        DataError: its last line is not even the beginning of a row.
        DiskError: it cannot be read.
    """
    with disk_faults(path, doing="read"):
        *lines, last = Path(path).read_bytes().split(b"\n")
    return [*lines, last] if _is_row(path, last) else lines


def _mend(path: Path, file: FileIO) -> None:
    """Ends the last line of a file, or cuts it off."""
    data = path.read_bytes()
    kept = data.rfind(b"\n") + 1
    if _is_row(path, data[kept:]):
        file.write(b"\n")
    elif kept < len(data):
        os.truncate(path, kept)


def _is_row(path: str | Path, last: bytes) -> bool:
    """Whether what follows the last line feed of a file is a row that lacks only its end, and not a part of one.

    Raises:
        DataError: it is neither: somebody else's file, of which nothing is to be cut off.
    """
    if not last.strip(b"\0"):  # zeros are what some file systems leave after a loss of power
        return False
    try:
        row = json.loads(last)
    except (ValueError, RecursionError):
        if last.startswith(b"{"):
            return False
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{path}: its last line is no row of a run; name another file")
    return True


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0.0 else value
