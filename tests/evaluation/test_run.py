import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from avllm.errors import DataError
from avllm.evaluation.log import Log
from avllm.evaluation.run import evaluate, plan, rescore
from avllm.evaluation.scoring import MultipleChoice
from tests.evaluation.fake import FakeAssistant, benchmark

ROOT = Path(__file__).parents[2]


def plain(report):
    found = report.to_dict()
    del found["run"]
    return found


def row_ids(path):
    return [row["id"] for row in map(json.loads, path.read_text().splitlines()) if "id" in row]


def test_each_medium_is_opened_once_and_each_question_asked_once(tmp_path):
    assistant = FakeAssistant()
    report = evaluate(benchmark(tmp_path), assistant=assistant)

    assert assistant.opened == [f"{clip}.mp4" for clip in range(8)]
    assert len(assistant.asked) == len(set(assistant.asked)) == 40
    assert report.overall.n == 40
    assert {name: mean.n for name, mean in report.categories.items()} == {"even": 24, "odd": 16}
    assert list(report.groups) == ["length"]
    assert "length: short" in report.to_table()
    row = Log(tmp_path / "out").rows()["0/0"]
    assert row["prompt"] == "Where does thing 0 go?\n(A) left\n(B) right\n(C) up"
    assert row["frames_s"] == [0.0, 1.0]
    assert row["media_hashes"] == ["0.mp4"]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_workers_do_not_change_the_scores(tmp_path, workers):
    once = evaluate(benchmark(tmp_path / "a", batch=1), assistant=FakeAssistant())
    many = evaluate(benchmark(tmp_path / "b", batch=7, workers=workers), assistant=FakeAssistant())
    assert plain(once) == plain(many)


def test_cut_anywhere_a_log_goes_on_without_loss_or_repetition(tmp_path):
    whole = plain(evaluate(benchmark(tmp_path), assistant=FakeAssistant()))
    log = tmp_path / "out" / "log.jsonl"
    data = log.read_bytes()
    places = random.Random(0).sample(range(len(data)), 20)
    for place in [0, len(data) - 1, *places]:
        log.write_bytes(data[:place])
        kept = max(data[:place].count(b"\n") - 1, 0)
        assistant = FakeAssistant()

        report = evaluate(benchmark(tmp_path), resume=True, assistant=assistant)

        assert plain(report) == whole
        assert len(assistant.asked) == 40 - kept
        assert Counter(row_ids(log)) == Counter({f"{clip}/{index}": 1 for clip in range(8) for index in range(5)})


def test_a_killed_run_goes_on(tmp_path):
    script = (
        "from pathlib import Path; from avllm.evaluation.run import evaluate;"
        "from tests.evaluation.fake import FakeAssistant, benchmark;"
        f"evaluate(benchmark(Path({str(tmp_path)!r})), assistant=FakeAssistant(seconds=0.3))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    log = tmp_path / "out" / "log.jsonl"
    for _ in range(1200):
        if log.exists() and log.read_bytes().count(b"\n") > 4:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = row_ids(log)
    assert 0 < len(before) < 40

    assistant = FakeAssistant()
    evaluate(benchmark(tmp_path), resume=True, assistant=assistant)

    assert len(assistant.asked) == 40 - len(before)
    assert row_ids(log)[: len(before)] == before
    assert len(set(row_ids(log))) == len(row_ids(log)) == 40


def test_processes_share_the_work_and_give_the_same_report(tmp_path, monkeypatch):
    alone = plain(evaluate(benchmark(tmp_path / "a"), assistant=FakeAssistant()))
    opened = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    reports = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        assistant = FakeAssistant()
        reports.append(evaluate(benchmark(tmp_path / "b"), assistant=assistant))
        opened += assistant.opened
    assert reports[:2] == [None, None]
    assert plain(reports[2]) == alone
    assert sorted(opened) == [f"{clip}.mp4" for clip in range(8)]


def test_scoring_again_needs_neither_model_nor_media_and_gives_the_same(tmp_path):
    once = evaluate(benchmark(tmp_path), assistant=FakeAssistant())
    for file in (tmp_path / "clips").iterdir():
        file.unlink()
    assert plain(rescore(benchmark(tmp_path))) == plain(once)
    as_published = rescore(benchmark(tmp_path, score=MultipleChoice(published="egoschema")))
    assert as_published.overall == once.overall


def test_missing_and_broken_media_are_listed_and_counted(tmp_path):
    bench = benchmark(tmp_path)
    (tmp_path / "clips" / "1.mp4").unlink()

    report = evaluate(bench, assistant=FakeAssistant(broken="2.mp4"))

    assert report.missing == (str(tmp_path / "clips" / "1.mp4"),)
    assert [row["id"] for row in report.errors] == [f"2/{index}" for index in range(5)]
    assert report.overall.n == 30
    assert report.missing_share == 0.25
    assert not report.ok
    assert "25.0 % of the samples have no answer, allowed are 0.0 %" in report.to_table()
    assert replace(report, max_missing=0.25).ok
    assert json.loads((tmp_path / "out" / "report.json").read_text())["missing_media"] == list(report.missing)
    assert plain(rescore(bench)) == plain(report)


def test_a_limit_is_spread_over_the_benchmark_and_can_be_raised(tmp_path):
    few = evaluate(benchmark(tmp_path, limit=8), assistant=FakeAssistant())
    assert {row["id"].split("/")[0] for row in few.rows} == set("01234567")
    assistant = FakeAssistant()
    evaluate(benchmark(tmp_path, limit=16), resume=True, assistant=assistant)
    assert len(assistant.asked) == 8


def test_a_run_is_not_mixed_with_another(tmp_path):
    evaluate(benchmark(tmp_path, limit=2), assistant=FakeAssistant())
    with pytest.raises(DataError, match="holds a run; go on with --resume"):
        evaluate(benchmark(tmp_path), assistant=FakeAssistant())
    with pytest.raises(DataError, match="holds a run with another max_new_tokens"):
        evaluate(benchmark(tmp_path, max_new_tokens=7), resume=True, assistant=FakeAssistant())
    with Log(tmp_path / "out").appending({}), pytest.raises(DataError, match="another run is writing"):
        evaluate(benchmark(tmp_path), resume=True, assistant=FakeAssistant())


def test_a_plan_touches_nothing(tmp_path):
    bench = benchmark(tmp_path)
    (tmp_path / "clips" / "1.mp4").unlink()
    text = plan(bench).describe(bench)
    assert "40 samples about 8 media" in text
    assert "1 media of 5 samples are missing" in text
    assert "(A) left" in text
    assert not (tmp_path / "out").exists()
