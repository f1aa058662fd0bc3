"""Every YAML of a published benchmark on a sample in its exact layout, with real clips and the shipped model."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from avllm.errors import ConfigError, DataError
from avllm.evaluation.aspects import ASPECTS
from avllm.evaluation.benchmark import read_benchmark
from avllm.evaluation.judge import Judge
from avllm.evaluation.mvbench import TASKS
from avllm.evaluation.run import evaluate
from tests.evaluation import layouts
from tests.evaluation.judge_server import completion, serve

OPEN = {"msvd_qa", "msrvtt_qa", "tgif_qa"}


def read(name, folder, *overrides):
    return read_benchmark(name, [f"data.folder={folder}", f"out={folder}/out", *overrides])


def only(name, folder, *overrides):
    (sample,) = read(name, folder, *overrides).samples()
    return sample


@pytest.mark.parametrize(
    "name",
    [
        "mvbench",
        "mvbench_videochat2",
        "egoschema",
        "videomme",
        "nextqa",
        "perception_test",
        "activitynet_qa",
        *sorted(OPEN),
    ],
)
def test_a_benchmark_runs_from_its_yaml_on_its_layout(name, tmp_path, clip, nano):
    make = "mvbench" if name.startswith("mvbench") else "zero_shot_qa" if name in OPEN else name
    getattr(layouts, make)(tmp_path, clip)

    report = evaluate(read(name, tmp_path, "max_new_tokens=4"), assistant=nano)

    assert report.errors == []
    assert report.missing == ()
    assert report.overall.n == (20 if make == "mvbench" else 1)
    assert all(row["frames_s"] for row in report.rows)


def test_mvbench_has_parts_and_folders_of_frames(tmp_path, clip):
    layouts.mvbench(tmp_path, clip)
    samples = {sample.category: sample for sample in read("mvbench", tmp_path).samples()}
    assert list(samples) == [task.name for task in TASKS]
    whole, part, frames = (samples[name] for name in ("State Change", "Action Sequence", "Episodic Reasoning"))
    assert (whole.start_s, whole.truth, whole.missing) == (None, 1, [])
    assert (part.start_s, part.end_s) == (0.4, 1.7)
    assert frames.media["video"].is_dir()
    assert frames.source_fps == 3
    assert (frames.start_s, frames.end_s) == pytest.approx((0.0, 5 / 3))  # frames 1 to 5 of 7
    assert [sample.id for sample in read("mvbench", tmp_path, "data.tasks=[State Change]").samples()] == [
        "state_change/0"
    ]
    with pytest.raises(DataError, match="'Nothing' is unknown"):
        read("mvbench", tmp_path, "data.tasks=[Nothing]").samples()


def test_frames_of_a_part_lie_in_it(tmp_path, clip, nano):
    layouts.mvbench(tmp_path, clip)
    report = evaluate(read("mvbench", tmp_path, "max_new_tokens=1"), assistant=nano)
    rows = {row["category"]: row for row in report.rows}
    assert all(0.2 <= time_s <= 1.7 for time_s in rows["Action Sequence"]["frames_s"])
    assert all(time_s <= 4.5 / 3 for time_s in rows["Episodic Reasoning"]["frames_s"])


def test_egoschema_asks_the_subset_or_all(tmp_path, clip):
    layouts.egoschema(tmp_path, clip)
    assert [(s.id, s.truth) for s in read("egoschema", tmp_path).samples()] == [("u-2", 4)]
    all_of_it = read("egoschema", tmp_path, "data.subset=false").samples()
    assert [(s.id, s.truth, len(s.missing)) for s in all_of_it] == [("u-1", None, 1), ("u-2", 4, 0)]


def test_videomme_shows_the_subtitles_of_the_frames(tmp_path, clip):
    layouts.videomme(tmp_path, clip)
    bench = read("videomme", tmp_path, "data.subtitles=true")
    (sample,) = bench.samples()
    assert (sample.truth, sample.options[2], sample.groups["duration"]) == (2, "It grows.", "short")
    assert sample.subtitles_at([0.1, 0.5, 3.0]) == "Look, a bell\nringing"
    text = bench.prompt.text(sample, [3.0])
    assert text.startswith("This video's subtitles are listed below:\nringing\nSelect the best answer")
    assert text.endswith("The best answer is: ")
    assert "subtitles" not in bench.prompt.text(only("videomme", tmp_path), [3.0])


def test_videomme_reads_its_parquet_file(tmp_path, clip):
    layouts.videomme(tmp_path, clip)
    expected = only("videomme", tmp_path)
    (tmp_path / "test.json").unlink()
    parquet.write_table(pyarrow.Table.from_pylist(layouts.videomme_rows()), tmp_path / "test-00000-of-00001.parquet")
    assert only("videomme", tmp_path) == expected


def test_video_chatgpt_names_what_a_judge_looks_at_and_keeps_two_wordings_together(tmp_path, clip, nano):
    layouts.video_chatgpt(tmp_path, clip)
    bench = read("video_chatgpt", tmp_path, "max_new_tokens=12")
    samples = bench.samples()
    assert [sample.aspects for sample in samples] == [
        ("correctness", "detail", "context"), ("temporal",), ("consistency",), ("consistency",),
    ]  # fmt: skip
    assert {name for sample in samples for name in sample.aspects} <= set(ASPECTS)
    assert [sample.together for sample in samples] == ["", "", "consistency/0", "consistency/0"]
    assert len(read("video_chatgpt", tmp_path, "limit=2").samples()) == 2

    with serve(behave=lambda number, body: (200, completion('{"score": 3}'), {})) as server:
        judge = Judge(url=server.url, model="judge-2026-01-01")
        report = evaluate(replace(bench, judge=judge), assistant=nano)

    assert {name: found.score.n for name, found in report.judgements["judge-2026-01-01"].items()} == dict.fromkeys(
        ("correctness", "detail", "context", "temporal", "consistency"), 1
    )
    assert all(found.score.mean == 0.6 for found in report.judgements["judge-2026-01-01"].values())
    assert len(server.requests) == 5
    assert report.categories["consistency"].n == 1
    assert set(report.measures["all"]) == {"CIDEr-D", "BLEU-4"}
    assert set(report.measures) == {"all", "consistency", "generic", "temporal"}
    pair = [row for row in report.rows if row["category"] == "consistency"]
    shown = ASPECTS["consistency"].asked(pair)
    assert f"Predicted Answer to Question 2: {pair[1]['answer']}" in shown
    assert "Correct Answer: A bell." in shown


def test_nextqa_perception_test_and_the_open_ones_keep_what_is_published(tmp_path, clip):
    layouts.nextqa(tmp_path / "n", clip)
    sample = only("nextqa", tmp_path / "n")
    assert (sample.id, sample.truth, sample.category) == ("4010069381_6", 3, "causal: how")
    assert sample.question == "How do the two man play?"
    layouts.perception_test(tmp_path / "p", clip)
    sample = only("perception_test", tmp_path / "p")
    assert (sample.id, sample.truth, sample.category) == ("video_8/3", 2, "physics")
    layouts.activitynet_qa(tmp_path / "a", clip)
    sample = only("activitynet_qa", tmp_path / "a")
    assert (sample.accepted, sample.category, sample.question) == (("bell",), "object", "what moves?")
    assert sample.media["video"].name == "v_1QIUV7WYKXg.mp4"


@pytest.mark.parametrize(
    ("make", "file", "change", "message"),
    [
        ("mvbench", "json/state_change.json", {"answer": "no"}, r"state_change.json\[0\].answer: 'no' is none of"),
        ("mvbench", "json/action_sequence.json", {"end": 0.1}, r"expected 0 <= start < end in seconds"),
        ("egoschema", "questions.json", {"option 3": ""}, r"questions.json\[0\].option 3: expected a text"),
        ("videomme", "test.json", {"answer": "E"}, r"expected a letter from A to D, got 'E'"),
    ],
)
def test_a_wrong_entry_is_named(make, file, change, message, tmp_path, clip):
    getattr(layouts, make)(tmp_path, clip)
    rows = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps([{**rows[0], **change}, *rows[1:]]))
    overrides = ["data.subset=false"] if make == "egoschema" else []
    with pytest.raises(DataError, match=message):
        read(make, tmp_path, *overrides).samples()


@pytest.mark.parametrize("place", [7, ["a"], {"a": 1}, None, "", 1.5])
def test_an_odd_place_of_a_video_is_named(tmp_path, clip, place):
    layouts.nextqa(tmp_path, clip)
    path = tmp_path / "map_vid_vidorID.json"
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), place)))
    (number, *_), wanted = [*json.loads(path.read_text())], r"map_vid_vidorID\.json\.\w+: expected a text"
    if isinstance(place, int | float):  # a number is taken as its text
        (sample, *_) = read("nextqa", tmp_path).samples()
        assert sample.missing, number
        return
    with pytest.raises(DataError, match=wanted):
        read("nextqa", tmp_path).samples()


@pytest.mark.parametrize("content", ["7", "[]", '"text"', "null", "1.5"])
@pytest.mark.parametrize(("name", "file"), [("nextqa", "map_vid_vidorID.json"), ("egoschema", "subset_answers.json")])
def test_a_table_that_is_none_is_named(tmp_path, clip, name, file, content):
    getattr(layouts, name)(tmp_path, clip)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=rf"{file}: expected keys and values"):
        read(name, tmp_path).samples()


@pytest.mark.parametrize("options", [7, None, {}, [], 1.5])
def test_odd_options_are_named(tmp_path, clip, options):
    layouts.videomme(tmp_path, clip)
    path = tmp_path / "test.json"
    path.write_text(json.dumps([{**row, "options": options} for row in json.loads(path.read_text())]))
    with pytest.raises(DataError, match=r"test\.json\[0\]\.options: expected a list of entries"):
        read("videomme", tmp_path).samples()


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a/" * 3000, "a\0b", "\ud800"])
@pytest.mark.parametrize(
    ("make", "file", "key"),
    [
        ("egoschema", "questions.json", "q_uid"),
        ("videomme", "test.json", "videoID"),
        ("video_chatgpt", "temporal_qa.json", "video_name"),
        ("activitynet_qa", "test_q.json", "video_name"),
        ("mvbench", "json/episodic_reasoning.json", "video"),
    ],
)
def test_a_video_whose_name_no_file_can_have_is_missing(make, file, key, name, tmp_path, clip):
    getattr(layouts, make)(tmp_path, clip)
    path = next(tmp_path.rglob(file))
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([{**first, key: name}, *others]))
    overrides = ["data.subset=false"] if make == "egoschema" else []
    overrides += ["data.subtitles=true"] if make == "videomme" else []
    assert any(sample.missing for sample in read(make, tmp_path, *overrides).samples())


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_number_of_hundreds_of_digits_is_no_text_that_fails(tmp_path, clip, value):
    layouts.video_chatgpt(tmp_path, clip)
    path = next(tmp_path.rglob("temporal_qa.json"))
    path.write_text(json.dumps([{**row, "A": value} for row in json.loads(path.read_text())]))
    assert str(value) in {text for sample in read("video_chatgpt", tmp_path).samples() for text in sample.accepted}


def test_a_question_without_answer_and_a_missing_file_are_named(tmp_path, clip):
    layouts.zero_shot_qa(tmp_path, clip)
    (tmp_path / "test_a.json").write_text('[{"answer": "x", "question_id": 7}]')
    with pytest.raises(DataError, match="no answer with question_id 42"):
        read("msvd_qa", tmp_path).samples()
    with pytest.raises(DataError, match="cannot be read"):
        read("nextqa", tmp_path).samples()


def test_a_wrong_key_is_named():
    with pytest.raises(ConfigError, match=r"data\.fodler: unknown key"):
        read_benchmark("mvbench", ["data.fodler=x"])
    with pytest.raises(ConfigError, match=r"unknown field \{answer\}"):
        read_benchmark("mvbench", ["prompt.template='{answer}'"])


def test_braces_and_fields_in_a_question_stay_text(tmp_path, clip):
    layouts.zero_shot_qa(tmp_path, clip)
    rows = json.loads((tmp_path / "test_q.json").read_text())
    (tmp_path / "test_q.json").write_text(json.dumps([{**rows[0], "question": "what is {options} or {}?"}]))
    bench = read("msvd_qa", tmp_path)
    assert bench.prompt.text(bench.samples()[0]) == "what is {options} or {}?"


def test_every_yaml_is_read():
    names = sorted(path.stem for path in (Path(__file__).parents[2] / "eval_configs").glob("*.yaml"))
    benchmarks = [name for name in names if name in {*OPEN, "mvbench", "egoschema", "videomme", "nextqa"}]
    assert len(benchmarks) == 7
    for name in benchmarks:
        assert read_benchmark(name).out == f"outputs/eval/{name}"
