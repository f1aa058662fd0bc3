"""Placeholders of the published code (negative ids, one for a medium) to our slots (one for every token)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from avllm.model.tokens import IGNORED


def with_slots(
    ids: Tensor, mask: Tensor, labels: Tensor, slots: Sequence[Sequence[int]], placeholders: Collection[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels [b l], padded on the right as the rows were.

    Args:
        ids: with placeholders.
        mask: False at padding.
        labels: not shifted.
        slots: of each row, the slot ids that take the place of its placeholder.
        placeholders: their ids.
    """
    rows = []
    for row_ids, row_mask, row_labels, own in zip(ids.tolist(), mask.tolist(), labels.tolist(), slots, strict=True):
        row: list[tuple[int, bool, int]] = []
        for token, is_real, label in zip(row_ids, row_mask, row_labels, strict=True):
            row += [(slot, True, IGNORED) for slot in own] if token in placeholders else [(token, is_real, label)]
        rows.append(row)
    longest = max(map(len, rows))
    full = torch.tensor([row + [(0, False, IGNORED)] * (longest - len(row)) for row in rows])
    return full[..., 0], full[..., 1].bool(), full[..., 2]
