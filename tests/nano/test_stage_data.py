import numpy as np
import pytest
import torch

from avllm.nano.language import Facts
from avllm.nano.stage_data import BLANK, IGNORED, AudioSource, cover, fresh_sounds, names_two, never_shown
from avllm.nano.tokenizer import ids_of, word_id
from avllm.nano.world import THINGS, Sound


@pytest.fixture
def source() -> AudioSource:
    """One without a system: the picture of each thing is an axis of its own."""
    made = AudioSource.__new__(AudioSource)
    made.vectors = list(torch.eye(len(THINGS) + 1, 32)[:, None])
    made.num_segments, made.segment_seconds = 10, 0.5
    return made


def test_the_share_of_a_segment_that_a_sound_fills():
    shares = cover(np.array([0.0, 0.5, 1.0, 2.0]), 0.5, Sound(name="bell", start_s=0.4, seconds=0.85))

    assert shares == pytest.approx([0.2, 1.0, 0.5, 0.0])


def test_segments_show_what_sounds_and_never_a_third_thing(source):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sounds, duration_s = fresh_sounds(rng)
        segments = source.segments(rng, sounds, duration_s)[:, 0]
        starts = np.linspace(0, duration_s - 0.5, 10)
        covers = [cover(starts, 0.5, sound) for sound in sounds]

        assert segments.shape == (10, 32)
        assert segments.norm(dim=-1) == pytest.approx(torch.ones(10))
        for segment, shares in zip(segments[:, : len(THINGS) + 1].argmax(-1), np.array(covers).T, strict=False):
            touched = [THINGS.index(s.name) for s, share in zip(sounds, shares, strict=True) if share]
            assert int(segment) in (touched if max(shares, default=0) > 0.999 else [*touched, BLANK])


def test_colours_of_two_things_can_be_asked_where_one_has_a_name():
    red, plain = ("red", "bell", "still"), (None, "drum", "still")

    assert names_two(Facts(things=(red, plain), sounds=None))
    assert not names_two(Facts(things=(plain, (None, "car", "still")), sounds=None))
    assert not names_two(Facts(things=(red,), sounds=None))
    assert not names_two(Facts(things=None, sounds=()))


@pytest.mark.parametrize(
    ("answer", "uncounted"),
    [
        ("first a red car, then a red ghost", ["pink", "yellow"]),  # red is never missing: a car is never pink
        ("first a red car, then a blue bird", ["pink", "drum"]),
        ("red", ["pink"]),  # the colour alone, of the first thing that has it
        ("the bird", ["drum"]),
        ("yes", []),
    ],
)
def test_what_training_never_shows_is_not_counted_as_wrong(answer, uncounted):
    second = "ghost" if "ghost" in answer else "bird"
    things = (("red", "car", "still"), ("red" if second == "ghost" else "blue", second, "still"))
    labels = torch.tensor([IGNORED, *ids_of(f" {answer}"), IGNORED])

    found = never_shown(labels, Facts(things=things, sounds=None))

    assert found[found != IGNORED].tolist() == [word_id(word) for word in uncounted]


def test_a_segment_where_two_sharp_sounds_meet_is_read_as_one_of_them(source, monkeypatch):
    monkeypatch.setattr("avllm.nano.stage_data.SHARP_SHARE", 1.0)
    sounds = (Sound(name="bell", start_s=0.0, seconds=2.2), Sound(name="drum", start_s=2.3, seconds=2.2))
    for seed in range(20):
        said = source.segments(np.random.default_rng(seed), sounds, 4.6)[:, 0, : len(THINGS) + 1]

        assert said.max(-1).values.min() > 0.9


def test_both_edges_of_a_sound_are_read_in_their_own_way(source, monkeypatch):
    monkeypatch.setattr("avllm.nano.stage_data.SHARP_SHARE", 1.0)
    sound = Sound(name="bell", start_s=0.9, seconds=1.2)  # at 0.5 s and 2.0 s segments of 0.2 of it
    read = set()
    for seed in range(80):
        said = source.segments(np.random.default_rng(seed), (sound,), 5.0)[:, 0].argmax(-1)
        read.add((int(said[1]) == BLANK, int(said[4]) == BLANK))

    assert read == {(False, False), (False, True), (True, False), (True, True)}
