import json

import numpy as np
import pytest

from avllm.media import open_audio, open_video
from avllm.nano import sample as sampling
from avllm.nano.sample import TYPES, make_clip, sample, write_clip
from avllm.nano.sample_examples import EXAMPLES, FOLDER
from avllm.nano.sound import render_audio
from avllm.nano.world import COLOURS, Scene, Sound, Thing, nearest_colour


def test_the_same_seed_writes_the_same_files_and_truth(tmp_path):
    first, second = (sample(tmp_path / name, num_clips=2, seed=5) for name in "ab")

    assert first.read_bytes() == second.read_bytes()
    for file in ("clip_0000.mp4", "clip_0001.mp4"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    assert [line["file"] for line in lines] == ["clip_0000.mp4", "clip_0001.mp4"]
    for line in lines:
        assert line["scene"]["duration_s"] > 3
        for asked in line["questions"]:
            assert asked["kind"] in TYPES[asked["type"]]
            assert asked["answer"] in asked["accepted"]


def test_each_fifth_sampled_clip_shows_a_held_out_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "write_clip", lambda scene, path: path)
    monkeypatch.setattr(sampling, "WORKERS", 1)
    lines = [json.loads(line) for line in sample(tmp_path, num_clips=15, seed=0).read_text().splitlines()]
    assert [index for index, line in enumerate(lines) if line["held_out"]] == [4, 9, 14]


def test_every_type_of_question_is_asked_of_a_fair_share_of_clips():
    clips = [make_clip("test", 0, index, held_out=False) for index in range(200)]
    asked = [name for clip in clips for name, _ in clip.questions]
    assert set(asked) == set(TYPES)
    assert min(asked.count(name) for name in TYPES) > 30
    truths = [q.answer for clip in clips for name, q in clip.questions if name in ("match", "yes_no")]
    assert 0.35 < truths.count("yes") / len(truths) < 0.65


def test_a_written_clip_plays_as_its_scene_says(tmp_path):
    things = tuple(
        Thing(name=name, colour=colour, rgb=COLOURS[colour], size=0.3, x=x, appears_s=start, leaves_s=4.0)
        for name, colour, x, start in (("clock", "green", 0.25, 0.0), ("drone", "pink", 0.75, 2.0))
    )
    scene = Scene(
        things=things, sounds=(Sound(name="car", start_s=1.0),), duration_s=4.0, fps=15, width=240, height=180
    )

    video = open_video(write_clip(scene, tmp_path / "clip.mp4"), size=(48, 48))

    assert video.has_audio
    assert video.duration_s == pytest.approx(4.0, abs=0.1)
    halves = video.frames[:, :, :24], video.frames[:, :, 24:]
    for half, (colour, start) in zip(halves, (("green", 0.0), ("pink", 2.0)), strict=True):
        for frame, time_s in zip(half, video.times_s, strict=True):
            lit = frame[frame.max(-1) > 120]
            assert (len(lit) > 20) == (time_s >= start)
            if len(lit):
                assert nearest_colour(np.median(lit, axis=0)) == colour


@pytest.mark.parametrize(("sample_rate", "bit_rate"), [(16_000, 24_000), (44_100, 32_000)])
def test_a_sound_is_where_it_was_after_aac(tmp_path, sample_rate, bit_rate):
    scene = Scene(
        sounds=(Sound(name="clock", start_s=0.7), Sound(name="bird", start_s=2.1, gain=0.3)),
        duration_s=4.0, height=64, width=64, sample_rate=sample_rate, audio_bit_rate=bit_rate,
    )  # fmt: skip

    heard = open_audio(write_clip(scene, tmp_path / "clip.mp4"), sample_rate=16_000).waveform.mean(0)[:64_000]

    loud = np.abs(heard.reshape(-1, 800)).max(1) > 0.02
    meant = np.abs(render_audio(scene, 16_000).reshape(-1, 800)).max(1) > 0.02
    assert (loud == meant).mean() > 0.9


def test_the_shipped_examples_are_small_and_there_with_their_truth():
    truth = json.loads((FOLDER / "truth.json").read_text())["clips"]
    assert [clip["file"] for clip in truth] == [file for file, *_ in EXAMPLES]
    for clip in truth:
        assert (FOLDER / clip["file"]).stat().st_size < 80_000
        assert all(asked["question"] and asked["answer"] for asked in clip["questions"])
