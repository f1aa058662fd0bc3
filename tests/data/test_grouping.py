from collections import Counter
from itertools import chain

import pytest
import torch

from avllm.data.grouping import MEDIUM_TOKENS, WINDOW, Outlines, outline
from avllm.data.mixture import Order
from avllm.data.records import Medium, Record, Turn
from avllm.errors import MediaError


class _Source:
    """Text alone, pictures or videos; answers of 1 to 40 words."""

    def __init__(self, size, shift=0):
        self.size, self.shift = size, shift

    def __len__(self):
        return self.size

    def record(self, index, seed):
        kind = (None, "image", "video")[(index + self.shift) % 3]
        media = () if kind is None else (Medium(kind=kind, source="x"),)
        turns = (Turn(role="user", text="a", media=media), Turn(role="assistant", text="b " * (1 + index * 7 % 40)))
        return Record(id=str(index), turns=turns)


SOURCES = [_Source(500), _Source(220, shift=1)]
SIZES = [len(source) for source in SOURCES]
OUTLINES = Outlines(SOURCES)


def _order(outlines=OUTLINES, **changes):
    settings = {"num_batches": 130, "batch": 4, "seed": 1, "mix": "sample", **changes}
    return Order(SIZES, [2.0, 1.0], outlines=outlines, **settings)


def _kinds(batch):
    return {OUTLINES.of(draw.source, draw.index)[0] for draw in batch}


def _padding(batches):
    lengths = [[OUTLINES.of(draw.source, draw.index)[1] for draw in batch] for batch in batches]
    return sum(max(row) * len(row) - sum(row) for row in lengths)


def test_outline_counts_words_and_media():
    clip = Medium(kind="video", source="x")
    turns = (Turn(role="user", text="what is it", media=(clip, clip)), Turn(role="assistant", text="a dog"))

    assert outline(Record(id="a", turns=turns)) == (("video",), 5 + 2 * MEDIUM_TOKENS)
    ids = torch.tensor([1, 2, 3])
    assert outline(Record(id="b", input_ids=ids, labels=ids, features={"audio": ids})) == (("audio",), 3)


def test_batches_hold_one_kind_of_media_and_little_padding():
    plain, grouped = list(_order(outlines=None)), list(_order())

    assert sum(len(_kinds(batch)) == 1 for batch in grouped) > 0.9 * len(grouped)
    assert sum(len(_kinds(batch)) == 1 for batch in plain) < 0.3 * len(plain)
    assert _padding(grouped) < 0.25 * _padding(plain)


@pytest.mark.parametrize("mix", ["sample", "batch"])
def test_the_same_samples_come_up_as_without_grouping(mix):
    plain, grouped = list(_order(outlines=None, mix=mix)), list(_order(mix=mix))

    for start in range(0, 130, WINDOW):
        windows = [[*chain(*batches[start : start + WINDOW])] for batches in (plain, grouped)]
        assert Counter(windows[0]) == Counter(windows[1])
    assert {len(batch) for batch in grouped} == {4}
    assert mix == "sample" or all(len({draw.source for draw in batch}) == 1 for batch in grouped)


@pytest.mark.parametrize("start", [1, 49, 50, 77, 129, 130])
def test_joins_at_any_batch(start):
    joined = _order()
    joined.start = start

    assert list(joined) == list(_order())[start:]


def test_two_processes_share_the_batches_of_one_with_twice_the_batch():
    two = [list(_order(batch=2, rank=rank, world=2)) for rank in range(2)]

    assert [a + b for a, b in zip(*two, strict=True)] == list(_order())


def test_short_and_long_come_in_no_order():
    longest = [max(OUTLINES.of(draw.source, draw.index)[1] for draw in batch) for batch in _order()]

    assert longest != sorted(longest)
    assert list(_order(seed=2)) != list(_order())


def test_a_record_that_cannot_be_read_keeps_its_place():
    class Broken(_Source):
        def record(self, index, seed):
            raise MediaError("gone")

    assert Outlines([Broken(1)]).of(0, 0)[1] == 0
