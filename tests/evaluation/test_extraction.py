import pytest

from avllm.evaluation.extraction import PUBLISHED, ChoiceRule, first_words_agree, scienceqa_letter
from avllm.evaluation.scoring import MultipleChoice

OPTIONS = ("the red car", "two people", "a cat", "3")


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        ("A", 0), ("(B)", 1), ("b", 1), ("(c) a cat", 2), ("(D", 3), ("B.", 1), ("B: two people", 1), ("  (C)  ", 2),
        ("A) the red car", 0), ("Answer: C", 2), ("answer is b", 1), ("The best answer is: (D)", 3),
        ("The answer is A.", 0), ("The answer is a cat", 2), ("Because D", 3), ("It must be (C), a cat.", 2),
        ("the red car", 0), ("Two people are walking", 1), ("3", 3), ("A cat", 2), ("(D) because", 3),
        ("", None), ("(", None), (")", None), ("No idea", None), ("A red bus", None), ("E", None),
        ("Both A and D", None), ("I think it is (A) or (B)", None), ("A, B", None), ("A or B", None),
        ("the red car and a cat", None), ("Because", None), ("I see nothing", None), ("Absolutely", None),
    ],
)  # fmt: skip
def test_a_letter_alone_or_one_options_text_is_chosen_and_nothing_else(output, chosen):
    assert ChoiceRule().choose(output, OPTIONS) == chosen


@pytest.mark.parametrize(
    ("output", "rule", "chosen"),
    [
        ("Because D", "mvbench", 1),
        ("A red bus", "mvbench", 0),
        ("A, B", "mvbench", 2),
        ("nothing", "mvbench", 2),
        ("three", "videomme", 3),
        ("Answer: C", "videomme_scorer", 0),
        ("nothing", "videomme_scorer", None),
        ("a cat", "egoschema", 2),
    ],
)
def test_published_rules_keep_their_faults(output, rule, chosen):
    assert PUBLISHED[rule].choose(output, OPTIONS) == chosen


def test_two_options_fall_back_to_a_third_as_published():
    assert PUBLISHED["mvbench"].choose("hmm", ("yes", "no")) == 2


def test_the_longer_of_two_texts_within_each_other_is_meant():
    assert ChoiceRule().choose("I am not sure", ("sure", "not sure")) == 1
    assert ChoiceRule().choose("No.", ("yes", "no", "not sure")) == 1


@pytest.mark.parametrize("output", ["", "(", ")", "(."])
def test_nothing_is_right_only_with_the_switch(output):
    assert first_words_agree(output, "(C) z") is False
    assert first_words_agree(output.replace(".", ""), "(C) z", empty_is_right=True) is True


def test_first_words_agree_as_published():
    assert first_words_agree("(a). because", "(A) yes")
    assert not first_words_agree("(B) no", "(A) yes")


SCENES = (
    "beach",
    "bus",
    "cafe",
    "car",
    "city",
    "forest",
    "shop",
    "home",
    "library",
    "metro",
    "office",
    "park",
    "train",
)


@pytest.mark.parametrize(
    ("output", "chosen"),
    [("I hear a bus", 1), ("I", 8), ("(I) library", 8), ("I think it is (D)", 3), ("I am at home", 7), ("M", 12)],
)
def test_the_pronoun_is_no_letter(output, chosen):
    assert ChoiceRule().choose(output, SCENES) == chosen


@pytest.mark.parametrize(
    ("output", "published", "ours"),
    [
        ("D", 1.0, 1.0), ("(d)", 1.0, 1.0), ("a car", 1.0, 1.0), ("B", 0.0, 0.0),
        ("a card", 1.0, 0.0),  # within a word
        ("a bus or a car", 1.0, 0.0),  # two labels, of which one is right
        ("D. car park", 1.0, 1.0), ("It is D", 0.0, 1.0),
    ],
)  # fmt: skip
def test_labels_of_sounds_count_anywhere_as_published(output, published, ours):
    row = {"options": SCENES, "truth": 3}
    assert MultipleChoice(published="sounds").score(output, row).score == published
    assert MultipleChoice().score(output, row).score == ours


def test_scienceqa_reads_three_forms_alone():
    forms = ("B", "B. a tree", "The answer is B.", "So... The answer is B", "b", "(B)", "I say B", "")
    assert [scienceqa_letter(text) for text in forms] == ["B", "B", "B", "B", "", "", "", ""]
    row = {"options": ("a", "b"), "truth": 1}
    assert MultipleChoice(published="scienceqa").score("B. b", row).score == 1.0
    assert MultipleChoice(published="scienceqa").score("C", row).read_as == ""  # there are two options
