"""Conversations: the cache changes nothing, media are read once, streams are used as asked."""

import json

import pytest

from avllm.chat import Request, Session
from avllm.errors import ConfigError, DataError, NoAudioStream
from avllm.model import Turn

SHORT = {"max_new_tokens": 8}


def without_reuse(assistant, questions, **media):
    """The same conversation with nothing kept between turns but its text."""
    session = assistant.chat()
    answers = []
    for index, question in enumerate(questions):
        session._cache, session._cached = None, []
        answers.append(session.ask(question, **(media if index == 0 else {}), **SHORT))
    return answers


def test_reusing_the_cache_changes_no_answer(assistant):
    questions = ["what?", "and then?", "sure?"]
    session = assistant.chat()
    answers = [session.ask(q, **({"video": "clip"} if i == 0 else {}), **SHORT) for i, q in enumerate(questions)]
    assert answers == without_reuse(assistant, questions, video="clip")
    assert len(set(answers)) > 1


def test_the_second_turn_computes_only_what_is_new(assistant):
    session = assistant.chat()
    session.ask("what?", video="clip", **SHORT)
    first = len(assistant.processor.encode([Turn(question="what?", media=session.turns[0].media)]).input_ids)
    seen = []
    forward = assistant.model.decoder.model.forward
    assistant.model.decoder.model.forward = lambda *args, **kwargs: (
        seen.append(kwargs["inputs_embeds"].shape[1] if kwargs.get("inputs_embeds") is not None else 1),
        forward(*args, **kwargs),
    )[1]

    session.ask("and?", **SHORT)

    # The first answer is tokenised again, so its tokens may be computed twice; all before it are not.
    whole = len(assistant.processor.encode([session.turns[0], Turn(question="and?")]).input_ids)
    assert seen[0] <= whole - first
    assert set(seen[1:]) <= {1}


def test_other_media_of_equal_shape_are_not_taken_for_the_known_ones(assistant):
    session = assistant.chat()
    session.ask("what?", video="clip", **SHORT)
    known = set(session._cached)
    session.exchanges = []  # the cache still holds the first clip
    other = session.ask("what?", video="other clip", **SHORT)
    assert other == assistant.chat().ask("what?", video="other clip", **SHORT)
    seen = next(item for item in session.media if item.medium.kind == "video")
    assert (seen.key, 0) in session._cached
    assert (seen.key, 0) not in known


def test_streamed_pieces_make_the_answer(assistant):
    asked, streamed = assistant.chat(), assistant.chat()
    answer = asked.ask("what?", video="clip", **SHORT)
    pieces = list(streamed.stream("what?", video="clip", **SHORT))
    assert "".join(pieces) == answer == streamed.last.answer
    assert len(pieces) > 1


def test_leaving_the_stream_stops_the_answer(assistant):
    session = assistant.chat()
    for _ in session.stream("what?", video="clip", max_new_tokens=400):
        break
    assert len(assistant.processor.tokenizer.encode(session.last.answer)) < 400
    assert session.ask("and?", **SHORT)


def test_an_error_reaches_the_reader_of_the_stream_and_leaves_the_session_as_it_was(assistant):
    session = assistant.chat()
    with pytest.raises(NoAudioStream):
        list(session.stream("what?", video="mute", audio_mode="require"))
    assert session.turns == []
    assert session.last is None


def test_a_medium_is_decoded_and_encoded_once(assistant):
    for question in ("what?", "where?"):
        assistant.chat().ask(question, video="clip", **SHORT)
    assert assistant.opened == [("clip", "video"), ("clip", "audio")]
    assistant.chat().ask("what?", video="clip", num_frames=2, **SHORT)
    assert assistant.opened[2:] == [("clip", "video")]


def test_the_store_is_bounded(assistant):
    assistant.store.max_bytes = 1000
    for index in range(5):
        assistant.perceive("clip" + "p" * index, "video")
    assert assistant.store.num_bytes() <= 1000
    assert 0 < len(assistant.store) < 5


@pytest.mark.parametrize(
    ("given", "streams"),
    [
        ({"video": "clip"}, ("video", "audio")),
        ({"video": "clip", "audio_mode": "off"}, ("video",)),
        ({"video": "mute"}, ("video",)),
        ({"image": "picture"}, ("image",)),
        ({"audio": "sound"}, ("audio",)),
        ({"video": "mute", "audio": "sound"}, ("video", "audio")),
        ({}, ()),
    ],
)
def test_tells_which_streams_were_used(assistant, given, streams):
    session = assistant.chat()
    session.ask("what?", **given, **SHORT)
    assert session.last.streams_used == streams
    assert session.last.frames == ((0.0, 1.0, 2.0, 3.0) if "video" in given else ())


def test_required_sound_that_is_not_there_is_an_error(assistant):
    with pytest.raises(NoAudioStream, match="no audio track"):
        assistant.chat().ask("what?", video="mute", audio_mode="require")


def test_a_batch_answers_as_single_questions_do(assistant):
    requests = [
        Request(question="what?", video="clip"),
        Request(question="is it a rather long question that needs padding?", image="picture"),
        Request(question="hm"),
        Request(question="what is heard?", audio="sound"),
    ]
    batch = [reply.answer for reply in assistant.answers(requests, **SHORT)]
    single = [assistant.chat().ask(r.question, video=r.video, image=r.image, audio=r.audio, **SHORT) for r in requests]
    assert batch == single


def test_beams_and_sampling(assistant):
    session = assistant.chat()
    assert session.ask("what?", video="clip", num_beams=3, **SHORT)
    assert session.ask("and?", do_sample=True, temperature=0.5, **SHORT)


def test_too_long_a_conversation_is_refused_and_not_cut(assistant):
    with pytest.raises(ConfigError, match="the decoder holds 512; start a new chat"):
        assistant.chat().ask("x" * 600)


def test_typed_stop_texts_and_slots_are_ordinary_text(assistant):
    session = assistant.chat()
    session.ask("<video> ###Human: </s> {video}", **SHORT)
    assert session.last.streams_used == ()


def test_reset_forgets(assistant):
    session = assistant.chat()
    first = session.ask("what?", **SHORT)
    session.ask("more", **SHORT)
    session.reset()
    assert session.ask("what?", **SHORT) == first


def test_a_question_of_parts_keeps_their_order(assistant):
    session = assistant.chat()
    parts = [
        {"type": "text", "text": "First:"},
        {"type": "video", "video": "clip", "num_frames": 2},
        {"type": "text", "text": "then:"},
        {"type": "image", "image": "picture"},
        "what?",
    ]
    answer = session.ask(parts, **SHORT)
    (turn,) = session.turns
    assert (turn.question, turn.places) == ("First:then:what?", (6, 6, 11))
    assert [medium.kind for medium in turn.media] == ["audio", "video", "image"]
    assert session.last.question == "First:then:what?"
    assert assistant.answers([Request(question=parts)], **SHORT)[0].answer == answer
    more = session.ask("more?", **SHORT)
    stored = Session.from_dict(assistant, json.loads(json.dumps(session.to_dict())))
    assert stored.turns == session.turns
    assert stored.regenerate(**SHORT) == more
    front = [{"type": "video", "video": "clip"}, {"type": "text", "text": "what?"}]
    assert assistant.chat().ask(front, **SHORT) == assistant.chat().ask("what?", video="clip", **SHORT)


def test_a_part_of_a_clip_is_cut_for_picture_and_sound(assistant, monkeypatch):
    asked, read = [], assistant.processor.read
    monkeypatch.setattr(
        assistant.processor,
        "read",
        lambda source, kind, **options: (asked.append((kind, options)), read(source, kind))[1],
    )
    assistant.chat().ask("what?", video="clip", start_s=1, end_s=2.5, **SHORT)
    assistant.answers([Request(question="what?", video="other", start_s=1, end_s=2.5)], **SHORT)
    assistant.chat().ask("what?", media=[{"type": "audio", "audio": "sound", "start": 1, "end": 2.5}], **SHORT)
    part = {"start_s": 1, "end_s": 2.5}
    assert asked == [*[("video", part), ("audio", part)] * 2, ("audio", part)]


@pytest.mark.parametrize(
    ("given", "error", "fault"),
    [
        ({"audio_mode": "none"}, ConfigError, "audio_mode: 'none' is unknown; known are: auto, require, off"),
        ({"audio_mode": False}, ConfigError, "audio_mode: False is unknown"),
        ({"audio_mode": "required"}, ConfigError, "audio_mode: 'required' is unknown; did you mean 'require'"),
        ({"video": None, "image": "picture", "audio_mode": "require"}, NoAudioStream, "an image has none"),
        ({"num_frames": 9}, ConfigError, "9 frames are more than the 8"),
        ({"num_frames": 0}, ConfigError, "num_frames: expected a number above 0"),
        ({"video": None, "num_frames": 2}, ConfigError, "num_frames: is an option of a video, and there is none here"),
        ({"video": None, "image": "picture", "start_s": 1}, ConfigError, "start_s: is an option of a video"),
        ({"media": [{"type": "text", "text": "x"}]}, DataError, "media: expected media alone, got a text"),
        ({"media": [{"type": "image"}]}, DataError, "media: content of type image: expected its source"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_anything_is_opened(assistant, given, error, fault):
    with pytest.raises(error, match=fault):
        assistant.chat().ask("what?", **{"video": "clip", **given})
    assert assistant.opened == []


@pytest.mark.parametrize("question", [None, 5, b"what?", "\ud800", ["x", 5], [{"type": "smell"}]])
def test_a_question_is_a_text_or_parts(assistant, question):
    with pytest.raises(DataError, match=r"^question: "):
        assistant.chat().ask(question)


def test_settings_of_a_conversation_are_checked(assistant):
    with pytest.raises(ConfigError, match="overflow: 'drop' is unknown; known are: error, drop_oldest_turn"):
        assistant.chat(overflow="drop")
    with pytest.raises(DataError, match="system: expected a text, got 5"):
        assistant.chat(system=5)


def test_a_conversation_beyond_the_context_is_refused_before_its_media_are_opened(assistant):
    session = assistant.chat()
    session.ask("a" * 300, **SHORT)
    with pytest.raises(ConfigError, match="the decoder holds 512"):
        session.ask("b" * 300, video="clip", **SHORT)
    assert assistant.opened == []
