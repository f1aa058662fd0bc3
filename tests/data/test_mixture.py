from collections import Counter
from dataclasses import replace

import pytest
import torch

from avllm.data.collate import Collate, Sample
from avllm.data.mixture import Mixture, Order, Unreadable
from avllm.data.records import Record
from avllm.errors import DataError, MediaError


def _order(**changes):
    return Order(**{"sizes": [10, 4], "ratios": [3.0, 1.0], "num_batches": 40, "batch": 5, "seed": 1, **changes})


def test_joins_at_any_batch():
    whole, joined = list(_order()), _order()
    joined.start = 17

    assert list(joined) == whole[17:]
    assert len(joined) == 40


def test_a_batch_comes_from_one_dataset_by_ratio():
    batches = list(_order(num_batches=400))

    assert all(len({draw.source for draw in batch}) == 1 for batch in batches)
    share = sum(batch[0].source == 0 for batch in batches) / 400
    assert share == pytest.approx(0.75, abs=0.06)


def test_samples_mix_within_a_batch_when_asked():
    counts = Counter(draw.source for batch in _order(mix="sample", num_batches=200) for draw in batch)

    assert counts[0] / 1000 == pytest.approx(0.75, abs=0.05)


def test_every_record_comes_once_per_pass_in_a_new_order_and_with_a_new_seed():
    draws = [draw for batch in _order(sizes=[10], ratios=[1.0], num_batches=4) for draw in batch]
    first, second = draws[:10], draws[10:]

    assert sorted(d.index for d in first) == sorted(d.index for d in second) == list(range(10))
    assert [d.index for d in first] != [d.index for d in second]
    assert len({d.seed for d in draws}) == 20


def test_two_processes_share_the_batches_of_one_with_twice_the_batch():
    one = list(_order(batch=6))
    two = [list(_order(batch=3, rank=rank, world=2)) for rank in range(2)]

    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_another_seed_is_another_order():
    assert list(_order()) != list(_order(seed=2))


def test_an_empty_dataset_is_named():
    with pytest.raises(DataError, match=r"data\.1: the dataset is empty"):
        _order(sizes=[3, 0])


class _Source:
    def __len__(self):
        return 3

    def record(self, index, seed):
        if index == 1:
            raise MediaError("b.mp4: truncated")
        return Record(id=f"r{index}", input_ids=torch.tensor([1]), labels=torch.tensor([1]))


def _prepare(record, seed):
    if record.id == "r2":
        raise MediaError("c.mp4: no frames")
    raise DataError(f"{record.id}: wrong")


def test_a_medium_that_fails_is_told_and_other_faults_are_raised():
    mixture = Mixture([_Source()], _prepare)
    draws = next(iter(Order([3], [1.0], num_batches=1, batch=3, seed=0)))

    items = {draw.index: draw for draw in draws}
    assert mixture[items[1]] == Unreadable("dataset 0, record 1", "b.mp4: truncated")
    assert mixture[items[2]] == Unreadable("r2", "c.mp4: no frames")
    with pytest.raises(DataError, match="r0: wrong"):
        mixture[items[0]]


def _sample(name, ids, **media):
    ids = torch.tensor(ids)
    return Sample(id=name, input_ids=ids, labels=ids * 10, **media)


def test_collate_pads_on_the_right_and_keeps_media_in_batch_order():
    a = _sample("a", [1, 2, 3], features={"video": [torch.full((2, 1, 4), 1.0)]})
    b = _sample("b", [4], features={"video": [torch.full((2, 1, 4), 2.0), torch.full((2, 1, 4), 3.0)]})

    batch = Collate(pad_id=9)([a, b])

    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[10, 20, 30], [40, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["features"]["video"][:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert batch["ids"] == ["a", "b"]
    assert "media" not in batch


def test_collate_keeps_media_of_several_lengths_as_a_list():
    a = _sample("a", [1], media={"video": [torch.zeros(8, 3, 2, 2)]})
    b = _sample("b", [1], media={"video": [torch.zeros(1, 3, 2, 2)]})

    assert [len(clip) for clip in Collate()([a, b])["media"]["video"]] == [8, 1]


def test_ids_that_do_not_count_stand_beside_their_labels():
    a = replace(_sample("a", [1, 2]), uncounted=torch.tensor([-100, 7]))
    b = _sample("b", [1, 2, 3])

    assert Collate()([b, a])["uncounted"].tolist() == [[-100] * 3, [-100, 7, -100]]
    assert "uncounted" not in Collate()([b])


def test_collate_leaves_out_the_unreadable():
    bad = Unreadable("c", "broken")

    assert Collate()([bad, _sample("a", [1])])["ids"] == ["a"]
    assert Collate()([bad]) == {"ids": [], "unreadable": [bad]}
