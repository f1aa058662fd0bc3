"""The log of a run: append-only JSON lines, a header and a row per sample; what a kill cut off is dropped."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avllm.durable import Appender, appending, whole_lines
from avllm.errors import DataError
from avllm.evaluation.logged import check_header, check_row

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
        self.folder, self.rank, self.num_processes = Path(folder), rank, num_processes
        self.path = self.folder / (f"log.{rank}.jsonl" if num_processes > 1 else "log.jsonl")

    def header(self) -> dict[str, Any]:
        """What the first line says of the run; nothing when there is no log."""
        for path in self._paths():
            for row in whole_rows(path):
                if "run" in row:
                    check_header(row["run"], f"{path}: run")
                    return row["run"]
        return {}

    def rows(self) -> dict[str, Row]:
        """Rows of all processes by id, in the order of the files; of two with one id the first.

        Raises:
            DataError: a line in the middle of a file is no row, or holds something of another kind.
        """
        found: dict[str, Row] = {}
        for path in self._paths():
            for row in whole_rows(path):
                if "run" not in row:
                    check_row(row, str(path))
                    found.setdefault(row["id"], row)
        return found

    @contextmanager
    def appending(self, header: Mapping[str, Any]) -> Iterator[Appender]:
        """Opens this process's log for appending; a row that a kill cut off is removed first.

        Raises:
            InUse: another process writes to it.
        """
        with appending(self.path) as appender:
            if not self.path.stat().st_size:
                appender.add([{"run": dict(header)}])
            yield appender

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("log*.jsonl"))


def whole_rows(path: Path, keys: Collection[str] = ("id",)) -> Iterator[Row]:
    """Rows and headers of a file, without a last row that is not whole.

    Args:
        path: of the file.
        keys: that every row has.

    Raises:
        DataError: a line is neither.
    """
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not (isinstance(row.get("run"), dict) or set(keys) <= set(row)):
                raise ValueError("neither a header nor a row")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: no row of a run ({error}); set out=DIR to another folder"
            ) from error
        yield row
