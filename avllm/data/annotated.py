"""What the readers of one annotation file share: its entries, each looked at once before anything is trained."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from avllm.data.annotations import Entry, read_entries
from avllm.data.records import Record


class Annotated(ABC):
    """Entries of a JSON or JSONL file as records.

    Args:
        path: the file.

    Raises:
        DataError: no such file, or no entries in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._entries: list[Entry] = read_entries(self.path)

    def checked(self) -> Self:
        """Itself, when every entry is right.

        Raises:
            DataError: an entry that `record` refuses; file, line or index, and key are named.
        """
        for index in range(len(self)):
            self.record(index, 0)
        return self

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, index: int) -> tuple[Any, str]:
        """The plain data of an entry, and the file and line or index that name it."""
        return self._entries[index]

    @abstractmethod
    def record(self, index: int, seed: int) -> Record:
        """See `avllm.data.Source`."""
