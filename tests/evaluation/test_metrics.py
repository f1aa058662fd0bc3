import numpy as np
import pytest

from avllm.evaluation.metrics import Mean, Paired, normalise_vqa, says, vqa_accuracy, yes_or_no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Red Car.", "red car"), ("it's  a dog!", "it 's dog"), ("dont know", "don't know"), ("1,000", "1000"),
        ("3.5", "3.5"), ("U.S.A", "usa"), ("none", "0"), ("black/white", "black white"), ("a - b", "b"),
        ("couldnt've", "couldn't've"), ("couldn'tve", "couldn't've"),
    ],
)  # fmt: skip
def test_answers_are_tidied_as_vqa_does(text, expected):
    assert normalise_vqa(text) == expected


def test_three_of_the_others_make_an_answer_fully_right():
    truths = ["red"] * 3 + ["blue"] * 7
    assert vqa_accuracy("red", truths) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("blue", truths) == 1.0
    assert vqa_accuracy("green", truths) == 0.0
    assert vqa_accuracy("Red!", ["red"]) == 1.0


def test_a_truth_counts_as_whole_words_only():
    assert says("It is a dog.", "dog")
    assert not says("dogma", "dog")
    assert not says("anything", "")


def test_no_is_found_as_a_word_of_the_first_sentence():
    assert [yes_or_no(text) for text in ("No", "It is not there. Yes", "Nothing. no", "Yes.")] == [
        "no", "no", "yes", "yes",
    ]  # fmt: skip


def test_the_interval_covers_the_mean_and_does_not_depend_on_order():
    scores = np.random.default_rng(1).random(200).round(2).tolist()
    found = Mean.of(scores)
    assert found == Mean.of(scores[::-1])
    assert found.mean == pytest.approx(np.mean(scores), abs=1e-6)
    half = 1.96 * np.std(scores) / 200**0.5
    assert found.low == pytest.approx(found.mean - half, abs=0.01)
    assert found.high == pytest.approx(found.mean + half, abs=0.01)
    assert Mean.of([]).to_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_equal_scores_have_wilsons_interval():
    assert Mean.of([1.0] * 20).low == pytest.approx(0.8389, abs=1e-4)
    assert Mean.of([0.0] * 20).high == pytest.approx(1 - 0.8389, abs=1e-4)
    assert Mean.of([0.5, 0.5]).low == 0.5


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = [found.low <= 0.7 <= found.high for found in (Mean.of((rng.random(80) < 0.7).tolist()) for _ in range(60))]
    assert 0.85 <= np.mean(hits) <= 1.0


def test_a_paired_test_sees_a_small_steady_gain_and_no_gain_in_noise():
    rng = np.random.default_rng(0)
    first = (rng.random(300) < 0.5).astype(float)
    better = np.maximum(first, (rng.random(300) < 0.1).astype(float))
    found = Paired.of(better.tolist(), first.tolist())
    assert found.p < 0.01
    assert found.low > 0
    assert found.only_second == 0
    same = Paired.of(first.tolist(), first.tolist())
    assert (same.difference, same.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="the same samples"):
        Paired.of([1.0], [1.0, 0.0])
