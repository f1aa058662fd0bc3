import re
from itertools import pairwise

import numpy as np
import pytest

from avllm.nano.grammar import ALWAYS, GRAMMAR, draw_wording, expand, is_test, patterns, wordings
from avllm.nano.language import Facts, answers, ask, draw_questions, in_order, random_facts
from avllm.nano.world import Scene, Sound, Thing, is_held_out

DRUM = Thing(name="drum", colour="red", rgb=(228, 30, 38), motion="left")
BELL = Thing(name="bell", colour="blue", rgb=(45, 80, 250), appears_s=2.0)


def sounds(*names: str) -> tuple[Sound, ...]:
    return tuple(Sound(name=name, start_s=1.2 * i) for i, name in enumerate(names))


def test_expands_nested_alternatives():
    assert set(expand("(a|b (c|d)) e")) == {"a e", "b c e", "b d e"}


@pytest.mark.parametrize("kind", GRAMMAR)
def test_every_kind_keeps_some_wordings_for_testing_and_shares_none(kind):
    train, test = set(wordings(kind)), set(wordings(kind, "test"))

    assert train
    assert test
    assert not train & test
    assert not test & ALWAYS


_SUBJECT = r"(it|you|this|that|there|(the|this) (?!order)[{}\w]+)"
NOT_ENGLISH = (
    rf"\b(do|does|did|can) {_SUBJECT} (\w+ing|is|has|moves|goes|shown|heard)\b",  # what does it moving
    rf"\b(is|are|was) {_SUBJECT} (move|go|do|appear|come|have)\b",  # what is it do
    r"\b(has|can) (it|(the|this) [{}\w]+)( have)?$",  # what colour has it
    # tell me what is it
    rf"\b(tell me|say) (in )?(what|which|how|where)\b.* (do|does|did|is|are|was|can) {_SUBJECT}\b(?! first)",
    r"\bis the (sounds|noises)\b|\b(sounds|noises) is (it|this)\b",  # what is the sounds
)


@pytest.mark.parametrize("kind", GRAMMAR)
def test_wordings_are_english(kind):
    wrong = [text for text in wordings(kind, "any") for rule in NOT_ENGLISH if re.search(rule, text)]

    assert not wrong


def test_a_way_to_ask_comes_as_often_as_one_with_more_wordings():
    rng = np.random.default_rng(0)
    ways = patterns("motion")
    drawn = [draw_wording("motion", "train", rng) for _ in range(1400)]
    shares = [sum(text in set(way) for text in drawn) / len(drawn) for way in ways]

    assert shares == pytest.approx([1 / len(ways)] * len(ways), abs=0.04)
    assert not any(is_test(text) for text in drawn)


def test_what_people_type_first_is_trained_on():
    everything = {text for kind in GRAMMAR for text in wordings(kind)}

    assert everything >= ALWAYS
    assert not any(is_test(text) for text in ALWAYS)


def test_answers_about_one_thing_and_two_sounds():
    found = answers(Facts.of(Scene(things=(DRUM,), sounds=sounds("car", "bird"))))

    assert found["caption"] == "a red drum moving left"
    assert found["hearing"] == found["sound_order"] == "first a car, then a bird"
    assert found["joint"] == "a red drum moving left, with the sound of a car, then a bird"
    assert (found["count"], found["sound_count"], found["what_moves"]) == ("one", "two", "the drum")
    assert not {"match", "second"} & set(found)


def test_answers_about_two_things_in_silence():
    found = answers(Facts.of(Scene(things=(DRUM, BELL))))

    assert found["caption"] == "first a red drum, then a blue bell"
    assert (found["first"], found["second"], found["silence"]) == ("the drum", "the bell", "yes")
    assert found["joint"] == "first a red drum, then a blue bell, in silence"


def test_match_is_asked_of_one_thing_and_one_sound():
    assert answers(Facts.of(Scene(things=(DRUM,), sounds=sounds("drum"))))["match"] == "yes"
    assert answers(Facts.of(Scene(things=(DRUM,), sounds=sounds("bell"))))["match"] == "no"


def test_says_which_stream_is_not_there():
    facts = Facts.of(Scene(things=(DRUM,)), has_audio=False)

    assert answers(facts)["hearing"] == "there is no sound track"
    assert answers(facts)["joint"] == "a red drum moving left"


def test_colours_without_a_name_are_never_asked_for():
    thing = Thing(name="drum", colour=None, rgb=(120, 120, 120))
    found = answers(Facts.of(Scene(things=(thing,))))

    assert not {"caption", "colour", "joint"} & set(found)


def test_yes_and_no_are_balanced_and_true():
    rng = np.random.default_rng(0)
    facts = Facts.of(Scene(things=(DRUM, BELL), sounds=sounds("car")))

    asked = [ask(facts, kind, rng) for kind in ("sees", "hears") for _ in range(300)]
    said = [question for question in asked if question]

    assert 0.42 < np.mean([question.answer == "yes" for question in said]) < 0.58
    for question in said:
        words = question.text.lower().strip("?.").split()
        if question.answer == "yes":
            assert {"drum", "bell", "car"} & set(words)


def test_training_never_names_a_held_out_pair():
    rng = np.random.default_rng(0)
    for _ in range(400):
        facts = random_facts(rng)
        assert not any(is_held_out(name, colour) for colour, name, _ in facts.things or ())
        for question in draw_questions(facts, rng, 4):
            words = question.text.lower().strip("?.").split() + question.answer.split()
            assert not any(is_held_out(b, a) for a, b in pairwise(words))


def test_facts_stand_left_aligned_in_a_fixed_order():
    facts = Facts.of(Scene(things=(DRUM, BELL), sounds=sounds("car")))

    assert facts.video_words() == ["two", "red", "drum", "blue", "bell", "red drum", "blue bell"]
    assert facts.audio_words() == ["one", "car", "none", "none"]


def test_in_order():
    assert in_order([]) == ""
    assert in_order(["a", "b", "c"]) == "first a, then b, then c"


def test_hard_questions_name_what_is_nearly_there():
    facts = Facts.of(Scene(things=(DRUM,), sounds=sounds("car", "drum", "bird")))
    rng = np.random.default_rng(0)
    named = {kind: set() for kind in ("sees", "hears")}
    for _ in range(200):
        for kind in named:
            question = ask(facts, kind, rng, wording="bare", hard=1.0)
            if question and question.answer == "no":
                named[kind].add(question.text.lower().strip("?.").split(" ", 1)[1])

    assert named["sees"] >= {"car", "bird", "green drum"}
    assert {name.split()[-1] for name in named["sees"]} == {"car", "bird", "drum"}
    assert not named["sees"] & {"drum", "red drum", "blue drum"}  # there, and held out
    assert not named["hears"]  # the only thing seen is heard
