"""The terminal's lines: commands, questions, what stops and what is kept."""

import json

import pytest

from avllm.chat.console import Console
from avllm.errors import ConfigError, MediaError


@pytest.fixture
def console(assistant, monkeypatch):
    def kind_of(source):
        if "broken" in source:
            raise MediaError(f"{source}: not a medium")
        return next((kind for kind in ("video", "image") if kind in source), "audio")

    monkeypatch.setattr("avllm.chat.console.kind_of", kind_of)
    console = Console(assistant.chat(), write=lambda t: said.append(t), tell=lambda t: told.append(t), max_new_tokens=6)
    console.said, console.told = said, told = [], []  # type: ignore[attr-defined]
    return console


def test_a_conversation(console, tmp_path):
    assert console.line("/video my.video")
    assert console.line("what?")
    assert console.session.last.streams_used == ("video", "audio")
    assert "".join(console.said).strip() == console.session.last.answer
    first = console.session.last.answer
    console.line("/image an.image")
    console.line("and this?")
    assert [item.medium.kind for item in console.session.media] == ["audio", "video", "image"]
    console.line("/undo")
    assert len(console.session.turns) == 1
    console.line("/again")
    assert console.session.last.answer == first
    console.line(f"/save {tmp_path / 'talk.json'}")
    assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["turns"][0]["question"] == "what?"
    console.line("/reset")
    assert console.session.turns == []
    assert not console.line("/quit")


def test_the_sound_of_a_video_can_be_left_out(console):
    console.line("/audio-off")
    console.line("/video my.video")
    console.line("what?")
    assert console.session.last.streams_used == ("video",)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("/video broken", "not a medium"),
        ("/video an.image", "use /image"),
        ("/smell rose", "unknown command /smell"),
        ("/video", "expects one file"),
        ("/again", "nothing to answer anew"),
        ("/undo", "nothing to take back"),
        ("/save /no/such/folder/x", "no such folder"),
        ('/video "half', "No closing quotation"),
        ("x" * 600, "the decoder holds"),
    ],
)
def test_a_wrong_line_is_told_and_the_chat_goes_on(console, text, answer):
    console.line("/video my.video")
    assert console.line(text)
    assert answer in "".join(console.told)
    assert console.pending == [{"type": "video", "video": "my.video"}]


def test_ctrl_c_stops_the_answer_and_not_the_chat(console):
    def interrupt(text):
        console.said.append(text)
        if len(console.said) == 2:
            raise KeyboardInterrupt

    console.write, console.options = interrupt, {"max_new_tokens": 300}
    assert console.line("what?")
    assert "(stopped)" in "".join(console.told)
    console.write, console.options = console.said.append, {"max_new_tokens": 4}
    assert console.line("//what")
    assert console.session.turns[-1].question == "/what"


def said(console, *lines):
    """What the last line was answered with, and what was told."""
    for line in lines[:-1]:
        console.line(line)
    console.said.clear()
    console.told.clear()
    console.line(lines[-1])
    return "".join(console.said).strip(), "".join(console.told)


def test_a_question_taken_back_leaves_its_files_for_the_next(console):
    straight, _ = said(console, "/video my.video", "and now?")
    _, told = said(console, "/undo")
    assert told == "took back: and now? (still there: my.video)\n"
    again, _ = said(console, "and now?")
    assert again == straight
    assert console.session.last.streams_used == ("video", "audio")
    said(console, "/image an.image", "look", "more", "/undo")
    assert [item.medium.kind for item in console.session.media] == ["audio", "video", "image"]
    _, told = said(console, "/undo")
    assert told == "took back: look (still there: my.video, an.image)\n"
    _, told = said(console, "/drop")
    assert told == "left out: an.image\n"
    said(console, "and?")
    assert [item.medium.kind for item in console.session.media] == ["audio", "video"]


def test_a_question_taken_back_and_asked_again_reads_its_files_as_before(console):
    console.reading, console.writing = {"num_frames": 2, "start_s": 1.0}, {"max_new_tokens": 6}
    first, _ = said(console, "/video my.video", "/image an.image", "what?")
    assert len(console.session.last.frames) == 2
    said(console, "more", "/undo", "/undo")
    console.reading = {}
    assert said(console, "what?")[0] == first
    assert len(console.session.last.frames) == 2


def test_again_and_edit_are_about_the_same_files(console):
    first, _ = said(console, "/video my.video", "what?")
    assert said(console, "/again")[0] == first
    edited, _ = said(console, "/edit who's there?")
    assert console.session.turns[0].question == "who's there?"
    assert len(console.session.turns) == 1
    console.line("/reset")
    assert said(console, "/video my.video", "who's there?")[0] == edited
    console.line("/edit " + "x" * 600)
    assert [turn.question for turn in console.session.turns] == ["who's there?"]
    assert "expects text" in said(console, "/edit")[1]


def test_oldest_turns_that_are_forgotten_leave_their_files_in_view(console):
    console.session.overflow = "drop_oldest_turn"
    console.line("/video my.video")
    for letter in "abcd":
        console.line(letter * 150)
    assert len(console.session.forgotten) > 0
    assert console.pending == []
    kinds = ["audio", "video"]
    assert [item.medium.kind for item in console.session.media] == kinds
    assert "(still there: my.video)" in said(console, "/undo")[1]
    console.line("/again")
    assert [item.medium.kind for item in console.session.media] == kinds
    kept = json.loads(json.dumps(console.session.to_dict()))
    again = type(console.session).from_dict(console.session.assistant, kept)
    assert again.turns == console.session.turns


def test_a_wrong_option_is_told_before_the_first_question(assistant):
    for options in ({"temperature": -1.0}, {"num_frames": 0}, {"start_s": 2, "end_s": 1}, {"audio": "none"}):
        with pytest.raises(ConfigError):
            Console(assistant.chat(), write=print, tell=print, **options)


def test_a_fault_of_code_is_told_and_the_chat_goes_on(console, monkeypatch):
    def fail(*args, **options):
        raise KeyError("cache")

    console.line("/video my.video")
    with monkeypatch.context() as patch:
        patch.setattr(console.session.assistant, "generate", fail)
        assert said(console, "what?")[1].startswith("! KeyError: 'cache' (avllm ")
    assert said(console, "what?")[0] == console.session.last.answer
