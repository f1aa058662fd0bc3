"""`DemoModel` over a tiny random system: real files, real processes, no weights."""

import io
from dataclasses import replace
from threading import Event

import pytest
from PIL import Image

from avllm import media
from avllm.chat import Assistant
from avllm.demo.model import DemoModel
from avllm.demo.settings import Settings
from avllm.errors import CheckpointError, MediaError
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

    "".join(model.stream(session, "What?", settings, [medium]))
    evidence = model.evidence(session, [medium], settings)

    (shown,) = evidence.media
    assert len(shown.frames) == frames
    if medium.kind == "video":
        assert [time_s for time_s, _ in shown.frames] == pytest.approx(session.last.frames)
    assert {name: used for name, used, _ in shown.streams} == {"video": frames > 0, "audio": heard}
    assert (shown.sound is not None) == heard
    if shown.sound is not None:
        assert all(0 <= start < end <= shown.sound.seconds for start, end in shown.sound.segments)
        given = model.assistant.processor.read(files[name], "audio").values
        pictures = [Image.open(io.BytesIO(mel)) for mel in shown.sound.mels]
        assert [picture.size for picture in pictures] == [(given.shape[-1], given.shape[-2])] * len(given)
    assert evidence.model == "tiny"
    assert "decode" in dict(evidence.timings)


def test_sound_switched_off_is_not_used(model, files, config):
    medium, session = model.inspect(files["clip"], "clip"), model.new_session()
    settings = Settings.checked(config, streams="off", max_new_tokens=5)

    "".join(model.stream(session, "What?", settings, [medium]))

    assert session.last.streams_used == ("video",)
    assert ("audio", False, "switched off") in model.evidence(session, [medium], settings).media[0].streams


def test_of_a_video_the_sound_alone_can_be_used(model, files, config):
    medium, session = model.inspect(files["clip"], "clip"), model.new_session()
    settings = Settings.checked(config, streams="only", max_new_tokens=5)

    "".join(model.stream(session, "What?", settings, [medium]))
    (shown,) = model.evidence(session, [medium], settings).media

    assert session.last.streams_used == ("audio",)
    assert shown.frames == ()
    assert shown.sound is not None
    assert shown.streams[0] == ("video", False, "switched off")


def test_several_files_are_in_view_at_once(model, files, config):
    clip, picture = model.inspect(files["clip"], "clip"), model.inspect(files["picture"], "picture")
    session, settings = model.new_session(), Settings.checked(config, max_new_tokens=5)

    "".join(model.stream(session, "What?", settings, [clip]))
    "".join(model.stream(session, "And here?", settings, [picture]))

    assert session.last.streams_used == ("video", "image", "audio")
    assert [len(shown.frames) for shown in model.evidence(session, [clip, picture], settings).media] == [4, 1]


def test_seed_and_beams_reach_the_decoder(model, files, config):
    medium = model.inspect(files["clip"], "clip")
    given = {"temperature": 1.5, "max_new_tokens": 12}

    def answer(**changes):
        settings = Settings.checked(config, **given, **changes)
        pieces = list(model.stream(model.new_session(), "What?", settings, [medium]))
        return "".join(pieces), len(pieces)

    assert answer(seed=1) == answer(seed=1)
    assert len({answer(seed=seed)[0] for seed in range(4)}) > 1
    assert answer(num_beams=3, seed=1)[1] == 1


def test_an_answer_with_beams_can_be_stopped(model, files, config):
    medium, stop = model.inspect(files["clip"], "clip"), Event()
    settings, session = Settings.checked(config, num_beams=2, max_new_tokens=90), model.new_session()
    stop.set()

    "".join(model.stream(session, "What?", settings, [medium], stop))

    assert len(model.assistant.processor.tokenizer(session.last.answer).input_ids) < 45


def test_a_model_without_a_branch_of_sound_says_so(model, files, config):
    medium = model.inspect(files["tone"], "tone.wav")
    model.config = replace(config, media=replace(config.media, branches=("video",), audio="off"))

    with pytest.raises(MediaError, match=r"tone.wav: a sound, and tiny does not hear"):
        "".join(model.stream(model.new_session(), "What?", Settings.default(config), [medium]))


def test_a_model_folder_that_is_not_there_is_one_line_that_tells_how_to_make_it(config):
    with pytest.raises(CheckpointError, match=r"avllm convert SOURCE\.\.\. --out outputs/models/none") as caught:
        DemoModel.load_all(replace(config, models=("outputs/models/none",)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "streams", "message"),
    [
        ("silent", "require", "no audio|no sound"),
        ("picture", "require", "a picture has none"),
        ("tone", "off", "switched off"),
    ],
)
def test_a_stream_that_cannot_be_had_is_one_clear_error(model, files, config, name, streams, message):
    medium = model.inspect(files[name], name)
    settings = Settings.checked(config, streams=streams, max_new_tokens=5)

    with pytest.raises(MediaError, match=message):
        "".join(model.stream(model.new_session(), "What?", settings, [medium]))


def test_sounds_are_refused_where_only_pictures_are_looked_at(model, files, config):
    model.config = replace(config, media=replace(config.media, branches=("video",), audio="off"))

    with pytest.raises(MediaError, match="looks at pictures only"):
        model.inspect(files["tone"], "tone.wav")


def test_temperature_above_zero_samples(model, files, config, monkeypatch):
    asked = {}
    session = model.new_session()
    monkeypatch.setattr(session, "stream", lambda question, **options: iter([asked.update(options) or "x"]))

    for temperature in (0.0, 0.8):
        settings = Settings.checked(config, temperature=temperature, max_new_tokens=7)
        list(model.stream(session, "What?", settings, []))
        assert asked["max_new_tokens"] == 7
        assert asked["temperature"] == temperature
