import numpy as np
import pytest

from avllm.answers.words import says
from avllm.evaluation.captions import bleu, cider_d, rouge_l
from avllm.evaluation.metrics import (
    Mean,
    Paired,
    anls,
    detection,
    normalise_vqa,
    vqa_accuracy,
    yes_or_no,
)
from avllm.evaluation.scoring import Contains, YesNo

CAPTIONS = (
    "a man is playing a guitar on stage",
    "two dogs run in the park",
    "a woman",
    "the cat sat on the mat and then the cat sat on the mat",
)
REFERENCES = (
    ("a man plays the guitar on a stage", "someone is playing guitar", "a man is playing a guitar"),
    ("two dogs are running in a park", "dogs run in the green park"),
    ("a woman slices an onion in a kitchen", "a woman is cutting an onion"),
    ("the cat sat on the mat",),
)


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


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Guitar:", "guitar"), ("**guitar**", "guitar"), ("a guitar: acoustic", "guitar"), ("guitar…", "guitar"),
        ("$10", "10"), ("10%", "10"), ("(guitar)", "guitar"), ("guitar/piano", "piano"), ("guitar—acoustic", "guitar"),
        ("“Guitar”", "guitar"), ("ＧＵＩＴＡＲ！", "guitar"), ("it’s the man’s", "man"), ("a t-shirt", "T shirt"),
        ("STRASSE", "straße"), ("cafe\u0301", "café"), ("1,000 men", "1000"), ("at 5:30.", "5:30"), ("3.5 m", "3.5"),
        ("这是一把吉他。", "吉他"), ("the U.S.A.", "usa"), ("two", "2"), ("-5 °C", "-5"), ("gui\u200btar", "guitar"),
        ("<think>drum?</think>guitar", "guitar"), ("\\boxed{guitar}", "guitar"),
    ],
)  # fmt: skip
def test_a_mark_that_touches_a_word_does_not_hide_it(answer, truth):
    assert says(answer, truth)
    assert Contains().score(answer, {"accepted": [truth]}).score == 1.0


@pytest.mark.parametrize(
    ("answer", "truth"), [("3.5", "5"), ("10", "1"), ("-5", "5"), ("1,000", "1"), ("5:30", "30"), ("<think>dog", "dog")]
)
def test_a_part_of_a_number_is_no_number(answer, truth):
    assert not says(answer, truth)


def test_no_is_found_as_a_word_of_the_first_sentence():
    assert [yes_or_no(text) for text in ("No", "It is not there. Yes", "Nothing. no", "Yes.")] == [
        "no", "no", "yes", "yes",
    ]  # fmt: skip


def test_a_word_can_be_asked_for():
    scorer = YesNo(needs_a_word=True)
    answers = ("A bird.", "Yes, a bird", "There is not", "", "No", "Yes! There is no doubt.")
    said = [scorer.score(text, {"accepted": ["yes"]}).read_as for text in answers]
    assert said == ["", "yes", "no", "", "no", "yes"]
    rows = [{"answer": "A bird.", "accepted": [right]} for right in ("yes", "no")]
    rows = [{**row, "read_as": scorer.score(row["answer"], row).read_as} for row in rows]
    assert [scorer.score(row["answer"], row).score for row in rows] == [0.0, 0.0]
    assert [YesNo().score(row["answer"], row).score for row in rows] == [1.0, 0.0]
    assert scorer.measures(rows)["yes"].mean == 0.0


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


def test_captions_score_as_the_evaluation_of_coco_scores_them():
    # Figures of pycocoevalcap 1.2 for these captions.
    assert cider_d(CAPTIONS, REFERENCES) == pytest.approx([3.988518, 3.831583, 1.590517, 1.850616], abs=1e-6)
    found = [rouge_l(said, right) for said, right in zip(CAPTIONS, REFERENCES, strict=True)]
    assert found == pytest.approx([0.879808, 0.833333, 0.458647, 0.646643], abs=1e-6)
    assert rouge_l("", ["a cat"]) == rouge_l("a dog", ["the cat"]) == 0.0
    assert cider_d(["", "x"], [["a cat"], ["a dog"]]) == [0.0, 0.0]


def test_bleu_is_that_of_sacrebleu():
    found = bleu(["the cat is on the mat"] * 3, [["The cat is on the mat"]] * 3)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    some = bleu(CAPTIONS, REFERENCES)
    assert some.low < some.mean < some.high
    assert bleu(["a cat"], [["a dog"]]).n == 1


def test_near_letters_count_and_far_ones_do_not():
    assert anls("Hello World", ["hello world"]) == 1.0
    assert anls("helo", ["hello", "x"]) == pytest.approx(0.8)
    assert anls("abc", ["xyz"]) == 0.0
    assert anls("", ["x"]) == 0.0


def test_yes_is_detected_with_precision_and_recall_and_their_intervals():
    pairs = [("yes", "yes")] * 30 + [("yes", "no")] * 10 + [("no", "yes")] * 20 + [("no", "no")] * 40
    found = detection(pairs)
    assert found["precision"].mean == pytest.approx(0.75)
    assert found["recall"].mean == pytest.approx(0.6)
    assert found["F1"].mean == pytest.approx(2 * 0.75 * 0.6 / 1.35, abs=1e-6)
    assert found["yes"].mean == pytest.approx(0.4)
    # The share of yes is a plain mean, so its interval is that of a mean.
    plain = Mean.of([float(said == "yes") for said, _ in pairs])
    assert found["yes"].low == pytest.approx(plain.low, abs=0.015)
    assert found["yes"].high == pytest.approx(plain.high, abs=0.015)
    assert detection([("no", "no")])["F1"].mean == 0.0
