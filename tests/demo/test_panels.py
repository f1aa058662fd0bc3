from pathlib import Path

import numpy as np
import pytest

from avllm.demo import panels
from avllm.demo.evidence import Evidence
from avllm.demo.examples import Example
from avllm.demo.reading import Medium, fit, loudness, to_jpeg

NASTY = "\"><img src=x onerror=alert(1)> & <script>alert(2)</script>'.mp4"


def medium(kind, **fields) -> Medium:
    return Medium(path=Path("/tmp/a b/1.mp4"), kind=kind, name=NASTY, duration_s=4.0, size=(64, 48), **fields)


@pytest.mark.parametrize(
    "html",
    [
        panels.header(NASTY, NASTY),
        panels.file_panel(medium("video"), max_mb=64, kinds=("video", "image")),
        panels.file_panel(medium("audio"), max_mb=64, kinds=("video", "image")),
        panels.file_panel(medium("image", poster=b"x"), max_mb=64, kinds=("video", "image")),
        panels.example_cards([Example(path=Path("x.mp4"), title=NASTY, questions=(), answers=())]),
        panels.question_chips([NASTY]),
        panels.evidence_panel(
            Evidence(
                streams=[("video", True, NASTY)],
                frames=[],
                peaks=None,
                sound_seconds=0.0,
                segments=[],
                timings=[(NASTY, 0.1)],
                model=NASTY,
            )
        ),
    ],
)
def test_nothing_from_outside_becomes_html(html):
    assert "<img src=x" not in html
    assert "<script" not in html


def test_paths_are_quoted_in_addresses():
    html = panels.file_panel(medium("video"), max_mb=64, kinds=("video", "image"))

    assert 'src="gradio_api/file=/tmp/a%20b/1.mp4"' in html


def test_plain_text_opens_no_tag_and_no_entity():
    text = panels.plain("a < b & <b>bold</b> &lt;")

    assert "<b" not in text
    assert "&lt;" not in text
    assert text.replace("\u2060", "") == "a < b & <b>bold</b> &lt;"


def test_evidence_shows_frames_times_sound_and_timings():
    frame = to_jpeg(np.zeros((8, 8, 3), np.uint8))
    evidence = Evidence(
        streams=[("video", True, "2 frames"), ("audio", False, "switched off")],
        frames=[(0.0, frame), (61.5, frame)],
        peaks=np.ones(10, np.float32),
        sound_seconds=62.0,
        segments=[(0.0, 31.0)],
        timings=[("decode", 0.0211), ("total", 12.34)],
        model="nano",
    )

    html = panels.evidence_panel(evidence)

    for expected in ("picture · 2 frames", "sound · switched off", "0.00 s", "61.50 s", "21 ms", "12.3 s", "nano"):
        assert expected in html
    assert html.count("<figure>") == 2
    assert 'width="300.0"' in html  # the segment is half of the sound


def test_pictures_fit_and_are_not_enlarged():
    assert fit(1920, 1080, 240) == (135, 240)
    assert fit(32, 48, 240) == (48, 32)


def test_loudness_is_the_peak_of_each_part():
    waveform = np.array([[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, -0.9, 0.1]], np.float32)

    assert loudness(waveform, 2).tolist() == pytest.approx([0.5, 0.9])
    assert loudness(np.zeros((1, 0), np.float32), 2).shape == (0,)
