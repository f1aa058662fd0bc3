from dataclasses import replace

import numpy as np
import pytest

from avllm.nano.render import path, render_frames
from avllm.nano.render_shapes import integrals, shapes
from avllm.nano.world import COLOURS, THINGS, Background, Scene, Thing, nearest_colour, scene_rng
from avllm.nano.world_sampling import sample_scene

PLAIN = Scene(noise=0.0, duration_s=4.0, height=100, width=100, background=Background(corners=((0, 0, 0),) * 4))


def with_thing(**options):
    thing = Thing(**{"name": "clock", "colour": "white", "rgb": (255, 255, 255), "leaves_s": 4.0, **options})
    return replace(PLAIN, things=(thing,))


def weights(frames):
    return (frames.astype(float).max(-1) - 12).clip(0)


def centroid(frames):
    light = weights(frames)
    grid = np.arange(light.shape[-1])
    return (light.sum(1) * grid).sum(1) / light.sum((1, 2)), (light.sum(2) * grid).sum(1) / light.sum((1, 2))


@pytest.mark.parametrize("size", [48, 200])
@pytest.mark.parametrize(
    ("motion", "x", "y", "area"),
    [
        ("left", -1, 0, 0), ("right", 1, 0, 0), ("up", 0, -1, 0), ("down", 0, 1, 0),
        ("grow", 0, 0, 1), ("shrink", 0, 0, -1), ("still", 0, 0, 0),
    ],
)  # fmt: skip
def test_the_picture_moves_as_the_motion_says(motion, x, y, area, size):
    scene = with_thing(motion=motion, travel=2.2 if motion in ("grow", "shrink") else 0.4)
    frames = render_frames(scene, np.array([0.0, 4.0]), size)

    moved_x, moved_y = (np.diff(axis)[0] / size for axis in centroid(frames))
    lit = weights(frames).sum((1, 2))

    assert moved_x == pytest.approx(0.4 * x, abs=0.01)
    assert moved_y == pytest.approx(0.4 * y, abs=0.01)
    assert np.log(lit[1] / lit[0]) == pytest.approx(2 * np.log(2.2) * area, abs=0.05)


def test_small_frames_are_the_large_ones_averaged():
    scene = with_thing(name="bird", rgb=COLOURS["cyan"], size=0.3)
    small, large = (render_frames(scene, np.array([1.0]), size)[0].astype(float) for size in (48, 240))

    averaged = large.reshape(48, 5, 48, 5, 3).mean((1, 3))

    assert np.abs(small - averaged).mean() < 0.6
    assert np.abs(small - averaged).max() < 28


def test_a_batch_is_what_its_scenes_are_alone_and_the_same_each_time():
    scenes = [sample_scene(scene_rng("test", 1, index)) for index in range(40)]
    times = np.stack([np.linspace(0, scene.duration_s, 3) for scene in scenes])

    batch = render_frames(scenes, times, (40, 48))

    assert batch.shape == (40, 3, 40, 48, 3)
    assert batch.dtype == np.uint8
    for scene, moments, frames in zip(scenes, times, batch, strict=True):
        np.testing.assert_array_equal(render_frames(scene, moments, (40, 48)), frames)


def test_things_come_and_go_in_time():
    scene = with_thing(appears_s=1.0, leaves_s=3.0)
    for size in (48, 120):
        lit = weights(render_frames(scene, np.array([0.5, 1.5, 3.5]), size)).sum((1, 2))
        assert (lit > 0).tolist() == [False, True, False]


def test_a_wide_file_makes_things_narrow_when_it_is_squashed():
    scene = replace(with_thing(size=0.3), width=160, height=90)
    frame = render_frames(scene, np.array([1.0]), 60)[0].max(-1) > 60
    columns, rows = frame.any(0).sum(), frame.any(1).sum()
    assert rows / columns == pytest.approx(16 / 9, rel=0.1)


def test_sums_of_pictures_give_any_box():
    picture, sums = shapes(64)[2], integrals(64)[2]
    box = sums[30, 40] - sums[10, 40] - sums[30, 5] + sums[10, 5]
    np.testing.assert_allclose(box, picture[5:40, 10:30].sum((0, 1)), rtol=1e-4)


def test_every_thing_in_every_colour_is_told_apart_by_plain_templates():
    """Nearest picture in outline and mean colour of what is lit, on noisy 48 x 48 frames: far above chance."""
    templates = np.stack([
        weights(render_frames(with_thing(name=name, size=0.3), np.array([1.0]), 48))[0].ravel() for name in THINGS
    ])  # fmt: skip
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    shape_right, colour_right = [], []
    for index, (name, colour) in enumerate((name, colour) for name in THINGS for colour in COLOURS):
        scene = sample_scene(
            scene_rng("t", 0, index), split="any", num_things=1, thing=name, colour=colour, motion="still"
        )
        things = (replace(scene.things[0], size=0.3, x=0.5, y=0.5),)
        scene = replace(scene, things=things, height=100, width=100, background=PLAIN.background)
        frame = render_frames(scene, np.array([1.0]), 48)
        light = weights(frame)[0]
        shape_right.append(THINGS[int(np.argmax(templates @ light.ravel()))] == name)
        body = np.median(frame[0][light > 0.6 * light.max()], axis=0)
        colour_right.append(nearest_colour(body) == colour)
    assert np.mean(shape_right) > 0.95
    assert np.mean(colour_right) > 0.95


def test_path_of_a_growing_thing_passes_its_size_in_the_middle():
    _, _, size = path(with_thing(motion="grow", size=0.2, travel=4.0).things[0], np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(size, [0.1, 0.2, 0.4])


def test_times_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"2 scenes need the shape \[2, t\], got \(3, 1\)"):
        render_frames([PLAIN, PLAIN], np.zeros((3, 1)), 48)
