"""Nothing odd ends a run of a benchmark, doubles its rows or loses them."""

import json
import threading

import pytest

from avllm.errors import AvllmError, DataError, DiskError, InUse
from avllm.evaluation.log import Log
from avllm.evaluation.run import evaluate, rescore, stored
from tests.durable.full_disk import fill, small_disk
from tests.evaluation.fake import FakeAssistant, benchmark


class PanicException(BaseException):
    """As pyo3_runtime.PanicException, which is no Exception."""


def _errors(folder):
    return {name: row["error"] for name, row in Log(folder).rows().items() if "error" in row}


def _plain(report):
    found = report.to_dict()
    del found["run"]
    return found


def test_s22_of_a_tenth_of_broken_media_exactly_those_samples_are_error_rows(tmp_path):
    report = evaluate(benchmark(tmp_path, workers=3), assistant=FakeAssistant(broken="3.mp4"))
    assert _errors(tmp_path / "out") == {f"3/{index}": "3.mp4: broken" for index in range(5)}
    assert not report.ok


def test_a_panic_while_a_medium_is_opened_is_an_error_row(tmp_path):
    class Odd(FakeAssistant):
        def perceive_all(self, *, video, **options):
            if "2" in str(video.name):
                raise PanicException("index out of range")
            return super().perceive_all(video=video, **options)

    evaluate(benchmark(tmp_path), assistant=Odd())
    errors = _errors(tmp_path / "out")
    assert errors.keys() == {f"2/{index}" for index in range(5)}
    assert all(text.startswith("PanicException: index out of range (avllm ") for text in errors.values())


@pytest.mark.parametrize("place", ["avllm.evaluation.answering.scored", "avllm.evaluation.sample.PromptText.text"])
def test_a_sample_that_cannot_be_asked_or_scored_is_an_error_row(tmp_path, monkeypatch, place):
    count = iter(range(1000))

    def odd(*args):
        if next(count) == 7:
            raise ZeroDivisionError("odd")
        return {"read_as": None, "score": 0.0} if "scored" in place else "what?"

    monkeypatch.setattr(place, odd)
    evaluate(benchmark(tmp_path), assistant=FakeAssistant())
    rows = Log(tmp_path / "out").rows()
    assert len(rows) == 40
    (error,) = _errors(tmp_path / "out").values()
    assert error.startswith("ZeroDivisionError: odd (avllm ")


def test_a_second_run_into_the_folder_is_told_of_the_first_before_a_model_loads(tmp_path):
    failed = []

    def other():
        try:
            evaluate(benchmark(tmp_path, model="/nowhere"), resume=True)
        except InUse as error:
            failed.append(str(error))

    class Slow(FakeAssistant):
        def perceive_all(self, **options):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return super().perceive_all(**options)

    evaluate(benchmark(tmp_path), assistant=Slow())
    assert len(failed) == 8
    assert failed[0].startswith(f"{tmp_path}/out: another thread of this process writes it right now")
    assert len(Log(tmp_path / "out").rows()) == 40
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_s25_a_full_disk_loses_no_row_and_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = _plain(evaluate(benchmark(tmp_path), assistant=FakeAssistant()))
    with small_disk(tmp_path / "disk") as disk:
        (disk / "out").mkdir()
        filler = fill(disk, leave=16 * 1024)
        bench = benchmark(tmp_path, out=str(disk / "out"))
        with pytest.raises(DiskError, match=r"out/\S+: cannot be written: no space is left on its disk"):
            evaluate(bench, assistant=FakeAssistant())
        assert [path.name for path in (disk / "out").iterdir()] == ["log.jsonl"]
        kept = (disk / "out" / "log.jsonl").read_bytes()
        assert kept.endswith(b"\n")
        filler.unlink()
        assistant = FakeAssistant()
        assert _plain(evaluate(bench, resume=True, assistant=assistant)) == whole
        assert len(assistant.asked) == 41 - kept.count(b"\n") > 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.jsonl", '{"id": "0/0"}\n'),
        ("log.jsonl", '{"run": 5}\n{"id": "0/0"}\n'),
        ("log.jsonl", '{"run": {}}\n{"id": "0/0"}\n'),
        ("log.jsonl", "[" * 100_000 + "\n"),
        ("judge.jsonl", '{"id": "0/0"}\n'),
        ("report.json", "{"),
        ("report.json", "[]"),
    ],
)
def test_a_file_that_somebody_changed_is_told_by_its_name(tmp_path, name, text):
    bench = benchmark(tmp_path)
    evaluate(bench, assistant=FakeAssistant())
    (tmp_path / "out" / name).write_text(text, encoding="utf-8")
    failed = []
    for work in (lambda: rescore(bench), lambda: stored(tmp_path / "out"), lambda: evaluate(bench, resume=True)):
        try:
            work()
        except AvllmError as error:
            failed.append(error)
    assert failed
    assert all(isinstance(error, DataError) and str(tmp_path / "out") in str(error) for error in failed)


def test_rows_are_json_for_every_reader(tmp_path):
    evaluate(benchmark(tmp_path), assistant=FakeAssistant())
    for line in (tmp_path / "out" / "log.jsonl").read_bytes().split(b"\n")[:-1]:
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
