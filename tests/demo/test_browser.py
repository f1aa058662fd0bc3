"""The page in a real browser. First over a model that needs no weights, then `python demo.py` with nano itself."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from avllm.demo.examples import load_examples
from tests.demo.browser import CHROMIUM, ROOT, Tab, python, serving

pytest.importorskip(
    "playwright.sync_api", reason="BROWSER TESTS NOT RUN: install playwright (pip install 'avllm[dev]')"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="BROWSER TESTS NOT RUN: no Chromium; apt-get install chromium"),
]
NASTY = '"><img src=x onerror=alert(1)>.mp4'


@pytest.mark.parametrize(("name", "player"), [("clip", "video"), ("tone", "audio"), ("picture", "img.av-player")])
def test_a_file_is_uploaded_shown_and_asked_about(tab, files, name, player):
    tab.upload(files[name])
    tab.page.wait_for_selector(f"#av-file {player}")
    tab.ask("What is this?")
    answer = tab.wait_idle(1)

    assert answer.startswith(f"{files[name].name}, question 1: What is this?")
    assert tab.texts("user") == ["What is this?"]
    assert len(tab.page.query_selector_all(".av-strip figure")) == {"clip": 8, "tone": 0, "picture": 1}[name]
    assert (tab.page.query_selector(".av-wave svg") is not None) == (name != "picture")
    assert "decode" in tab.page.inner_text(".av-timings")


def test_the_answer_is_streamed_and_turns_go_on(tab, files):
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.page.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => {
            const last = [...document.querySelectorAll('[data-testid=bot]')].pop();
            if (last) window.seen.add(last.innerText);
        }).observe(document.querySelector('#av-chat'), {childList: true, subtree: true, characterData: true}); }"""
    )
    tab.ask("Say it slowly, word by word?")
    whole = tab.wait_idle(1)
    seen = tab.page.evaluate("[...window.seen].map((text) => text.replaceAll('\\u2060', '').trim())")
    assert len([text for text in seen if text != whole and whole.startswith(text)]) >= 3

    tab.ask("And then?")
    assert tab.wait_idle(2).startswith("clip.mp4, question 2: And then?")


def test_the_video_that_is_shown_plays(tab, files):
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")

    tab.page.wait_for_function("document.querySelector('#av-file video').readyState >= 1")
    assert tab.page.evaluate("document.querySelector('#av-file video').duration") == pytest.approx(2.0, abs=0.2)


def test_examples_are_there_to_be_clicked(tab):
    assert [card.inner_text().strip() for card in tab.page.query_selector_all(".av-card")] == ["the clip", "the other"]

    tab.page.click(".av-card >> nth=1")
    tab.page.wait_for_selector("#av-file video")
    tab.page.click(".av-chip >> nth=0")

    assert tab.wait_idle(1).startswith("the other, question 1: What do you see?")


def test_a_broken_upload_is_one_line_and_the_next_question_works(tab, files):
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.upload(files["broken"])
    assert tab.wait_idle(1).startswith("⚠ broken.mp4: not a video")

    tab.ask("Still there?")
    assert tab.wait_idle(2).startswith("clip.mp4, question 1: Still there?")


def test_too_large_a_file_is_refused(tab, server, tmp_path):
    (tmp_path / "large.mp4").write_bytes(b"\0" * (2**20 + 1))
    tab.upload(tmp_path / "large.mp4")
    assert tab.wait_idle(1) == "⚠ the file has 1.0 MB, at most 1 MB are taken; cut or compress it"

    sent = httpx.post(f"{server.url}gradio_api/upload", files={"files": ("large.mp4", b"\0" * (2**20 + 1))})
    assert sent.status_code == 413
    assert not [path for path in server.files() if path.stat().st_size > 2**20]


def test_names_questions_and_answers_never_become_html(tab, files, tmp_path):
    path = tmp_path / NASTY
    path.write_bytes(files["clip"].read_bytes())
    tab.upload(path)
    tab.page.wait_for_selector("#av-file video")
    tab.ask("<img src=x onerror=alert(2)> <script>alert(3)</script> &lt;i&gt; $$x$$ [a](javascript:alert(4))")
    answer = tab.wait_idle(1)

    for literal in (
        "<img src=x onerror=alert(2)>",
        "<script>alert(3)</script>",
        "&lt;i&gt;",
        "<b>bold</b>",
        "**stars**",
    ):
        assert literal in answer
    for selector in ("img", "b", "script", "a", "i"):
        assert tab.page.query_selector(f"#av-chat .message-content {selector}") is None
    assert tab.page.query_selector("#av-file img[src=x]") is None
    assert "onerror" in tab.page.inner_text("#av-file .av-name") or "img src=x" in tab.page.inner_text(
        "#av-file .av-name"
    )


def test_stop_clear_and_the_sound_switch(tab, files):
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.ask("a long " + "very " * 60 + "long question")
    tab.page.click("#av-question .stop-button")
    assert tab.wait_idle(1).endswith("⏹ stopped")

    tab.page.click("#av-audio >> text=Picture only")
    tab.ask("Quiet?")
    tab.wait_idle(2)
    assert tab.page.inner_text(".av-stream[data-on=false]") == "sound · switched off"

    tab.page.click("#av-clear")
    tab.page.wait_for_function("document.querySelectorAll('[data-testid=bot]').length == 0")
    tab.ask("New?")
    assert tab.wait_idle(1).startswith("clip.mp4, question 1: New?")


def test_a_question_without_a_file_says_what_to_do(tab):
    tab.ask("What?")

    assert tab.wait_idle(1) == "Pick an example or add a file first, then ask about it."


def test_two_visitors_at_once_do_not_mix(chrome, server, files):
    tabs = [Tab(chrome, server), Tab(chrome, server)]
    names = ("clip", "other")
    for tab, name in zip(tabs, names, strict=True):
        tab.upload(files[name])
        tab.page.wait_for_selector("#av-file video")
    for tab, name in zip(tabs, names, strict=True):
        tab.ask(f"I am {name} and ask a question with many words in it?")
    for tab, name in zip(tabs, names, strict=True):
        assert tab.wait_idle(1).startswith(f"{name}.mp4, question 1: I am {name} and ask")
        assert len(tab.texts()) == len(tab.texts("user")) == 1
    for tab in tabs:
        tab.close()


def test_a_reload_in_mid_answer_and_a_closed_tab_leave_nothing(chrome, server, files):
    tab = Tab(chrome, server)
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.ask("word " * 60)
    tab.page.wait_for_selector("[data-testid=bot]")
    tab.page.reload()
    tab.page.wait_for_selector(".av-drop")
    tab.upload(files["other"])
    tab.page.wait_for_selector("#av-file video")
    tab.ask("And now?")
    assert tab.wait_idle(1).startswith("other.mp4, question 1: And now?")
    tab.close()

    end = time.monotonic() + 20
    while time.monotonic() < end and [path for path in server.files() if "visitors" in path.parts]:
        time.sleep(0.2)
    assert [path for path in server.files() if "visitors" in path.parts] == []


def test_fits_a_phone(chrome, server, files):
    tab = Tab(chrome, server, width=390, height=844)
    tab.upload(files["clip"])
    tab.page.wait_for_selector("#av-file video")
    tab.ask("Small?")
    tab.wait_idle(1)

    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("#av-file", "#av-chat", "#av-question", "#av-evidence", "#av-settings"):
        box = tab.page.query_selector(selector).bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    tab.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`python demo.py` itself, with nano."""
    command = python("demo.py", "--cfg-path", "eval_configs/nano_withaudio.yaml", "--port", "PORT")
    with serving(command, tmp_path_factory.mktemp("nano")) as server:
        yield server


def test_demo_py_answers_an_example_in_the_terminal_first(demo):
    log = demo.log.read_text()
    example = load_examples("nano/examples")[0]

    asked = re.findall(r"question  (.+)\n  answer    (.+)\n  truth     (.+)\n  seconds   [\d.]+\n", log)
    assert [question for question, _, _ in asked] == list(example.questions)
    assert [truth for _, _, truth in asked] == list(example.answers)
    assert sum(answer == truth for _, answer, truth in asked) >= len(asked) - 1
    assert log.index("truth") < log.index(f"avllm demo: {demo.url.rstrip('/')}")


def test_demo_py_answers_uploads_of_two_visitors(demo, chrome):
    tabs = [Tab(chrome, demo), Tab(chrome, demo)]
    examples = load_examples("nano/examples")[:2]
    for tab, example in zip(tabs, examples, strict=True):
        tab.upload(example.path)
        tab.page.wait_for_selector("#av-file video")
        tab.ask(example.questions[0])
    answers = [tab.wait_idle(1) for tab in tabs]

    truth = [example.answers[0] for example in examples]
    assert [words(answer) & words(true) for answer, true in zip(answers, truth, strict=True)]
    assert sum(len(words(a) & words(t)) / len(words(t)) for a, t in zip(answers, truth, strict=True)) / 2 > 0.6
    for tab in tabs:
        assert len(tab.page.query_selector_all(".av-strip figure")) >= 2
        assert tab.faults == []
        tab.close()


def test_demo_py_survives_a_broken_upload(demo, chrome, files):
    tab = Tab(chrome, demo)
    tab.upload(files["broken"])
    assert tab.wait_idle(1).startswith("⚠ broken.mp4: not a media file")

    example = load_examples("nano/examples")[0]
    tab.page.click(".av-card >> nth=0")
    tab.page.wait_for_selector("#av-file video")
    tab.ask(example.questions[0])
    assert words(tab.wait_idle(1)) & words(example.answers[0])
    tab.close()


def test_demo_py_goes_through_a_whole_visit(demo, chrome):
    tab = Tab(chrome, demo)
    example = load_examples("nano/examples")[0]
    tab.page.click(".av-card >> nth=0")
    tab.page.wait_for_selector("#av-file video")
    tab.ask(example.questions[0])
    first = tab.wait_idle(1)
    assert len(tab.page.query_selector_all(".av-mels img")) >= 2

    tab.page.click("#av-regenerate")
    tab.page.wait_for_timeout(1000)
    assert tab.wait_idle(1) == first  # greedy: the same answer again

    tab.page.click("#av-more >> text=More settings")
    tab.page.fill("#av-beams input[type=number]", "3")
    tab.page.press("#av-beams input[type=number]", "Tab")
    tab.page.click("#av-audio >> text=Sound only")
    tab.ask("What do you hear?")
    tab.wait_idle(2)
    used = [chip.get_attribute("data-on") for chip in tab.page.query_selector_all(".av-stream")]
    assert used == ["false", "true"]

    tab.page.click("#av-audio >> text=Auto")
    tab.page.click("#av-new-media >> text=joins the chat")
    tab.page.click("#av-file [data-act=camera]")
    tab.page.click("[data-act=record]")
    tab.page.wait_for_timeout(1500)
    tab.page.click("[data-act=record-stop]")
    tab.page.wait_for_selector("#av-file .av-earlier")
    tab.ask("What do you see now?")
    assert not tab.wait_idle(3).startswith("⚠")
    assert len(tab.page.query_selector_all("#av-evidence .av-evidence-head")) == 2

    tab.page.click("#av-undo")
    tab.page.wait_for_function("document.querySelectorAll('[data-testid=bot]').length == 2")
    assert tab.faults == []
    tab.close()


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - {"a", "the", "with", "of", "then", "and"}


def test_demo_py_removes_its_files_when_it_ends(demo):  # the last one with this server
    httpx.post(f"{demo.url}gradio_api/upload", files={"files": ("x.mp4", b"x")})
    assert demo.files()
    demo.stop()

    assert list(demo.temp.glob("avllm-demo-*")) == []


def test_truth_of_the_shipped_examples_is_json():
    assert json.loads((Path(ROOT) / "avllm/nano/examples/truth.json").read_text())
