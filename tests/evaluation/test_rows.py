"""The reader of lists: what stands in their cells, as people and pandas write it."""

import json

import pytest

from avllm.errors import ConfigError, DataError
from avllm.evaluation.benchmark import Benchmark
from avllm.evaluation.extraction import ChoiceRule
from avllm.evaluation.files import option_index, read_csv, read_subtitles
from avllm.evaluation.judge import Judge
from avllm.evaluation.rows import Rows
from avllm.evaluation.sample import PromptText
from avllm.evaluation.scoring import Contains, MultipleChoice

WORDS = ("a car", "a dog", "a cat", "nothing")


def rows(folder, file, **places):
    places = {"media": {"video": "{video}"}, "question": "question", **places}
    return list(Rows(folder=str(folder), file=file, **places).samples())


@pytest.mark.parametrize(
    ("options", "answer", "right"),
    [
        ((1, 2, 3, 4), 2, "2"), (("1", "2", "3", "4"), 2, "2"), (("1", "2", "3", "4"), "2", "2"),
        ((1, 2, 3, 4), 4, "4"), ((0, 2, 4), 2, "2"), ((1.0, 2.0, 3.0), 2, "2"), (("1", "2", "3"), 2.0, "2"),
        ((0.5, 1.5), 1.5, "1.5"),
        ((10, 20), "20.0", "20"), (WORDS, 1, "a dog"), (WORDS, 1.0, "a dog"), (WORDS, "1", "a dog"),
        (WORDS, "b", "a dog"),
        (WORDS, "(B).", "a dog"), (WORDS, "A Dog", "a dog"), (("True", "False"), False, "False"),
        (("no", "yes"), "yes", "yes"),
        (("B", "A"), "A", "A"), ((3, 1, 2), 1, "1"), ((1, 2, 3, 4), "C", "3"),
    ],
)  # fmt: skip
def test_the_right_option_is_its_text_else_its_letter_else_its_place(options, answer, right, tmp_path):
    entry = {"video": "a.mp4", "question": "How many?", "options": options, "answer": answer}
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    (sample,) = rows(tmp_path, "a.json", options="options", answer="answer")
    assert sample.options[sample.truth] == right


@pytest.mark.parametrize(
    ("value", "answer_is", "index"),
    [(1, "index", 1), (1, "number", 0), ("2.0", "number", 1), ("b", "letter", 1), ("a cat", "text", 2)],
)
def test_a_value_is_read_as_it_is_said_to_be_meant(value, answer_is, index):
    assert option_index(value, WORDS, "x", answer_is) == index
    assert option_index(2, ("1", "2", "3"), "x", "index") == 2


@pytest.mark.parametrize(
    ("value", "options", "answer_is", "message"),
    [
        (
            1,
            ("10", "20", "30"),
            "auto",
            r"1 is none of .* counted from 0 it would be '20', from 1 '10': say which with",
        ),
        (4, WORDS, "auto", r"a number below 4, got 4; counted from 1 it would be 'nothing': data.answer_is=number"),
        (-1, WORDS, "auto", "a number below 4, got -1"),
        (0, WORDS, "number", "a number from 1 to 4, got 0"),
        ("E", WORDS, "auto", "expected a letter from A to D, got 'E'"),
        ("a bird", WORDS, "auto", "'a bird' is none of the options"),
        (2, ("2", "2.0"), "auto", "2 is the text of several of the options"),
        (True, ("yes", "no"), "auto", "True is none of the options"),
        (None, WORDS, "auto", "expected the right one of 4 options, got None"),
        (float("nan"), WORDS, "auto", "expected the right one of 4 options, got nan"),
        ("B", WORDS, "text", "'B' is the text of none of the options"),
    ],
)
def test_what_is_no_option_or_could_be_two_is_refused(value, options, answer_is, message):
    with pytest.raises(DataError, match=message):
        option_index(value, options, "a.json[0].answer", answer_is)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("file", ["a.csv", "a.CSV", "a.tsv", "a.json", "a.jsonl"])
def test_byte_order_marks_and_odd_separators_are_read(file, encoding, tmp_path):
    question = "What\u2028is\x85this?"
    entry = {"video": "a.mp4", "question": question, "answer": "car"}
    mark = "\t" if file.endswith("tsv") else ","
    text = {
        "json": json.dumps([entry], ensure_ascii=False), "jsonl": json.dumps(entry, ensure_ascii=False) + "\n\n",
    }.get(file[2:], f"video{mark}question{mark}answer\r\na.mp4{mark}{question}{mark}car\r\n")  # fmt: skip
    (tmp_path / file).write_bytes(text.encode(encoding))
    (sample,) = rows(tmp_path, file, answers="answer")
    assert (sample.question, sample.accepted, sample.media["video"].name) == (question, ("car",), "a.mp4")


def test_nulls_and_floats_of_pandas_are_read_as_meant(tmp_path):
    entry = {"video": 12.0, "question": "?", "options": ["a", "b", None, float("nan")], "answer": 1.0, "kind": None}
    (tmp_path / "a.json").write_text(json.dumps([entry, {**entry, "video": float("nan")}]))
    found = rows(
        tmp_path, "a.json", media={"video": "{video}.mp4"}, text_only=True, options="options", answer="answer",
        category="kind",
    )  # fmt: skip
    assert [(sample.options, sample.truth, sample.category) for sample in found] == [(("a", "b"), 1, "")] * 2
    assert [sample.media.get("video") for sample in found] == [tmp_path / "12.mp4", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None}, r"a.json\[0\].video: expected a text or a number for '{video}', got None"),
        ({"video": ""}, r"a.json\[0\].video: expected a text or a number"),
        ({"question": float("nan")}, r"a.json\[0\].question: expected a text"),
        ({"answer": [None, "x"]}, r"a.json\[0\].answer: expected a text or a list of them"),
    ],
)
def test_a_cell_that_means_nothing_is_named(change, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"video": "a", "question": "?", "answer": "x", **change}]))
    with pytest.raises(DataError, match=message):
        rows(tmp_path, "a.json", answers="answer")


def test_tables_that_are_none_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"video,question\na.mp4,Who, then?\n")
    with pytest.raises(DataError, match=r"a.csv, row 2: more cells than the 2 columns"):
        read_csv(tmp_path / "a.csv", ("video",))
    (tmp_path / "b.csv").write_bytes("vidéo\n".encode("latin-1"))
    with pytest.raises(DataError, match="expected UTF-8, byte 3 is 0xe9"):
        read_csv(tmp_path / "b.csv", ())
    (tmp_path / "c.csv").write_bytes("video\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"got UTF-16"):
        read_csv(tmp_path / "c.csv", ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_subtitles_are_read_in_all_encodings_that_say_what_they_are(encoding, end, tmp_path):
    lines = ["1", "00:00:01,000 --> 00:00:02,500", "Hé <i>you</i>", "", "2", "00:00:03.000 --> 00:00:04.000", "there"]
    (tmp_path / "a.srt").write_bytes(end.join(lines).encode(encoding))
    assert read_subtitles(tmp_path / "a.srt") == ((1.0, 2.5, "Hé you"), (3.0, 4.0, "there"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Rows(folder="", file="", media={"vidoe": "x"}, question="q"),
            "data.media: 'vidoe' is unknown, known are",
        ),
        (lambda: Rows(folder="", file="", media={}, question="q", answer_is="index"), "data.answer_is: .* data.answer"),
        (lambda: Rows(folder="", file="", media={}, question="q", options=(True, False)), "write them in quotes"),
        (lambda: Judge(model="m"), "judge.model: nobody judges as long as judge.url is empty"),
        (lambda: MultipleChoice(published="mvbench", rule=ChoiceRule(searches_text=False)), "score.rule: .* give one"),
        (lambda: MultipleChoice(empty_is_right=True), "score.empty_is_right: .*videochat2"),
        (lambda: ChoiceRule(keeps_answer_word=True), "score.rule.keeps_answer_word: .*letters_inside_words"),
    ],
)
def test_a_setting_without_effect_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_score_of_another_kind_than_the_truth_is_refused_before_the_run(tmp_path):
    entry = {"video": "a.mp4", "question": "?", "options": ["a", "b"], "answer": "a"}
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    reader = Rows(
        folder=str(tmp_path), file="a.json", media={"video": "{video}"}, question="question", answers="answer"
    )
    with pytest.raises(DataError, match="the sample 0 has no options"):
        Benchmark(name="x", data=reader, score=MultipleChoice()).samples()
    reader = Rows(
        folder=str(tmp_path), file="a.json", media={"video": "{video}"}, question="question", options="options",
        answer="answer",
    )  # fmt: skip
    with pytest.raises(DataError, match="it is scored by kind choice"):
        Benchmark(name="x", data=reader, score=Contains()).samples()
    prompt = PromptText(template="{question}\n{options}")
    shuffled = Benchmark(name="x", data=reader, score=MultipleChoice(), prompt=prompt, shuffle_options=2).samples()
    assert [sample.options[sample.truth] for sample in shuffled] == ["a", "a"]
