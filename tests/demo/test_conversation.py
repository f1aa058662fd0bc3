import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from avllm.demo.conversation import Conversations
from avllm.demo.settings import Settings
from avllm.demo.uploads import Quota, Uploads
from avllm.demo.votes import Votes
from avllm.errors import MediaError
from tests.demo.fake import FakeModel, sent


@pytest.fixture
def conversations(config):
    uploads = Uploads(Quota(file_bytes=2**20))
    config = replace(config, models=("other",))
    yield Conversations({name: FakeModel(config) for name in ("nano", "other")}, config, uploads)
    uploads.remove()


def send(conversations, visitor, path, name=None, *, adds=False) -> None:
    token = sent(conversations.uploads, path.read_bytes(), path.name)
    conversations.load_upload(visitor, token, name or path.name, adds=adds)


def ask(conversations, visitor, question, **settings) -> str:
    assert conversations.accept(visitor, question)
    return finish(conversations, visitor, **settings)


def finish(conversations, visitor, **settings) -> str:
    for _ in conversations.answer(visitor, Settings.checked(conversations.config, **settings)):
        pass
    return visitor.messages[-1]["content"]


def test_turns_follow_each_other_in_one_session(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])

    assert ask(conversations, visitor, "What?").startswith("clip.mp4, question 1: What?")
    assert ask(conversations, visitor, "And?").startswith("clip.mp4, question 2: And?")
    assert [message["role"] for message in visitor.messages] == ["user", "assistant"] * 2
    assert visitor.evidence is not None


def test_a_question_without_a_file_says_what_to_do(conversations):
    visitor = conversations.visitor("one")

    assert not conversations.accept(visitor, "What?")
    assert visitor.messages[-1]["content"] == "Pick an example or add a file first, then ask about it."


def test_a_bad_upload_is_one_line_and_the_loaded_file_stays(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    send(conversations, visitor, files["broken"], name="../my clip.mp4")

    line = visitor.messages[-1]["content"]
    assert line.startswith("⚠ my clip.mp4: not a video, sound or picture")
    assert "\n" not in line
    assert ask(conversations, visitor, "What?").startswith("clip.mp4")
    assert len(list(visitor.folder.iterdir())) == 1


def test_a_new_file_begins_a_new_conversation_and_removes_the_old(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "What?")
    send(conversations, visitor, files["other"])

    assert visitor.messages == []
    assert visitor.evidence is None
    assert len(list(visitor.folder.iterdir())) == 1
    assert ask(conversations, visitor, "What?").startswith("other.mp4")


def test_other_settings_read_the_file_again(conversations, files, monkeypatch):
    given = []
    stream = conversations.model.stream
    monkeypatch.setattr(
        conversations.model,
        "stream",
        lambda s, q, settings, media, stop: given.append(len(media)) or stream(s, q, settings, media, stop),
    )
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    for streams in ("auto", "auto", "off", "off"):
        ask(conversations, visitor, "What?", streams=streams)

    assert given == [1, 0, 1, 0]


def test_stop_keeps_what_was_written_and_the_next_question_works(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    conversations.accept(visitor, "a long question with many words")
    steps = conversations.answer(visitor, Settings.default(conversations.config))
    for _ in range(3):
        next(steps)
    visitor.stop()
    assert list(steps) == []

    assert visitor.messages[-1]["content"] == "clip.mp4, question ⏹ stopped"
    assert ask(conversations, visitor, "And?").startswith("clip.mp4, question 2: And?")


def test_a_second_question_waits_for_the_first(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    assert conversations.accept(visitor, "first")

    assert not conversations.accept(visitor, "second")
    steps = conversations.answer(visitor, Settings.default(conversations.config))
    next(steps)
    assert list(conversations.answer(visitor, Settings.default(conversations.config))) == []
    assert "first" in (list(steps) and visitor.messages[-1]["content"])


def test_a_file_removed_in_mid_answer_ends_it(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    conversations.accept(visitor, "What?")
    steps = conversations.answer(visitor, Settings.default(conversations.config))
    next(steps)
    conversations.unload(visitor)
    list(steps)

    assert visitor.pending is None
    assert visitor.evidence is None
    assert not list(visitor.folder.iterdir())


def test_an_answer_nobody_reads_any_more_blocks_nothing(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    conversations.accept(visitor, "What?")
    abandoned = conversations.answer(visitor, Settings.default(conversations.config))
    next(abandoned)
    conversations.visitors.leave("one")

    assert ask(conversations, visitor, "Again?").startswith("clip.mp4, question 1: Again?")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (MediaError("sound is required,\nbut there is none"), "⚠ sound is required, but there is none"),
        (RuntimeError("/secret/path 0xdeadbeef"), "⚠ Something went wrong inside"),
    ],
)
def test_a_failing_answer_is_told_and_the_next_one_works(conversations, files, monkeypatch, error, shown):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])

    def fail(*args):
        raise error
        yield

    with monkeypatch.context() as patch:
        patch.setattr(conversations.model, "stream", fail)
        answer = ask(conversations, visitor, "What?")

    assert answer.startswith(shown)
    assert "secret" not in answer
    assert ask(conversations, visitor, "And?").startswith("clip.mp4, question 1: And?")


def test_visitors_do_not_mix(conversations, files):
    one, two = conversations.visitor("one"), conversations.visitor("two")
    send(conversations, one, files["clip"])
    send(conversations, two, files["other"])
    conversations.accept(one, "one?")
    conversations.accept(two, "two?")
    streams = [conversations.answer(visitor, Settings.default(conversations.config)) for visitor in (one, two)]
    while streams:
        streams = [steps for steps in streams if next(steps, "end") != "end"]

    assert one.messages[-1]["content"].startswith("clip.mp4, question 1: one?")
    assert two.messages[-1]["content"].startswith("other.mp4, question 1: two?")


def test_turns_and_questions_are_bounded(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "x" * 10_000)
    assert len(visitor.messages[0]["content"]) == conversations.config.page.max_question_chars

    visitor.asked *= conversations.config.page.max_turns
    assert not conversations.accept(visitor, "one more")
    assert "Clear starts a new one" in visitor.messages[-1]["content"]


def test_a_file_that_joins_the_chat_is_given_with_the_next_question(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "What?")
    send(conversations, visitor, files["picture"], adds=True)

    assert visitor.messages[-1] == {"role": "user", "content": "+ picture.png"}
    assert ask(conversations, visitor, "Both?").startswith("clip.mp4 and picture.png, question 2: Both?")
    assert [shown.name for shown in visitor.evidence.media] == ["clip.mp4", "picture.png"]
    conversations.unload(visitor)
    assert not list(visitor.folder.iterdir())


def test_a_chat_holds_so_many_files_and_no_more(conversations, files):
    visitor = conversations.visitor("one")
    for _ in range(conversations.config.page.max_media + 1):
        send(conversations, visitor, files["picture"], adds=True)

    assert len(visitor.media) == conversations.config.page.max_media
    assert "8 files, which is the most" in visitor.messages[-1]["content"]


def test_undo_takes_back_the_question_and_its_file(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "First?")
    send(conversations, visitor, files["picture"], adds=True)
    ask(conversations, visitor, "Second?")

    assert conversations.undo(visitor) == "Second?"
    assert visitor.evidence is None
    assert ask(conversations, visitor, "Again?").startswith("clip.mp4 and picture.png, question 2: Again?")
    assert conversations.undo(visitor) == "Again?"
    assert conversations.undo(visitor) == "First?"
    assert conversations.undo(visitor) is None
    assert visitor.messages == []
    assert ask(conversations, visitor, "New?").startswith("clip.mp4 and picture.png, question 1: New?")


def test_regenerate_asks_the_last_question_again_with_the_settings_of_now(conversations, files):
    visitor = conversations.visitor("one")
    assert not conversations.regenerate(visitor)
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "First?")
    ask(conversations, visitor, "Second?")

    assert conversations.regenerate(visitor)
    answer = finish(conversations, visitor, temperature=0.9, seed=7)

    assert answer.startswith("clip.mp4, question 2: Second?")
    assert answer.endswith("seed 7")
    assert len(visitor.messages) == 4


def test_a_stopped_or_failed_answer_can_be_made_again(conversations, files, monkeypatch):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    conversations.accept(visitor, "Stopped?")
    steps = conversations.answer(visitor, Settings.default(conversations.config))
    next(steps)
    next(steps)
    visitor.stop()
    list(steps)
    assert conversations.regenerate(visitor)
    with monkeypatch.context() as patch:
        patch.setattr(conversations.model, "stream", failing)
        assert finish(conversations, visitor).startswith("⚠")

    assert conversations.regenerate(visitor)
    assert finish(conversations, visitor).startswith("clip.mp4, question 1: Stopped?")
    assert len(visitor.messages) == 2


def failing(*args):
    raise MediaError("it is broken")
    yield


def test_an_edit_forgets_what_came_after_it(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    for question in ("First?", "Second?", "Third?"):
        ask(conversations, visitor, question)

    for message, text in ((1, "of an answer"), (99, "nowhere"), (-1, "nowhere"), (2, "  ")):
        assert not conversations.edit(visitor, message, text)
    assert conversations.edit(visitor, 2, "Changed?")
    assert finish(conversations, visitor).startswith("clip.mp4, question 2: Changed?")
    assert [message["content"] for message in visitor.messages if message["role"] == "user"] == ["First?", "Changed?"]


def test_an_answer_cut_off_by_undo_leaves_the_earlier_ones(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "First?")
    conversations.accept(visitor, "Second?")
    steps = conversations.answer(visitor, Settings.default(conversations.config))
    next(steps)
    next(steps)
    conversations.undo(visitor)
    list(steps)

    assert ask(conversations, visitor, "Third?").startswith("clip.mp4, question 2: Third?")
    assert len(visitor.messages) == 4


def test_another_model_reads_all_files_again(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "What?")
    send(conversations, visitor, files["picture"], adds=True)

    assert ask(conversations, visitor, "And you?", model="other").startswith("clip.mp4 and picture.png, question 1")
    assert visitor.evidence.model == "other"


def test_votes_are_written_without_file_names_or_not_at_all(conversations, files, tmp_path):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"], name="private name.mp4")
    answer = ask(conversations, visitor, "What?")
    conversations.vote(visitor, 1, True)

    conversations.votes = Votes(tmp_path / "votes.jsonl")
    for message, liked in ((1, True), (1, False), (1, "wild"), (0, True), (7, True), (-1, True)):
        conversations.vote(visitor, message, liked)

    written = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    assert [vote["vote"] for vote in written] == ["up", "down", "none"]
    assert (written[0]["question"], written[0]["answer"], written[0]["model"]) == ("What?", answer, "fake")
    assert set(written[0]) == {"time", "vote", "model", "question", "answer"}


def test_a_chat_does_not_grow_for_ever(conversations, files):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    for _ in range(400):
        conversations.refuse_upload(visitor, 0, "failed")

    assert len(visitor.messages) == 300
    assert not conversations.accept(visitor, "What?")
    assert "Clear starts a new one" in visitor.messages[-1]["content"]
    conversations.clear(visitor)
    assert ask(conversations, visitor, "What?").startswith("clip.mp4, question 1: What?")


def test_a_visitor_cannot_fill_the_file_of_votes(conversations, files, tmp_path):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "What?")
    conversations.votes = Votes(tmp_path / "votes.jsonl")
    for _ in range(300):
        conversations.vote(visitor, 1, True)

    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 200


def test_a_vote_that_cannot_be_stored_is_one_line_in_the_log(conversations, files, tmp_path, caplog):
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    ask(conversations, visitor, "a private question")
    conversations.votes = Votes(tmp_path / "votes.jsonl")
    (tmp_path / "votes.jsonl").unlink()
    (tmp_path / "votes.jsonl").mkdir()
    conversations.vote(visitor, 1, True)

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("a vote was not stored: ")
    assert "private" not in caplog.text


def test_examples_bring_their_questions(conversations, files):
    visitor = conversations.visitor("one")
    example = SimpleNamespace(path=files["clip"], title="A clip", questions=("Which?",))
    conversations.load_example(visitor, example)

    assert visitor.questions == ("Which?",)
    assert visitor.medium.name == "A clip"
    assert files["clip"].exists()
