"""Turns taken back, asked again, edited, stored; several media; a full context."""

import json

import numpy as np
import pytest

from avllm.chat import Session
from avllm.errors import ConfigError, DataError, MediaError

SHORT = {"max_new_tokens": 8}


def test_undo_takes_back_the_question_and_its_media(assistant):
    session = assistant.chat()
    session.ask("what?", video="clip", **SHORT)
    before = session.ask("and?", **SHORT)
    session.ask("look", image="picture", **SHORT)
    assert session.undo().question == "look"
    assert [item.medium.kind for item in session.media] == ["audio", "video"]
    session.undo()
    assert session.ask("and?", **SHORT) == before
    assert assistant.chat().undo() is None


def test_regenerate_answers_the_same_question_anew(assistant):
    session = assistant.chat()
    greedy = session.ask("what?", video="clip", **SHORT)
    assert session.regenerate(**SHORT) == greedy
    drawn = {session.regenerate(do_sample=True, temperature=3.0, seed=seed, **SHORT) for seed in range(6)}
    assert len(drawn) > 1
    assert len(session.turns) == 1
    assert session.turns[0].question == "what?"


def test_edit_last_asks_another_question_about_the_same_media(assistant):
    session, fresh = assistant.chat(), assistant.chat()
    session.ask("what?", video="clip", **SHORT)
    assert session.edit_last("who?", **SHORT) == fresh.ask("who?", video="clip", **SHORT)
    assert session.last.streams_used == ("video", "audio")


def test_a_failed_edit_leaves_the_conversation_as_it_was(assistant):
    session = assistant.chat()
    session.ask("what?", video="clip", **SHORT)
    with pytest.raises(ConfigError, match="the decoder holds"):
        session.edit_last("x" * 600, **SHORT)
    assert [turn.question for turn in session.turns] == ["what?"]
    with pytest.raises(DataError, match="ask one first"):
        assistant.chat().regenerate()


def test_a_seed_gives_the_same_answer_again_and_leaves_other_draws_alone(assistant):
    import torch

    options = {"do_sample": True, "temperature": 2.0, **SHORT}
    assistant.chat().ask("what?", video="clip", **SHORT)  # the clip is drawn, too
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    answers = {assistant.chat().ask("what?", video="clip", seed=7, **options) for _ in range(3)}
    assert len(answers) == 1
    assert torch.equal(torch.rand(1), expected)


def test_further_stop_texts_end_the_answer_before_them(assistant):
    whole = assistant.chat().ask("what?", video="clip", max_new_tokens=20)
    middle = whole[len(whole) // 2]
    cut = assistant.chat().ask("what?", video="clip", max_new_tokens=20, stop=middle)
    assert cut == whole.split(middle)[0].strip()


def test_several_media_at_once_and_new_ones_later(assistant):
    session = assistant.chat()
    parts = [{"type": "image", "image": "one"}, {"type": "image", "image": "other one"}]
    session.ask("which?", media=parts, **SHORT)
    session.ask("and this?", video="clip", **SHORT)
    assert [item.medium.kind for item in session.media] == ["image", "image", "audio", "video"]
    assert session.media[0].key != session.media[1].key
    with pytest.raises(DataError, match="media: content type: got 'smell'"):
        session.ask("what?", media=[{"type": "smell", "smell": "rose"}])


def test_a_stored_conversation_goes_on_as_it_would_have(assistant):
    session = assistant.chat(system="Be brief.")
    session.ask("what?", video="clip", num_frames=3, **SHORT)
    session.ask("look", media=[{"type": "image", "image": "picture"}], **SHORT)
    restored = Session.from_dict(assistant, json.loads(json.dumps(session.to_dict())))
    assert restored.turns == session.turns
    assert restored.last.answer == session.last.answer
    assert restored.ask("and?", **SHORT) == session.ask("and?", **SHORT)
    with pytest.raises(DataError, match="not a conversation"):
        Session.from_dict(assistant, {"turns": [{}], "system": None})


def test_media_in_memory_cannot_be_stored(assistant):
    session = assistant.chat()
    session.ask("what?", image=np.zeros((8, 8, 3), np.uint8), **SHORT)
    with pytest.raises(DataError, match="ndarray"):
        session.to_dict()


def test_a_full_context_forgets_the_oldest_turns_and_keeps_the_media_when_asked_to(assistant):
    strict, forgetful = assistant.chat(), assistant.chat(overflow="drop_oldest_turn")
    for session in (strict, forgetful):
        session.ask("a" * 120, video="clip", **SHORT)
        session.ask("b" * 120, **SHORT)
        session.ask("c" * 120, **SHORT)
    with pytest.raises(ConfigError, match="drop_oldest_turn"):
        strict.ask("d" * 200, **SHORT)
    forgetful.ask("d" * 200, **SHORT)
    assert [turn.question[0] for turn in forgetful.turns][-1] == "d"
    assert len(forgetful.turns) < 4
    assert [item.medium.kind for item in forgetful.media] == ["audio", "video"]
    with pytest.raises(ConfigError, match="the decoder holds"):
        forgetful.ask("e" * 600, **SHORT)


def test_a_medium_that_cannot_be_read_changes_nothing(assistant, monkeypatch):
    session = assistant.chat()
    session.ask("what?", video="clip", **SHORT)

    def broken(*args, **options):
        raise MediaError("broken: not a video")

    monkeypatch.setattr(assistant.processor, "read", broken)
    with pytest.raises(MediaError):
        session.ask("and?", video="other", **SHORT)
    assert len(session.turns) == 1
