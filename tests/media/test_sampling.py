import numpy as np
import pytest

from avllm.errors import ConfigError, MediaError
from avllm.media import Sampling, time_message
from avllm.media.sampling import middle, uniform


@pytest.mark.parametrize(
    ("sampling", "total", "expected"),
    [
        (Sampling(num_frames=4), 10, [0, 2, 5, 7]),
        (Sampling(num_frames=8), 3, [0, 1, 2]),
        (Sampling(kind="linspace", num_frames=4), 10, [0, 3, 6, 9]),
        (Sampling(kind="linspace", num_frames=4), 2, [0, 0, 0, 1]),
        (Sampling(kind="middle", num_frames=4), 101, [13, 38, 63, 88]),
        (Sampling(kind="middle", num_frames=3), 1, [0, 0, 0]),
        (Sampling(kind="fps", fps=2.0), 50, [6, 18, 30, 42]),
        (Sampling(kind="fps", fps=100.0), 3, [0, 1, 2]),
        (Sampling(kind="fps", fps=5.0, max_frames=3), 50, [2, 17, 32]),
        (Sampling(kind="all"), 3, [0, 1, 2]),
        (Sampling(kind="all", max_frames=2), 5, [0, 2]),
        (Sampling(kind="all", start_s=0.12, end_s=0.2), 50, [3, 4]),
        (Sampling(kind="head_tail", num_frames=1), 1, [0]),
        (Sampling(kind="half_step", num_frames=4), 9001, [1125, 3375, 5625, 7875]),
        (Sampling(kind="half_step", num_frames=4), 2, [0, 0, 0, 1]),  # 0.5 is rounded to even
        (Sampling(kind="interval_middle", num_frames=4), 10, [0, 3, 5, 8]),
        (Sampling(kind="interval_middle", num_frames=4), 3, [0, 1, 2, 2]),
        (Sampling(kind="fps_time", fps=1.0), 100, [12, 38, 62, 88]),
        (Sampling(kind="fps_time", fps=0.1), 10, [5]),
        (Sampling(kind="all", max_frames=2, keep="first"), 5, [0, 1]),
        (Sampling(kind="all", start_s=0.12, end_s=0.22, starts_early=True), 50, [2, 3, 4]),
    ],
)
def test_indices(sampling, total, expected):
    assert list(sampling.indices(total, 25.0)) == expected
    assert sampling.count(total, 25.0) >= len(expected)


def test_uniform_never_gives_more_than_asked_nor_past_the_end():
    for count in range(1, 40):
        for total in range(1, 200):
            picked = uniform(count, total)
            assert len(picked) == min(count, total)
            assert picked[-1] < total


def test_middle_stays_inside():
    assert all(0 <= i < total for total in range(1, 100) for i in middle(8, total))


def test_head_tail_is_repeatable_and_takes_both_halves():
    sampling = Sampling(kind="head_tail", num_frames=8, seed=7)
    picked = sampling.indices(100, 25.0)

    assert picked == sampling.indices(100, 25.0)
    assert picked == tuple(sorted(picked))
    assert sum(i < 50 for i in picked) == 4


def test_random_frames_stay_in_their_intervals():
    for total in (3, 9, 16, 128):
        picked = [Sampling(kind="interval_random", num_frames=8, seed=seed).indices(total, 25.0) for seed in range(40)]
        edges = np.linspace(0, total, min(8, total) + 1).astype(int)
        for row in picked:
            assert all(a <= i < b for i, a, b in zip(row, edges, edges[1:], strict=False))
            assert len(row) == 8
            assert set(row[total:]) <= {row[-1]}
        assert picked == [
            Sampling(kind="interval_random", num_frames=8, seed=seed).indices(total, 25.0) for seed in range(40)
        ]
        assert (len(set(picked)) > 1) == (total == 128)


def test_time_message_is_the_published_one():
    assert time_message((0, 31, 62), 29.97) == "The video contains 3 frames sampled at 0.0, 1.0, 2.1 seconds. "


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"max_frames": 0}, "max_frames"),
        ({"kind": "fps"}, "fps"),
        ({"kind": "fps_time", "fps": 0.0}, "fps"),
        ({"start_s": 2.0, "end_s": 1.0}, "start_s"),
        ({"start_s": -1.0}, "start_s"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**fields)


def test_no_frames():
    with pytest.raises(MediaError, match="0 frames"):
        Sampling().indices(0, 25.0)
    with pytest.raises(MediaError, match=r"2\.00 s long"):
        Sampling(start_s=3.0).indices(50, 25.0)
