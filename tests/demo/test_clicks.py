"""Each feature of the page is used once in a real browser, over models that need no weights."""

import json
import time

import pytest

from tests.demo.browser import CHROMIUM, Tab

pytest.importorskip(
    "playwright.sync_api", reason="BROWSER TESTS NOT RUN: install playwright (pip install 'avllm[dev]')"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="BROWSER TESTS NOT RUN: no Chromium; apt-get install chromium"),
]
_SLIDERS = {"frames": "3", "temperature": "0.7", "top-p": "0.5", "beams": "2", "max-tokens": "20"}


@pytest.fixture
def clip(tab, files):
    """A tab with a video that has been asked about once."""
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.ask("First?")
    assert tab.wait_idle(1).startswith("clip.mp4, question 1: First?")
    return tab


def fill(tab: Tab, name: str, value: str) -> None:
    field = f"#av-{name} input[type=text], #av-{name} input[type=number], #av-{name} textarea"
    tab.page.fill(field, value)
    tab.page.press(field, "Tab")


def test_regenerate_answers_the_last_question_again(clip):
    clip.ask("Second?")
    clip.wait_idle(2)
    before = clip.page.inner_text(".av-timings")
    clip.page.click("#av-more >> text=More settings")
    fill(clip, "temperature", "0.9")
    fill(clip, "seed", "41")
    clip.page.click("#av-regenerate")
    clip.page.wait_for_function("document.querySelector('#av-chat').innerText.includes('seed 41')")

    assert clip.wait_idle(2).startswith("clip.mp4, question 2: Second?")
    assert clip.texts("user") == ["First?", "Second?"]
    assert before


def test_undo_gives_the_question_back_to_be_changed(clip):
    clip.ask("Second?")
    clip.wait_idle(2)
    clip.page.click("#av-undo")
    clip.page.wait_for_function("document.querySelectorAll('[data-testid=bot]').length == 1")

    assert clip.page.input_value("#av-question textarea") == "Second?"
    clip.ask("Other?")
    assert clip.wait_idle(2).startswith("clip.mp4, question 2: Other?")


def test_a_question_is_edited_in_its_place(clip):
    clip.ask("Second <b>?")
    clip.wait_idle(2)
    clip.page.click("#av-chat button[aria-label=Edit] >> nth=1")
    field = clip.page.wait_for_selector("#av-chat textarea")
    assert field.input_value().replace("\u2060", "") == "Second <b>?"
    field.fill("Changed <i>?")
    clip.page.click("#av-chat button[aria-label=Submit]")
    clip.page.wait_for_function("document.querySelector('#av-chat').innerText.includes('question 2: Changed')")

    assert clip.wait_idle(2).startswith("clip.mp4, question 2: Changed <i>?")
    assert clip.texts("user") == ["First?", "Changed <i>?"]


def test_an_answer_is_copied_as_it_was_written(clip):
    clip.context.grant_permissions(["clipboard-read", "clipboard-write"])
    clip.page.click("#av-chat .message-buttons-left button >> nth=0")

    copied = clip.page.evaluate("navigator.clipboard.readText()")
    assert copied.replace("\u2060", "").startswith("clip.mp4, question 1: First? <b>bold</b>")


def test_thumbs_are_written_to_the_file_that_was_named(clip, server):
    votes = server.temp / "votes.jsonl"
    before = votes.read_text().count("\n")
    assert "stores the question and the answer" in clip.page.inner_text("#av-votes-note")
    clip.page.click("#av-chat button[aria-label*=like] >> nth=0")

    end = time.monotonic() + 20
    while time.monotonic() < end and votes.read_text().count("\n") == before:
        time.sleep(0.1)
    vote = json.loads(votes.read_text().splitlines()[-1])
    assert vote["vote"] in ("up", "down")
    assert vote["question"] == "First?"
    assert "clip.mp4" not in json.dumps({**vote, "answer": ""})


def test_a_new_file_joins_the_chat_or_begins_another(clip, files):
    clip.page.click("#av-new-media >> text=joins the chat")
    clip.upload(files["picture"])
    clip.page.wait_for_selector("#av-file img.av-player")
    assert "clip.mp4" in clip.page.inner_text("#av-file .av-earlier")
    clip.ask("Both?")
    assert clip.wait_idle(2).startswith("clip.mp4 and picture.png, question 2: Both?")
    assert clip.texts("user") == ["First?", "+ picture.png", "Both?"]
    assert [name.inner_text() for name in clip.page.query_selector_all("#av-evidence .av-name")] == [
        "clip.mp4",
        "picture.png",
    ]

    clip.page.click("#av-new-media >> text=starts a new chat")
    clip.upload(files["other"])
    clip.page.wait_for_function("document.querySelectorAll('[data-testid=bot]').length == 0")
    clip.ask("Alone?")
    assert clip.wait_idle(1).startswith("other.mp4, question 1: Alone?")


def test_the_model_is_picked(clip):
    clip.page.click("#av-model input")
    clip.page.click("[role=option] >> text=other")
    clip.ask("And you?")

    clip.wait_idle(2)
    assert "other" in clip.page.inner_text(".av-timings")


def test_every_setting_reaches_the_answer(clip):
    clip.page.click("#av-more >> text=More settings")
    for name, value in _SLIDERS.items():
        fill(clip, name, value)
    fill(clip, "seed", "12")
    fill(clip, "system", "be <i>short</i>")
    clip.ask("Which settings?")

    answer = clip.wait_idle(2)
    for written in ("seed 12", "num_beams 2", "top_p 0.5", "system be <i>short</i>", "frames 3", "max_new_tokens 20"):
        assert written in answer
    assert clip.page.query_selector("#av-chat .message-content i") is None


@pytest.mark.parametrize(
    ("choice", "picture", "sound"),
    [("Auto", True, True), ("Require sound", True, True), ("Picture only", True, False), ("Sound only", False, True)],
)
def test_the_streams_that_are_used_are_chosen_and_shown(clip, choice, picture, sound):
    clip.page.click(f"#av-audio >> text={choice}")
    clip.ask("What?")
    clip.wait_idle(2)

    used = [chip.get_attribute("data-on") for chip in clip.page.query_selector_all(".av-stream")]
    assert used == [str(picture).lower(), str(sound).lower()]
    assert bool(clip.page.query_selector(".av-strip figure")) == picture
    assert bool(clip.page.query_selector(".av-wave svg")) == sound
    assert len(clip.page.query_selector_all(".av-mels img")) == (2 if sound else 0)


def test_all_files_are_removed_with_a_click(clip):
    clip.page.click("#av-file [data-act=remove]")
    clip.page.wait_for_selector("#av-file .av-drop")

    assert len(clip.texts()) == 1
    clip.ask("What?")
    assert clip.wait_idle(2) == "Pick an example or add a file first, then ask about it."


@pytest.mark.parametrize(("device", "shown"), [("camera", "video"), ("microphone", "audio")])
def test_a_recording_is_made_and_asked_about(tab, device, shown):
    tab.page.click(f"#av-file [data-act={device}]")
    tab.page.click("[data-act=record]")
    tab.page.wait_for_timeout(1500)
    tab.page.click("[data-act=record-stop]")
    tab.page.wait_for_selector(f"#av-file .av-file {shown}")
    tab.ask("What was that?")

    assert tab.wait_idle(1).startswith(f"{device}.webm, question 1: What was that?")
    assert tab.page.query_selector(".av-recorder") is None


def test_a_photo_is_taken(tab):
    tab.page.click("#av-file [data-act=camera]")
    tab.page.wait_for_selector(".av-recorder video")
    tab.page.wait_for_function("document.querySelector('.av-recorder video').videoWidth > 0")
    tab.page.click("[data-act=photo]")
    tab.page.wait_for_selector("#av-file img.av-player")
    tab.ask("What was that?")

    assert tab.wait_idle(1).startswith("photo.jpg, question 1: What was that?")


def test_a_recording_is_called_off_and_a_refused_device_is_told(tab):
    tab.page.click("#av-file [data-act=microphone]")
    tab.page.click("[data-act=cancel]")
    assert tab.page.query_selector(".av-recorder") is None

    tab.page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('no')); }")
    tab.page.click("#av-file [data-act=camera]")
    assert tab.wait_idle(1).startswith("⚠ the browser gives no camera or microphone")


def test_without_devices_no_recording_is_offered(chrome, server):
    tab = Tab(chrome, server, script="Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")

    assert not tab.page.is_visible("#av-file [data-act=camera]")
    assert tab.page.is_visible("#av-file .av-drop")
    tab.close()
