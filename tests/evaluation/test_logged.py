"""A log is a file that anyone may have edited: what is odd in it is one line, for rescoring and comparing."""

import json
from dataclasses import replace

import pytest

from avllm.errors import AvllmError, DataError
from avllm.evaluation.judge import FILE
from avllm.evaluation.page import page
from avllm.evaluation.run import evaluate, rescore, stored
from tests.evaluation.fake import FakeAssistant, benchmark

ODD = (None, True, -1, 7, 10**400, 1.5, float("nan"), "", "text", [], ["text"], [[]], [None], {}, {"a": []}, {"a": "b"})
EACH = 4  # of the odd values every fourth one at a key: all of them take 20 s
VERDICT = {
    **{"id": "0/0", "aspect": "match", "model": "judge", "key": "k", "answer_hash": "h", "tokens": [1, 2]},
    **{"cost": 0.1, "served_by": "judge", "score": 3, "is_match": True},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    evaluate(benchmark(folder, clips=1, shuffle_options=2), assistant=FakeAssistant())
    return folder / "out", [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]


def faults(folder, found, where) -> list[str]:
    """What scoring, showing and comparing raise that is not ours or not one line."""
    odd = []

    def compare():
        report = stored(folder)
        report.to_table()
        page([report, report])

    for call in (lambda: rescore(found).to_table(), compare):
        try:
            call()
        except AvllmError as error:
            odd += [f"{where}: {error}"] if "\n" in str(error) else []
        except Exception as error:  # any at all is a fault
            odd.append(f"{where}: {type(error).__name__}: {error}")
    return odd


def write(path, rows) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_odd_value_at_any_key_of_a_log_is_one_line(run, tmp_path):
    out, (header, *rows) = run
    found, odd = replace(benchmark(tmp_path, clips=1), out=str(tmp_path / "out")), []
    places = [(0, key) for key in header["run"]] + [(number, key) for number in (1, 2) for key in rows[number - 1]]
    places += [(1, key) for key in ("start_s", "end_s", "source_fps", "together", "accepted", "verdicts", "error")]
    for place, (number, key) in enumerate(places):
        for value in ODD[place % EACH :: EACH]:
            lines = [json.loads(json.dumps(row)) for row in (header, *rows)]
            (lines[number]["run"] if number == 0 else lines[number])[key] = value
            write(tmp_path / "out" / "log.jsonl", lines)
            odd += faults(tmp_path / "out", found, f"line {number + 1}, {key}={value!r}"[:80])
    assert not odd, "\n".join(odd[:20])


def test_a_key_that_is_missing_or_odd_is_named(run, tmp_path):
    _, (header, row, *_) = run
    found = replace(benchmark(tmp_path, clips=1), out=str(tmp_path / "out"))
    for change, message in (
        ({"options": "ABC"}, "options: expected a list of at most 26 texts, got 'ABC'"),
        ({"truth": 3}, "truth: expected the number of one of 3 options, got 3"),
        ({"frames_s": ["1"]}, r"frames_s: expected a list of seconds, got \['1'\]"),
        ({"prompt": None}, "prompt: expected a text, got None"),
    ):
        write(tmp_path / "out" / "log.jsonl", [header, {**row, **change}])
        with pytest.raises(DataError, match=f"log.jsonl: {message}; set out=DIR"):
            rescore(found)
    write(tmp_path / "out" / "log.jsonl", [header, {key: value for key, value in row.items() if key != "prompt"}])
    with pytest.raises(DataError, match=r"log.jsonl: prompt is missing"):
        stored(tmp_path / "out")


def test_an_odd_value_at_any_key_of_a_judges_file_is_one_line(run, tmp_path):
    _, lines = run
    found, odd = replace(benchmark(tmp_path, clips=1), out=str(tmp_path / "out")), []
    write(tmp_path / "out" / "log.jsonl", lines)
    for place, key in enumerate((*VERDICT, "error")):
        for value in ODD[place % EACH :: EACH]:
            write(tmp_path / "out" / FILE, [{**VERDICT, key: value}])
            odd += faults(tmp_path / "out", found, f"{key}={value!r}"[:80])
    assert not odd, "\n".join(odd[:20])


@pytest.mark.parametrize("content", ["[]", '{"missing_media": 3}', '{"without_media": "x"}', '{"missing_media": [1]}'])
def test_an_odd_report_of_before_is_one_line(run, tmp_path, content):
    _, lines = run
    write(tmp_path / "out" / "log.jsonl", lines)
    (tmp_path / "out" / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json: "):
        rescore(replace(benchmark(tmp_path, clips=1), out=str(tmp_path / "out")))


def test_rows_of_another_benchmark_make_no_submission(run, tmp_path):
    _, lines = run
    write(tmp_path / "out" / "log.jsonl", lines)
    found = replace(benchmark(tmp_path, clips=1), out=str(tmp_path / "out"))
    with pytest.raises(DataError, match="submission: vizwiz cannot be written"):
        rescore(replace(found, submission="vizwiz"))
