import itertools
from dataclasses import replace

import numpy as np
import pytest

from avllm.nano.sound import render_audio, render_sound
from avllm.nano.world import THINGS, Scene, Sound, scene_rng
from avllm.nano.world_sampling import sample_scene


def signature(wave, rate=16_000):
    """Spectrum in 16 bands and flutter of the envelope: what tells the sounds apart, whatever their loudness."""
    frames = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    power = np.abs(np.fft.rfft(frames * np.hanning(320), axis=1)) ** 2
    edges = np.unique(np.geomspace(1, power.shape[1] - 1, 17).astype(int))
    bands = np.stack([power[:, a:b].sum(1) for a, b in itertools.pairwise(edges)], 1)
    level = bands.sum(1)
    spectrum = np.sqrt(bands.sum(0) / bands.sum())
    return np.concatenate([spectrum, [0.5 * np.std(level) / np.mean(level)]])


def test_sounds_are_where_the_scene_has_them_and_silence_between():
    scene = Scene(
        sounds=(Sound(name="ghost", start_s=0.3, seconds=1.0), Sound(name="car", start_s=2.0, seconds=1.2)),
        noise_floor=0.0,
        duration_s=4.0,
    )
    track = render_audio(scene, 16_000)

    loud = np.abs(track.reshape(-1, 1600)).max(1) > 0.01  # tenths of a second
    assert len(track) == 64_000
    assert loud.nonzero()[0].tolist() == [*range(3, 13), *range(20, 32)]


@pytest.mark.parametrize("name", THINGS)
def test_gain_sets_the_loudness_and_pitch_leaves_it(name):
    loud = render_sound(Sound(name=name, start_s=0, gain=0.5), 16_000)
    soft = render_sound(Sound(name=name, start_s=0, gain=0.125), 16_000)
    np.testing.assert_allclose(soft * 4, loud, atol=1e-5)
    assert 0.03 < loud.std() < 0.2


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_every_sound_is_told_apart_at_any_pitch_loudness_and_rate(rate):
    known = [(name, Sound(name=name, start_s=0, pitch=pitch)) for name in THINGS for pitch in (0.92, 1.0, 1.08)]
    signatures = np.stack([signature(render_sound(sound, 16_000, 99)) for _, sound in known])
    rng = np.random.default_rng(0)
    for name in THINGS:
        for seed in range(6):
            sound = Sound(name=name, start_s=0, seconds=1.1, pitch=rng.uniform(0.9, 1.1), gain=rng.uniform(0.25, 1))
            wave = render_sound(sound, rate, seed)
            grid = np.arange(int(1.1 * 16_000)) / 16_000
            wave = np.interp(grid, np.arange(len(wave)) / rate, wave) if rate != 16_000 else wave
            found = known[int(np.argmin(np.linalg.norm(signatures - signature(wave), axis=1)))][0]
            assert found == name


def test_a_scene_always_sounds_the_same_and_another_seed_a_little_different():
    scene = sample_scene(scene_rng("test", 0), num_sounds=2)
    np.testing.assert_array_equal(render_audio(scene), render_audio(scene))
    assert not np.array_equal(render_audio(scene), render_audio(replace(scene, seed=scene.seed + 1)))


def test_a_silent_scene_holds_only_its_noise_floor():
    track = render_audio(Scene(noise_floor=0.002))
    assert track.std() == pytest.approx(0.002 * np.sqrt(1.0), rel=0.05)
    assert not render_audio(Scene(noise_floor=0.0)).any()
