"""The log of a run: append-only JSON lines, a header and a row per sample; what a kill cut off is dropped."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from avllm.errors import DataError

Row = dict[str, Any]
# Half of a surrogate pair, as JSON may hold it, has no UTF-8; written as \udXXX, it is the same JSON.
LONE = "backslashreplace"


def digest(value: Any) -> str:
    """A short digest of plain data."""
    plain = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(plain.encode(errors=LONE), digest_size=8).hexdigest()


def fingerprint(folder: Path) -> str:
    """A digest of a model's weights and settings."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        with path.open("rb") as file:
            found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


class Log:
    """The logs of a run: one per process, `log.jsonl`, or `log.RANK.jsonl` of many.

    Args:
        folder: of the run.
        rank: of this process.
        num_processes: that share the samples.
    """

    def __init__(self, folder: str | Path, *, rank: int = 0, num_processes: int = 1) -> None:
        self.folder = Path(folder)
        self.path = self.folder / (f"log.{rank}.jsonl" if num_processes > 1 else "log.jsonl")

    def header(self) -> dict[str, Any]:
        """What the first line says of the run; nothing when there is no log."""
        for path in self._paths():
            for row in whole_rows(path):
                if "run" in row:
                    return row["run"]
        return {}

    def rows(self) -> dict[str, Row]:
        """Rows of all processes by id, in the order of the files; of two with one id the first.

        Raises:
            DataError: a line in the middle of a file is no row.
        """
        found: dict[str, Row] = {}
        for path in self._paths():
            for row in whole_rows(path):
                if "run" not in row:
                    found.setdefault(row["id"], row)
        return found

    @contextmanager
    def appending(self, header: Mapping[str, Any]) -> Iterator["Appender"]:
        """Opens this process's log for appending; a row that a kill cut off is removed first.

        Raises:
            DataError: another process writes to it.
        """
        with appending(self.path) as appender:
            if not self.path.stat().st_size:
                appender.add([{"run": dict(header)}])
            yield appender

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("log*.jsonl"))


class Appender:
    """Writes rows so that they are on disk when `add` returns."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows."""
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def appending(path: Path, *, wait: bool = False) -> Iterator[Appender]:
    """Opens a file of rows for one process alone; a row that a kill cut off is removed first.

    Args:
        path: the file; made if it is not there.
        wait: until another process has done with it.

    Raises:
        DataError: another process writes to it, and `wait` is off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors=LONE) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{path}: another run is writing to it; wait for it, or set out=DIR") from error
        os.truncate(path, _whole_bytes(path))
        yield Appender(file)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content.encode(errors=LONE) if isinstance(content, str) else content)
    beside.replace(path)


def _whole_bytes(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def whole_rows(path: Path) -> Iterator[Row]:
    """Rows and headers of a file, without a last row that is not whole.

    Raises:
        DataError: a line is neither.
    """
    data = path.read_bytes()[: _whole_bytes(path)]
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not ({"run", "id"} & set(row)):
                raise ValueError("neither a header nor a row")
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: no row of a run ({error}); set out=DIR to another folder"
            ) from error
        yield row
