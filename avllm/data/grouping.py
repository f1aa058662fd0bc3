"""Batches of one kind of media and of similar length: little of them is padding, and processes finish together."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from avllm.data.records import Record, Source
from avllm.errors import AvllmError, ConfigError, DataError, attempted

# Batches that are arranged together. More are alike more closely, and nearer to a sorted order; 50 is usual.
WINDOW = 50
MEDIUM_TOKENS = 128  # of a medium beside the words, as published: it only has to tell two media from one


class Outlines:
    """What kinds of media each sample holds, and how long it is, from the annotations alone.

    Source: the published training of LLaVA and Video-LLaVA ("group_by_modality_length"): words of the text, 128 for a
    picture; a batch holds media or none. Here it holds the same kinds of media, over a window of batches.

    Args:
        sources: the datasets; every record is read once.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._kinds: dict[tuple[str, ...], int] = {}
        self._rows = [self._read(source) for source in sources]

    def of(self, source: int, index: int) -> tuple[int, int]:
        """Number of the kinds of media of a sample, and its length."""
        kind, length = self._rows[source][index]
        return int(kind), int(length)

    def _read(self, source: Source) -> np.ndarray:
        rows = np.empty((len(source), 2), dtype=np.int32)
        for index in range(len(source)):
            found = attempted(lambda: outline(source.record(index, 0)))  # noqa: B023  (called at once)
            if isinstance(found, DataError | ConfigError):
                raise found
            kinds, length = (
                ((), 0) if isinstance(found, AvllmError) else found
            )  # what is wrong is told when it comes up
            rows[index] = self._kinds.setdefault(kinds, len(self._kinds)), length
        return rows


def outline(record: Record) -> tuple[tuple[str, ...], int]:
    """Kinds of media of a record, in order of their names, and its length in words or ids."""
    kinds = {medium.kind for turn in record.turns for medium in turn.media} | set(record.features)
    if record.input_ids is not None:
        return tuple(sorted(kinds)), len(record.input_ids)
    length = sum(len(turn.text.split()) + MEDIUM_TOKENS * len(turn.media) for turn in record.turns)
    return tuple(sorted(kinds)), length


def grouped(
    draws: Sequence[Any], outlines: Outlines, *, batch: int, one_source: bool, rng: np.random.Generator
) -> list[list[Any]]:
    """Arranges draws into batches of one kind each; what is left over of several kinds makes mixed ones.

    Args:
        draws: `avllm.data.mixture.Draw`s; as many as fill whole batches, of each source where `one_source` is set.
        outlines: of the sources.
        batch: samples of a batch.
        one_source: whether a batch may hold samples of one source alone.
        rng: draws the order of the batches.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for position, draw in enumerate(draws):
        kind, length = outlines.of(draw.source, draw.index)
        groups[draw.source if one_source else 0, kind].append((length, position))
    batches: list[list[int]] = []
    left: dict[int, list[int]] = defaultdict(list)
    for (source, _), members in sorted(groups.items()):
        order = [position for _, position in sorted(members)]
        whole = len(order) - len(order) % batch
        batches += [order[start : start + batch] for start in range(0, whole, batch)]
        left[source] += order[whole:]
    for order in left.values():
        batches += [order[start : start + batch] for start in range(0, len(order), batch)]
    return [[draws[position] for position in batches[number]] for number in rng.permutation(len(batches))]
