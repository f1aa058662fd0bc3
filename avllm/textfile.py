"""Text files of users: UTF-8, with a byte order mark (as Excel and PowerShell write it) or without."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from avllm.errors import DataError

# In bytes. A line may hold a medium as data; what is longer is no line that someone wrote, and is not kept in memory.
LONGEST_LINE = 256 * 2**20
JSON_SPACE = " \t\r\n"  # what JSON calls white space; str.strip() would take separators that may stand in a text


def read_text(path: str | Path) -> str:
    """A whole file, without its byte order mark; line ends are kept as they are.

    Raises:
        DataError: it cannot be read, or is not UTF-8; the byte is named.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return decoded(_without_mark(path, data), str(path), start=len(_mark(data)))


def json_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a JSONL file that are not blank, with their numbers from 1.

    Only a line feed ends a line: U+2028 and its like may stand within the texts of JSON.

    Raises:
        DataError: it cannot be read, or is not UTF-8; line and byte are named.
    """
    for number, line in byte_lines(path):
        yield number, line_text(line, f"{path}, line {number}")


def byte_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """As `json_lines`, but for `line_text`: for those who keep a bad line to itself. Of one too long the beginning.

    Raises:
        DataError: it cannot be read, or is UTF-16.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                line = _without_mark(path, line) if number == 1 else line
                if line.strip(JSON_SPACE.encode()):
                    yield number, line
    except OSError as error:
        raise _unreadable(path, error) from error


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE + 1):
        yield line
        while _is_cut(line):
            line = file.readline(LONGEST_LINE + 1)


def _is_cut(line: bytes) -> bool:
    return len(line) > LONGEST_LINE and not line.endswith(b"\n")


def line_text(line: bytes, where: str) -> str:
    """A line of `byte_lines` as text.

    Raises:
        DataError: it is not UTF-8, or longer than a line may be.
    """
    if _is_cut(line):
        raise DataError(f"{where}: is longer than {LONGEST_LINE} bytes; expected one entry on a line")
    return decoded(line, where)


def decoded(data: bytes, where: str, start: int = 0) -> str:
    """UTF-8 as text.

    Args:
        data: without a byte order mark.
        where: file, and line if it is one, for the error.
        start: bytes of the file before `data`.

    Raises:
        DataError: it is not UTF-8; the byte is named, counted from 0.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = data[error.start]
        raise DataError(
            f"{where}: expected UTF-8, byte {start + error.start} is 0x{bad:02x} ({error.reason}); save it as UTF-8"
        ) from error


def _without_mark(path: str | Path, data: bytes) -> bytes:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: expected UTF-8, got UTF-16 (its byte order mark says so); save it as UTF-8")
    return data[len(_mark(data)) :]


def _mark(data: bytes) -> bytes:
    return codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""


def _unreadable(path: str | Path, error: OSError | ValueError) -> DataError:
    reason = getattr(error, "strerror", None) or error  # a ValueError is of a name that no file can have
    return DataError(f"{path}: cannot be read ({reason}); check the path")
