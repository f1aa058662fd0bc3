from types import SimpleNamespace

import pytest

from avllm.demo.conversation import Conversations, Settings
from avllm.demo.uploads import Uploads
from avllm.errors import MediaError
from tests.demo.fake import FakeModel


@pytest.fixture
def conversations(config):
    uploads = Uploads(max_bytes=2**20)
    yield Conversations(FakeModel(config), config, uploads)
    uploads.remove()


def send(conversations, visitor, path, name=None) -> None:
    folder = conversations.uploads.root / ("a" * 64)
    folder.mkdir(exist_ok=True)
    stored = folder / path.name
    stored.write_bytes(path.read_bytes())
    conversations.load_upload(visitor, str(stored), name or path.name)


def ask(conversations, visitor, question, **settings) -> str:
    assert conversations.accept(visitor, question)
    for _ in conversations.answer(visitor, Settings.checked(conversations.config, **forged(**settings))):
        pass
    return visitor.messages[-1]["content"]


def forged(audio="auto", frames=None, temperature=0.0, max_new_tokens=10) -> dict:
    return {"audio": audio, "frames": frames, "temperature": temperature, "max_new_tokens": max_new_tokens}


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
        lambda s, q, settings, medium: given.append(medium) or stream(s, q, settings, medium),
    )
    visitor = conversations.visitor("one")
    send(conversations, visitor, files["clip"])
    for audio in ("auto", "auto", "off", "off"):
        ask(conversations, visitor, "What?", audio=audio)

    assert [medium is not None for medium in given] == [True, False, True, False]


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
    assert ask(conversations, visitor, "And?").startswith("clip.mp4, question 1: And?")


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

    visitor.num_turns = conversations.config.page.max_turns
    assert not conversations.accept(visitor, "one more")
    assert "Clear starts a new one" in visitor.messages[-1]["content"]


def test_forged_settings_are_brought_into_range(config):
    wild = {"audio": ["off"], "frames": 10**9, "temperature": float("nan"), "max_new_tokens": "many"}

    settings = Settings.checked(config, **wild)

    assert settings == Settings.default(config)
    assert Settings.checked(config, **forged(max_new_tokens=10**9)).max_new_tokens == 96


def test_examples_bring_their_questions(conversations, files):
    visitor = conversations.visitor("one")
    example = SimpleNamespace(path=files["clip"], title="A clip", questions=("Which?",))
    conversations.load_example(visitor, example)

    assert visitor.questions == ("Which?",)
    assert visitor.medium.name == "A clip"
    assert files["clip"].exists()
