import io
import json

import pytest
from rich.console import Console

from avllm.config import PACKAGE
from avllm.demo.examples import load_examples
from avllm.demo.terminal import answer_example
from avllm.errors import ConfigError
from tests.demo.fake import FakeModel


def test_reads_clips_questions_and_answers(example_folder):
    examples = load_examples(str(example_folder))

    assert [example.title for example in examples] == ["the clip", "the other"]
    assert examples[0].questions == ("What do you see?", "Where?")
    assert examples[0].answers == ("a colour", "there")


def test_the_shipped_examples_are_whole():
    examples = load_examples("nano/examples")

    assert len(examples) >= 3
    assert all(example.path.parent == PACKAGE / "nano" / "examples" for example in examples)
    assert all(len(example.questions) == len(example.answers) > 0 for example in examples)


def test_no_examples_are_fine():
    assert load_examples(None) == ()


@pytest.mark.parametrize(
    "truth", ["[{}]", "not json", '[{"file": "clip.mp4", "questions": [{"question": "What?"}]}]', "[1]"]
)
def test_a_wrong_truth_is_named(tmp_path, truth):
    (tmp_path / "truth.json").write_text(truth)
    (tmp_path / "clip.mp4").write_bytes(b"x")

    with pytest.raises(ConfigError, match=r"truth\.json: expected a list of file, title, questions"):
        load_examples(str(tmp_path))


def test_a_missing_clip_or_folder_is_named(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps([{"file": "../gone.mp4", "questions": []}]))

    with pytest.raises(ConfigError, match=r"names \.\./gone\.mp4, which is not beside it"):
        load_examples(str(tmp_path))
    with pytest.raises(ConfigError, match=r"page\.examples: no truth\.json in nowhere"):
        load_examples("nowhere")


def test_the_terminal_shows_question_answer_truth_and_seconds(example_folder, config):
    out = io.StringIO()

    answers = answer_example(
        FakeModel(config), load_examples(str(example_folder))[0], Console(file=out, markup=False, width=200)
    )

    text = out.getvalue()
    assert answers[0].startswith("the clip, question 1: What do you see?")
    assert answers[1].startswith("the clip, question 2: Where?")
    for line in ("question  What do you see?", "answer    the clip, question 1", "truth     a colour", "seconds   0."):
        assert line in text
