import itertools
from collections import Counter

import numpy as np
import pytest

from avllm.nano.world import (
    COLOURS,
    HELD_OUT,
    MOTIONS,
    THINGS,
    Scene,
    Sound,
    Thing,
    is_held_out,
    nearest_colour,
    scene_rng,
)
from avllm.nano.world_sampling import random_rgb, sample_scene


def scenes(split, num=400, **options):
    return [sample_scene(scene_rng("test", 0, index), split=split, **options) for index in range(num)]


def test_the_same_seed_draws_the_same_scene_and_another_purpose_another():
    assert sample_scene(scene_rng("score", 3, 7)) == sample_scene(scene_rng("score", 3, 7))
    assert sample_scene(scene_rng("score", 3, 7)) != sample_scene(scene_rng("train", 3, 7))


def test_a_held_out_pair_is_never_drawn_for_training_and_always_for_the_held_out_split():
    assert not any(scene.shows_held_out for scene in scenes("train", 1000))
    assert all(scene.shows_held_out for scene in scenes("held_out") if scene.things)
    assert all(scene.shows_held_out for scene in scenes("held_out", num_things=2))
    assert any(scene.shows_held_out for scene in scenes("any", 1000))


def test_each_thing_and_each_colour_is_held_out_at_most_once():
    things, colours = zip(*HELD_OUT, strict=True)
    assert len(set(things)) == len(set(colours)) == len(HELD_OUT) == 4


def test_unnamed_colours_stay_away_from_the_colours_held_out_for_the_thing():
    rng = np.random.default_rng(0)
    for thing, colour in HELD_OUT:
        assert colour not in {nearest_colour(random_rgb(rng, thing)) for _ in range(200)}


def test_a_colour_keeps_its_name_at_every_brightness():
    for name, rgb in COLOURS.items():
        assert {nearest_colour(np.array(rgb) * level) for level in (0.5, 0.75, 1.0)} == {name}


def test_all_things_colours_and_motions_come_up():
    drawn = scenes("train", 600)
    assert {thing.name for scene in drawn for thing in scene.things} == set(THINGS)
    assert {thing.colour for scene in drawn for thing in scene.things} == set(COLOURS)
    assert {scene.things[0].motion for scene in drawn if len(scene.things) == 1} == set(MOTIONS)
    assert set(Counter(len(scene.sounds) for scene in drawn)) == {0, 1, 2, 3}


def test_sounds_differ_lie_inside_the_clip_and_keep_their_distance():
    for scene in scenes("any", 600):
        assert len(set(scene.sound_names)) == len(scene.sounds)
        for sound in scene.sounds:
            assert 1.0 <= sound.seconds <= 1.3
            assert 0 <= sound.start_s <= scene.duration_s - sound.seconds
        for before, after in itertools.pairwise(scene.sounds):
            assert after.start_s - before.start_s - before.seconds >= 0.2


def test_two_things_differ_stand_apart_and_come_one_after_the_other():
    for scene in scenes("train", num_things=2):
        first, second = scene.things
        assert first.name != second.name
        assert {first.motion, second.motion} == {"still"}
        assert (first.x < 0.5) != (second.x < 0.5)
        assert 0.3 * scene.duration_s < second.appears_s < 0.7 * scene.duration_s
        assert first.leaves_s >= second.appears_s


def test_match_is_decided_by_one_thing_and_one_sound_alone():
    assert all(scene.matches for scene in scenes("train", 50, match=True))
    assert not any(scene.matches for scene in scenes("train", 50, match=False))
    drum, bell = Thing(name="drum", colour="red", rgb=(255, 0, 0)), Sound(name="bell", start_s=0.1)
    assert Scene(things=(drum,), sounds=(bell, Sound(name="drum", start_s=2.0))).matches is None
    assert Scene(things=(drum,)).matches is None


def test_a_held_out_pair_asked_of_the_training_split_is_an_error():
    assert is_held_out("drum", "blue")
    with pytest.raises(ValueError, match="a blue drum is held out of training"):
        sample_scene(scene_rng("test", 0), split="train", num_things=1, thing="drum", colour="blue")
