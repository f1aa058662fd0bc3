"""Rows of text of several lengths, laid into lines of one length so that little of a batch is padding."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], width: int) -> tuple[list[int], list[int], int]:
    """Lays rows of several lengths one behind another into lines of `width` places.

    Returns:
        the line and the first place in it of each row, and the number of lines.
    """
    lines, starts, filled = [0] * len(lengths), [0] * len(lengths), list[int]()
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        lines[row] = next((i for i, used in enumerate(filled) if used + lengths[row] <= width), len(filled))
        filled += [0] * (lines[row] == len(filled))
        starts[row] = filled[lines[row]]
        filled[lines[row]] += lengths[row]
    return lines, starts, len(filled)
