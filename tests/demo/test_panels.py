from pathlib import Path

import numpy as np
import pytest

from avllm.demo import panels
from avllm.demo.evidence import Evidence, Shown, Sound, mel_pictures
from avllm.demo.examples import Example
from avllm.demo.reading import Medium, fit, loudness, to_jpeg

NASTY = "\"><img src=x onerror=alert(1)> & <script>alert(2)</script>'.mp4"


def medium(kind, **fields) -> Medium:
    return Medium(path=Path("/tmp/a b/1.mp4"), kind=kind, name=NASTY, duration_s=4.0, size=(64, 48), **fields)


@pytest.mark.parametrize(
    "html",
    [
        panels.header(NASTY, NASTY),
        panels.file_panel([medium("video")], max_mb=64, kinds=("video", "image")),
        panels.file_panel([medium("image"), medium("audio")], max_mb=64, kinds=("video", "image")),
        panels.file_panel([medium("image", poster=b"x")], max_mb=64, kinds=("video", "image")),
        panels.example_cards([Example(path=Path("x.mp4"), title=NASTY, questions=(), answers=())]),
        panels.question_chips([NASTY]),
        panels.evidence_panel(
            Evidence(
                media=[Shown(name=NASTY, streams=[("video", True, NASTY)])] * 2, timings=[(NASTY, 0.1)], model=NASTY
            )
        ),
    ],
)
def test_nothing_from_outside_becomes_html(html):
    assert "<img src=x" not in html
    assert "<script" not in html


def test_addresses_are_quoted_and_hold_no_path_of_the_server():
    html = panels.file_panel([medium("video")], max_mb=64, kinds=("video", "image"))

    assert 'src="gradio_api/file=a%20b/1.mp4"' in html
    assert "/tmp" not in html


def test_plain_text_opens_no_tag_and_no_entity():
    text = panels.plain("a < b & <b>bold</b> &lt;")

    assert "<b" not in text
    assert "&lt;" not in text
    assert text.replace("\u2060", "") == "a < b & <b>bold</b> &lt;"


def test_evidence_shows_frames_times_sound_and_timings():
    frame = to_jpeg(np.zeros((8, 8, 3), np.uint8))
    sound = Sound(peaks=np.ones(10, np.float32), seconds=62.0, segments=[(0.0, 31.0), (31.0, 62.0)], mels=[frame] * 2)
    evidence = Evidence(
        media=[
            Shown(
                name="clip.mp4",
                streams=[("video", True, "2 frames"), ("audio", False, "switched off")],
                frames=[(0.0, frame), (61.5, frame)],
                sound=sound,
            )
        ],
        timings=[("decode", 0.0211), ("total", 12.34)],
        model="nano",
    )

    html = panels.evidence_panel(evidence)

    for expected in ("picture · 2 frames", "sound · switched off", "0.00 s", "61.50 s", "21 ms", "12.3 s", "nano"):
        assert expected in html
    assert html.count("<figure>") == 4
    assert "log-mel of 31.0-62.0 s" in html
    assert 'width="300.0"' in html  # the segment is half of the sound


def test_text_comes_back_from_the_page_as_it_was():
    assert panels.unplain(panels.plain("a < b & c")) == "a < b & c"


def test_log_mel_is_drawn_with_low_tones_at_the_bottom_and_one_scale():
    segments = np.zeros((2, 1, 4, 6), np.float32)
    segments[1, 0, 0] = 1.0  # the lowest bin of the second segment

    pictures = mel_pictures(segments)

    assert pictures.shape == (2, 4, 6, 3)
    assert pictures[1, -1].min() > pictures[1, 0].max()
    assert (pictures[0] == pictures[1, 0, 0]).all()


def test_several_files_are_named_in_what_the_model_got():
    shown = [Shown(name=name, streams=[("video", True, "1 frame")]) for name in ("one.mp4", "two.png")]

    html = panels.evidence_panel(Evidence(media=shown, timings=[], model="nano"))

    assert "one.mp4" in html
    assert "two.png" in html


def test_pictures_fit_and_are_not_enlarged():
    assert fit(1920, 1080, 240) == (135, 240)
    assert fit(32, 48, 240) == (48, 32)


def test_loudness_is_the_peak_of_each_part():
    waveform = np.array([[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, -0.9, 0.1]], np.float32)

    assert loudness(waveform, 2).tolist() == pytest.approx([0.5, 0.9])
    assert loudness(np.zeros((1, 0), np.float32), 2).shape == (0,)
