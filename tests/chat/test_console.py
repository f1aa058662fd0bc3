"""The terminal's lines: commands, questions, what stops and what is kept."""

import json

import pytest

from avllm.chat.console import Console
from avllm.errors import MediaError


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
        ("/save /no/such/folder/x", "No such file"),
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
