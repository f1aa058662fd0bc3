"""Millions of short texts in two arrays: a list would take several times the memory, in every reader process."""

from collections.abc import Iterable

import numpy as np


class PackedTexts:
    """Texts by number.

    Args:
        texts: taken one by one, so a generator over a large file works.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        blob, ends = bytearray(), [0]
        for text in texts:
            blob += text.encode("utf-8")
            ends.append(len(blob))
        self._blob = np.frombuffer(bytes(blob), dtype=np.uint8)
        self._ends = np.asarray(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._blob[self._ends[index] : self._ends[index + 1]].tobytes().decode("utf-8")
