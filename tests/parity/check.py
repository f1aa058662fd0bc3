"""Collects the rows of an adapter that compares many small things."""

from typing import Any

import torch

from tests.parity.common import Row, Tolerance, compare


class Check:
    """Rows in the order of the comparisons."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def close(self, name: str, ours: Any, theirs: Any, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Tensors or arrays within a tolerance."""
        self.rows.append(compare(name, torch.as_tensor(ours), torch.as_tensor(theirs), Tolerance(rtol, atol)))

    def same(self, name: str, ours: Any, theirs: Any) -> None:
        """Anything that must be equal: ids, texts, counts, tensors."""
        if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
            self.rows.append(compare(name, ours, theirs, Tolerance(0.0, 0.0)))
            return
        is_equal = type(ours) is type(theirs) and ours == theirs
        note = "" if is_equal else f"got {_short(ours)}, expected {_short(theirs)}"
        self.rows.append(Row(name, None, "exact", is_equal, note))

    def skip(self, name: str, reason: str) -> None:
        """Something that the case holds and that is not compared."""
        self.rows.append(Row(name, None, "", True, f"not covered: {reason}"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
