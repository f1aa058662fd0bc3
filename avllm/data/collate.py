"""Samples to a batch that the model takes: padded ids, labels, media or stored features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from avllm.data.mixture import Unreadable

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as tensors.

    Args:
        id: as of its record.
        input_ids: prompt and answer; slots as ids beyond the vocabulary.
        labels: the same, -100 where nothing is learned.
        uncounted: see `avllm.data.records.Record`.
        media: branch -> its media of this sample, each [t ...].
        features: branch -> stored prefixes of its media, each [t q d].
    """

    id: str
    input_ids: Int[Tensor, " l"]
    labels: Int[Tensor, " l"]
    uncounted: Int[Tensor, " l"] | None = None
    media: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    features: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Collate:
    """Pads on the right and puts the media in batch order.

    Args:
        pad_id: id that fills short rows; it is never attended to.
    """

    pad_id: int = 0

    def __call__(self, items: Sequence[Sample | Unreadable]) -> dict[str, Any]:
        """The model's inputs, with `ids` and `unreadable` beside them; these two alone when nothing was readable."""
        samples = [item for item in items if isinstance(item, Sample)]
        batch: dict[str, Any] = {
            "ids": [sample.id for sample in samples],
            "unreadable": [item for item in items if isinstance(item, Unreadable)],
        }
        if not samples:
            return batch
        lengths = torch.tensor([len(sample.input_ids) for sample in samples])
        longest = int(lengths.max())
        batch["input_ids"] = _pad([sample.input_ids for sample in samples], longest, self.pad_id)
        batch["labels"] = _pad([sample.labels for sample in samples], longest, IGNORED)
        if any(sample.uncounted is not None for sample in samples):
            none = torch.empty(0, dtype=torch.long)
            rows = [none if sample.uncounted is None else sample.uncounted for sample in samples]
            batch["uncounted"] = _pad(rows, longest, IGNORED)
        batch["attention_mask"] = (torch.arange(longest)[None, :] < lengths[:, None]).long()
        for key in ("media", "features"):
            names = {name for sample in samples for name in getattr(sample, key)}
            if names:
                batch[key] = {name: _clips(getattr(s, key).get(name, ()) for s in samples) for name in sorted(names)}
        return batch


def _pad(rows: Sequence[Tensor], length: int, value: int) -> Int[Tensor, "b l"]:
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _clips(rows) -> Tensor | list[Tensor]:
    clips = [clip for row in rows for clip in row]
    if len({clip.shape for clip in clips}) == 1:
        return torch.stack(clips)
    return clips
