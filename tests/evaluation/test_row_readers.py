"""The benchmarks of sounds, captions and images: each YAML on a sample in its exact layout, with the shipped model."""

import csv
import io
import json
from pathlib import Path

import openpyxl
import pytest

from avllm.cli import main
from avllm.errors import ConfigError, DataError
from avllm.evaluation.benchmark import read_benchmark
from avllm.evaluation.run import evaluate, rescore
from tests.evaluation import layouts
from tests.evaluation.row_layouts import LAYOUTS, Media

NUMBERS = {
    "clotho_aqa": 3,
    "clotho_aqa_original": 3,
    "tut2017": 3,
    "pope": 6,
    "scienceqa": 2,
    "mmbench": 2,
}  # of questions; else one
WITHOUT_TRUTH = {"vqav2", "vizwiz"}
SEES = {"vqav2", "vqav2_val", "gqa", "vizwiz", "vizwiz_val", "textvqa", "pope", "scienceqa", "mmbench"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, clip, sound, image):
    root = tmp_path_factory.mktemp("layouts")
    for name, make in LAYOUTS.items():
        make(root / name, Media(clip, sound, image))
    return root


def read(name, folder, *overrides):
    return read_benchmark(name, [f"data.folder={folder}", f"out={folder}/out", *overrides])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_benchmark_runs_from_its_yaml_on_its_layout(name, folders, tmp_path, nano):
    bench = read(name, folders / name, f"out={tmp_path}", "max_new_tokens=4")

    report = evaluate(bench, assistant=nano)

    assert report.errors == []
    assert report.missing == ()
    assert report.overall.n == (0 if name in WITHOUT_TRUTH else NUMBERS.get(name, 1))
    heard = [row for row in report.rows if "audio" in row["streams"]]
    assert len(heard) == (0 if name in SEES else len(report.rows))
    assert all("<" not in row["prompt"] for row in report.rows)
    assert rescore(bench).to_dict() == report.to_dict()


def by_id(name, folders, *overrides):
    return {sample.id: sample for sample in read(name, folders / name, *overrides).samples()}


def test_rows_find_the_truth_of_the_other_file(folders):
    pope = by_id("pope", folders)
    assert [(s.category, s.accepted) for s in pope.values()] == [
        (category, (label,)) for category in ("adversarial", "popular", "random") for label in ("yes", "no")
    ]
    (textvqa,) = by_id("textvqa", folders).values()
    assert textvqa.accepted[:2] == ("dakota", "DAKOTA")
    assert "Reference OCR token: DAKOTA" in textvqa.question
    (gqa,) = by_id("gqa", folders).values()
    assert (gqa.accepted, gqa.category, gqa.groups) == (("yes",), "verify", {"semantic": "attr"})
    science = by_id("scienceqa", folders)
    assert [(s.truth, s.category, s.groups["media"], len(s.media)) for s in science.values()] == [
        (0, "natural science", "image", 1),
        (1, "social science", "none", 0),
    ]
    assert science["4"].groups["grade"] == "grade2"


def test_labels_are_options_and_answers_split_by_kind(folders):
    tut = by_id("tut2017", folders)
    assert [(s.truth, s.options[s.truth]) for s in tut.values()] == [
        (2, "cafe or restaurant"), (9, "metro station"), (14, "tram"),
    ]  # fmt: skip
    bench = read("tut2017", folders / "tut2017")
    text = bench.prompt.text(bench.samples()[0])
    assert text.startswith("Question: Identify the sound event in the audio.\nOptions:\n(A) beach\n(B) bus\n")
    assert "\n(O) tram\n.Answer with" in text
    assert [s.category for s in by_id("clotho_aqa", folders).values()] == ["yes/no", "yes/no", "other"]
    (msvc,) = by_id("msvc", folders).values()
    assert (len(msvc.accepted), msvc.aspects) == (3, ("correctness", "detail"))
    (avssd,) = read("avssd", folders / "avssd").samples()
    assert read("avssd", folders / "avssd").prompt.text(avssd) == "Identify the event in the video."


def test_music_avqa_fills_its_questions(folders, tmp_path):
    (sample,) = by_id("music_avqa_original", folders).values()
    assert sample.question == "Is the bell at the left louder?"
    assert (sample.id, sample.accepted, sample.category) == ("50", ("yes",), "Audio-Visual: Temporal")
    assert sample.missing == []
    (tmp_path / "avqa-test.json").write_text(
        '[{"video_id": "1", "question_id": 1, "type": "[]", "question_content": "A <X>?", "templ_values": "[]"}]'
    )
    with pytest.raises(DataError, match=r"\[0\]: 1 places to fill in 'A <X>\?', and 0 values"):
        read("music_avqa_original", tmp_path).samples()


def test_mmbench_counts_the_rounds_of_a_question_together(folders, tmp_path, nano):
    bench = read("mmbench", folders / "mmbench", f"out={tmp_path}")
    first, again, other = bench.samples()
    assert first.together == again.together != other.together
    assert first.media == again.media
    assert first.question == "Look at it.\nWhat moves?"
    assert bench.prompt.text(other).startswith("What sounds?\nA. bell\nB. tree\nC. dog\nD. cat\nAnswer with")
    evaluate(bench, assistant=nano)
    log = tmp_path / "log.jsonl"
    header, *rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row, said in zip(rows, ("A", "A", "D"), strict=True):  # the second is wrong
        row["answer"] = said
    log.write_text("".join(json.dumps(row) + "\n" for row in (header, *rows)))
    report = rescore(bench)
    assert (report.overall.mean, report.overall.n) == (0.5, 2)
    sheet = openpyxl.load_workbook(tmp_path / "submission.xlsx").active
    assert list(sheet.values) == [
        ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split"),
        (241, "Look at it.\nWhat moves?", "bell", "tree", None, None, "A", "A", "dev"),
        (252, "What sounds?", "bell", "tree", "dog", "cat", "D", "D", "dev"),
        (1000241, "Look at it.\nWhat moves?", "tree", "bell", None, None, "A", "B", "dev"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("\n252\t", "\nx\t", r"row 4: expected a whole number as index, got 'x'"),
        ("\tA\timage_style", "\tC\timage_style", r"row 2.answer: expected a letter from A to B, got 'C'"),
        ("\t/9j/", "\t!9j/", r"row 2.image: no base64"),
        ("\tcategory\t", "\tkind\t", r"no column category; it has: index, question"),
    ],
)
def test_a_wrong_row_of_mmbench_is_named(before, after, message, tmp_path, clip, sound, image):
    LAYOUTS["mmbench"](tmp_path, Media(clip, sound, image))
    path = tmp_path / "mmbench_dev_20230712.tsv"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=message):
        read("mmbench", tmp_path).samples()


def test_pope_reports_f1_and_the_share_of_yes_by_sampling(folders, tmp_path, nano):
    report = evaluate(read("pope", folders / "pope", f"out={tmp_path}"), assistant=nano)
    assert list(report.measures) == ["all", "adversarial", "popular", "random"]
    said = [row["read_as"] == "yes" for row in report.rows]
    assert report.measures["all"]["yes"].mean == pytest.approx(sum(said) / 6, abs=1e-6)
    assert set(json.loads((tmp_path / "report.json").read_text())["measures"]["popular"]) == {
        "F1", "precision", "recall", "yes",
    }  # fmt: skip
    assert "popular: F1" in report.to_table()
    assert ">precision<" in (tmp_path / "report.html").read_text()


def submitted(name, folder, out, nano, *overrides):
    bench = read(name, folder, f"out={out}", "max_new_tokens=3", *overrides)
    report = evaluate(bench, assistant=nano)
    return report.rows, json.loads((out / "submission.json").read_text())


def test_servers_of_images_get_the_form_they_want(folders, tmp_path, nano, capsys):
    rows, found = submitted("vqav2", folders / "vqav2", tmp_path / "a", nano)
    assert found == [
        {"question_id": 262144000, "answer": rows[0]["read_as"]},
        {"question_id": 262144001, "answer": ""},
    ]
    rows, found = submitted("vizwiz", folders / "vizwiz", tmp_path / "b", nano)
    assert found == [{"image": "VizWiz_test_00000000.jpg", "answer": rows[0]["read_as"]}]
    assert main(["eval", "gqa", f"data.folder={folders}/gqa", f"out={tmp_path}/c", "max_new_tokens=3"]) == 0
    assert "wrote report.json, report.html, the server's file to" in capsys.readouterr().out.replace("\n", " ")
    (found,) = json.loads((tmp_path / "c" / "testdev_balanced_predictions.json").read_text())
    assert set(found) == {"questionId", "prediction"}


def test_servers_of_videos_get_the_form_they_want(tmp_path, clip, nano):
    layouts.egoschema(tmp_path / "e", clip)
    rows, found = submitted("egoschema", tmp_path / "e", tmp_path / "e" / "out", nano)
    chosen = "ABCDE".find(rows[0]["read_as"]) if rows[0]["read_as"] else 0
    assert found == {"u-2": chosen}
    table = csv.reader(io.StringIO((tmp_path / "e" / "out" / "submission.csv").read_text()))
    assert list(table) == [["q_uid", "answer"], ["u-2", str(chosen)]]

    layouts.perception_test(tmp_path / "p", clip)
    rows, found = submitted("perception_test", tmp_path / "p", tmp_path / "p" / "out", nano)
    (answer,) = found["video_8"]
    assert answer["id"] == 3
    assert answer["answer"] == rows[0]["options"][answer["answer_id"]]

    layouts.videomme(tmp_path / "v", clip)
    _, (video,) = submitted("videomme", tmp_path / "v", tmp_path / "v" / "out", nano)
    assert {key: video[key] for key in ("video_id", "duration", "domain", "sub_category")} == {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity",
    }  # fmt: skip
    (question,) = video["questions"]
    assert {key: question[key] for key in ("question_id", "task_type", "question", "options", "answer")} == {
        key: layouts.videomme_rows()[0][key] for key in ("question_id", "task_type", "question", "options", "answer")
    }


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("clotho_aqa", "clothoAQA_eval.json", {"conversations": [{"value": "x"}]}, r"conversations\[1\]: missing"),
        ("clotho_aqa", "clothoAQA_eval.json", {"audio": None}, r"\[0\].audio: expected a text or a number"),
        ("tut2017", "tut2017_eval.jsonl", {"gt": "moon"}, r"tut2017_eval.jsonl:1.gt: 'moon' is none of the options"),
        ("scienceqa", "llava_test_CQM-A.json", {"id": "99"}, r"\[0\]: 99 is not in .*problems.json"),
        ("vqav2", "llava_vqav2_mscoco_test-dev2015.jsonl", {"image": {"a": 1}}, r"1.image: expected a text or a"),
    ],
)
def test_a_wrong_entry_is_named(name, file, change, message, tmp_path, clip, sound, image):
    LAYOUTS[name](tmp_path, Media(clip, sound, image))
    path = tmp_path / file
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([{**rows[0], **change}, *rows[1:]]))
    else:
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(first), **change}), *rest]) + "\n")
    with pytest.raises(DataError, match=message):
        read(name, tmp_path).samples()


def test_an_unknown_form_of_submission_is_named():
    with pytest.raises(ConfigError, match="submission: 'vqa' is unknown, known are: egoschema"):
        read_benchmark("vqav2", ["submission=vqa"])


def test_every_yaml_of_a_benchmark_is_read_and_has_a_layout():
    shown = {path.stem for path in (Path(__file__).parents[2] / "eval_configs").glob("*.yaml")}
    assert set(LAYOUTS) <= shown
    for name in LAYOUTS:
        assert read_benchmark(name).out == f"outputs/eval/{name}"
