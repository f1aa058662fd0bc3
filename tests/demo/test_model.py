"""`DemoModel` over a tiny random system: real files, real processes, no weights."""

from dataclasses import replace

import pytest

from avllm import media
from avllm.chat import Assistant
from avllm.demo.conversation import Settings
from avllm.demo.model import DemoModel
from avllm.errors import MediaError
from tests.model.tiny import tiny_model, tiny_processor


@pytest.fixture
def model(config):
    network = tiny_model()
    return DemoModel(Assistant(network, tiny_processor(network), name="some/folder/tiny"), media, config)


@pytest.mark.parametrize(
    ("name", "kind", "facts"),
    [
        ("clip", "video", "2.0 s · 64×48 · with sound"),
        ("silent", "video", "2.0 s · 64×48 · no sound"),
        ("tone", "audio", "2.0 s"),
        ("picture", "image", "64×48"),
    ],
)
def test_tells_what_a_file_is(model, files, name, kind, facts):
    medium = model.inspect(files[name], "shown.mp4")

    assert (medium.kind, medium.facts(), medium.name) == (kind, facts, "shown.mp4")
    assert (medium.poster is None) == (kind == "audio")


def test_a_broken_file_is_named_by_nothing_of_ours(model, files):
    with pytest.raises(MediaError, match="not a media file") as caught:
        model.inspect(files["broken"], "shown.mp4")

    assert "broken.mp4" not in str(caught.value)
    assert str(files["broken"].parent) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "frames", "heard"), [("clip", 4, True), ("silent", 4, False), ("tone", 0, True), ("picture", 1, False)]
)
def test_evidence_is_what_the_model_was_given(model, files, config, name, frames, heard):
    medium, session, settings = model.inspect(files[name], name), model.new_session(), Settings.default(config)

    "".join(model.stream(session, "What?", settings, medium))
    evidence = model.evidence(session, medium, settings)

    assert len(evidence.frames) == frames
    if medium.kind == "video":
        assert [time_s for time_s, _ in evidence.frames] == pytest.approx(session.last.frames)
    assert (evidence.peaks is not None) == heard
    assert {name: used for name, used, _ in evidence.streams} == {"video": frames > 0, "audio": heard}
    assert all(0 <= start < end <= evidence.sound_seconds for start, end in evidence.segments)
    assert evidence.model == "tiny"
    assert "decode" in dict(evidence.timings)


def test_sound_switched_off_is_not_used(model, files, config):
    medium, session = model.inspect(files["clip"], "clip"), model.new_session()
    settings = Settings.checked(config, audio="off", frames=None, temperature=0.0, max_new_tokens=5)

    "".join(model.stream(session, "What?", settings, medium))

    assert session.last.streams_used == ("video",)
    assert ("audio", False, "switched off") in model.evidence(session, medium, settings).streams


@pytest.mark.parametrize(
    ("name", "audio", "message"),
    [
        ("silent", "require", "no audio|no sound"),
        ("picture", "require", "a picture has none"),
        ("tone", "off", "switched off"),
    ],
)
def test_a_stream_that_cannot_be_had_is_one_clear_error(model, files, config, name, audio, message):
    medium = model.inspect(files[name], name)
    settings = Settings.checked(config, audio=audio, frames=None, temperature=0.0, max_new_tokens=5)

    with pytest.raises(MediaError, match=message):
        "".join(model.stream(model.new_session(), "What?", settings, medium))


def test_sounds_are_refused_where_only_pictures_are_looked_at(model, files, config):
    model.config = replace(config, media=replace(config.media, branches=("video",), audio="off"))

    with pytest.raises(MediaError, match="looks at pictures only"):
        model.inspect(files["tone"], "tone.wav")


def test_temperature_above_zero_samples(model, files, config, monkeypatch):
    asked = {}
    session = model.new_session()
    monkeypatch.setattr(session, "stream", lambda question, **options: iter([asked.update(options) or "x"]))

    for temperature in (0.0, 0.8):
        settings = Settings.checked(config, audio="auto", frames=None, temperature=temperature, max_new_tokens=7)
        list(model.stream(session, "What?", settings, None))
        assert asked["max_new_tokens"] == 7
        assert asked["do_sample"] == (temperature > 0)
    assert asked["temperature"] == 0.8
