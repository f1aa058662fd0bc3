"""Judges behind a real local HTTP server that speaks the protocol, and misbehaves."""

import json
import multiprocessing
import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from avllm.errors import ConfigError, DataError
from avllm.evaluation.aspects import ASPECTS
from avllm.evaluation.endpoint import _seconds
from avllm.evaluation.judge import FILE, Judge, ask
from avllm.evaluation.run import evaluate, rescore, stored
from avllm.evaluation.verdict import read
from tests.evaluation.fake import OPEN, FakeAssistant, open_benchmark
from tests.evaluation.judge_server import completion, serve

MODEL = "judge-2026-01-01"


def judge(url, **changes):
    return Judge(**{"url": url, "model": MODEL, "wait_s": 0.01, "timeout_s": 5.0, **changes})


def run(folder, asked, **changes):
    return evaluate(open_benchmark(folder, judge=asked, **changes), assistant=FakeAssistant(letters=OPEN), resume=True)


def verdicts(folder):
    return [json.loads(line) for line in (folder / "out" / FILE).read_text().splitlines()]


def test_verdicts_stand_beside_the_rules_and_their_price_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with serve() as server:
        report = run(tmp_path, judge(server.url, key_env="JUDGE_KEY", price=(1.0, 10.0)))

    request = server.requests[0]
    assert request["path"] == "/v1/chat/completions"
    assert request["model"] == MODEL
    assert request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"]["properties"]["pred"]["enum"] == ["yes", "no"]
    assert all(headers["Authorization"] == "Bearer sk-secret" for headers in server.headers)
    assert not any("sk-secret" in file.read_text() for file in (tmp_path / "out").iterdir())

    found = report.judgements[MODEL]["match"]
    assert found.accuracy == report.offline["exact"] == report.overall
    assert 0 < found.accuracy.mean < 1
    assert found.score.mean == pytest.approx((5 * found.accuracy.mean + 1 * (1 - found.accuracy.mean)) / 5)
    assert found.agreement == 1.0
    assert report.judges[MODEL] == {"tokens": [1000, 100], "cost": pytest.approx(0.002), "served_by": [MODEL]}
    stored_json = json.loads((tmp_path / "out" / "report.json").read_text())["judges"][MODEL]
    assert stored_json["aspects"]["match"]["score"]["mean"] == pytest.approx(5 * found.score.mean, abs=1e-5)
    assert "judge-2026-01-01: 1000 tokens in, 100 out, cost 0.0020" in report.to_table()
    assert "offline: normalised" in report.to_table()
    assert stored(tmp_path / "out").judgements == report.judgements


def test_no_verdict_is_paid_for_twice_and_rescoring_needs_no_judge(tmp_path):
    with serve() as server:
        asked = judge(server.url)
        first = run(tmp_path, asked)
        again = run(tmp_path, asked)
        more = run(tmp_path, asked, clips=3)
    assert len(server.requests) == 15
    assert first.judgements == again.judgements
    assert more.judgements[MODEL]["match"].score.n == 15

    scored_again = rescore(open_benchmark(tmp_path, clips=3, judge=asked))
    assert scored_again.judgements == more.judgements
    assert len(server.requests) == 15


def test_an_answer_that_changed_is_judged_anew(tmp_path):
    with serve() as server:
        asked = judge(server.url)
        run(tmp_path, asked)
        log = tmp_path / "out" / "log.jsonl"
        num_changed = log.read_text().count('"answer": "(X)"')
        assert 0 < num_changed < 10
        log.write_text(log.read_text().replace('"answer": "(X)"', '"answer": "(Y)"'))
        report = rescore(open_benchmark(tmp_path, judge=asked))
    assert len(server.requests) == 10 + num_changed
    assert report.judgements[MODEL]["match"].accuracy.mean == report.overall.mean


def test_busy_broken_and_babbling_servers_are_asked_again(tmp_path):
    faults = {
        0: (429, "slow down", {"Retry-After": "0.3"}),
        1: (500, "oops", {}),
        2: (200, "<html>not JSON", {}),
        3: (200, "{}", {}),
        4: (200, completion("I think it is right."), {}),
        5: (503, "", {}),
    }
    with serve(behave=lambda number, body: faults.get(number)) as server:
        report = run(tmp_path, judge(server.url, concurrency=1))

    assert len(server.requests) == 16
    assert server.times[1] - server.times[0] >= 0.3
    assert report.judgements[MODEL]["match"].failed == 0
    assert report.judgements[MODEL]["match"].accuracy == report.overall
    # What the babbling cost counts.
    assert report.judges[MODEL]["tokens"] == [1100, 110]
    assert len(verdicts(tmp_path)) == 10


def test_a_reply_that_does_not_come_is_asked_for_again(tmp_path):
    def slow_once(number, body):
        if number == 0:
            time.sleep(0.5)

    with serve(behave=slow_once) as server:
        report = run(tmp_path, judge(server.url, timeout_s=0.2, concurrency=1))
    assert len(server.requests) == 11
    assert report.judgements[MODEL]["match"].score.n == 10


def test_a_judge_that_is_gone_stops_the_judging_but_not_the_report(tmp_path):
    with serve() as server:
        asked = judge(server.url, tries=2, concurrency=1)
        limited = run(tmp_path, asked, limit=4)
    with pytest.raises(DataError, match=r"does not answer \(ConnectError.*, 2 times\); go on with --resume"):
        run(tmp_path, asked)
    report = stored(tmp_path / "out")
    assert report.overall.n == 10
    assert report.judgements[MODEL]["match"].score.n == limited.judgements[MODEL]["match"].score.n == 4

    with serve() as server:
        report = run(tmp_path, judge(server.url))
    assert len(server.requests) == 6
    assert report.judgements[MODEL]["match"].failed == 0


def test_one_question_that_is_refused_or_never_understood_fails_alone(tmp_path):
    def picky(number, body):
        text = body["messages"][1]["content"]
        if "thing 3" in text:
            return 400, '{"error": "content filter"}', {}
        return (200, completion("no idea"), {}) if "thing 4" in text else None

    with serve(behave=picky) as server:
        report = run(tmp_path, judge(server.url, tries=3))
        assert len(server.requests) == 6 + 2 + 2 * 3
        found = report.judgements[MODEL]["match"]
        assert (found.score.n, found.failed) == (6, 4)
        assert "4 verdicts failed" in report.to_table()
        server.behave = lambda number, body: None
        report = run(tmp_path, judge(server.url))
    assert len(server.requests) == 14 + 4
    assert report.judgements[MODEL]["match"].failed == 0


def test_a_wrong_key_is_said_at_once_without_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    refused = pytest.raises(ConfigError, match=r"401 Incorrect API key provided: \*\*\*; check judge.url")
    with serve(behave=lambda number, body: (401, "Incorrect API key provided: sk-secret", {})) as server, refused:
        run(tmp_path, judge(server.url, key_env="JUDGE_KEY", concurrency=1))
    assert len(server.requests) < 4
    monkeypatch.delenv("JUDGE_KEY")
    assistant = FakeAssistant()
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        evaluate(open_benchmark(tmp_path / "b", judge=judge(server.url, key_env="JUDGE_KEY")), assistant=assistant)
    assert not assistant.asked


def test_so_many_requests_at_a_time_and_no_more(tmp_path):
    with serve(seconds=0.05) as server:
        run(tmp_path, judge(server.url, concurrency=3))
    assert server.most_at_once == 3


def test_killed_anywhere_the_judging_goes_on_and_loses_only_what_was_under_way(tmp_path):
    draw = random.Random(0)
    with serve(seconds=0.01) as server:
        asked = judge(server.url, concurrency=2)
        bench = open_benchmark(tmp_path, clips=8, judge=asked)
        evaluate(open_benchmark(tmp_path, clips=8), assistant=FakeAssistant(letters=OPEN))
        for _ in range(5):
            before = len(server.requests)
            child = multiprocessing.get_context("fork").Process(target=rescore, args=(bench,))
            child.start()
            while child.is_alive() and len(server.requests) < before + 1 + draw.randrange(6):
                time.sleep(0.002)
            time.sleep(draw.random() * 0.01)
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        report = rescore(bench)

    assert len({row["id"] for row in verdicts(tmp_path)}) == len(verdicts(tmp_path)) == 40
    assert 40 <= len(server.requests) <= 40 + 5 * 2
    assert report.judgements[MODEL]["match"].accuracy == report.overall


def test_two_wordings_of_a_question_are_judged_together(tmp_path):
    rows = [
        {"id": name, "question": f"Q {name}", "accepted": ["dog"], "answer": answer, **more}
        for name, answer, more in (
            ("a1", "a dog", {"together": "a", "aspects": ["consistency"]}),
            ("a2", "a cat", {"together": "a", "aspects": ["consistency"]}),
            ("b", "dog", {"aspects": ["correctness", "detail"]}),
        )
    ]
    rows += [{"id": "c", "question": "Q c", "accepted": ["dog"], "error": "no such file"}]
    with serve(behave=lambda number, body: (200, completion('{"score": 2}'), {})) as server:
        ask(judge(server.url), rows, tmp_path)
    texts = [request["messages"][1]["content"] for request in server.requests]
    assert len(texts) == 3
    assert sum("a dog" in text and "a cat" in text for text in texts) == 1
    assert "pred" not in server.requests[0]["response_format"]["json_schema"]["schema"]["properties"]


@pytest.mark.parametrize(
    ("reply", "score", "is_match"),
    [
        ('{"pred": "yes", "score": 4}', 4, True),
        ("{'pred': 'no', 'score': 4.8}", 4, False),
        ('Sure! ```json\n{"pred": "Yes", "score": 5}\n```', 5, True),
        ('In {doubt}: {"pred": "no", "score": 0}', 0, False),
    ],
)
def test_replies_are_read_in_the_forms_that_models_give(reply, score, is_match):
    found = read(ASPECTS["match"], reply)
    assert (found.score, found.is_match) == (score, is_match)


@pytest.mark.parametrize(
    "reply",
    [
        *("", "yes", "{'pred': 'yes'", '{"pred": "yes"}', '{"pred": "maybe", "score": 3}', "[1]"),
        *('{"pred": "yes", "score": 6}', '{"pred": "yes", "score": true}', '{"pred": "yes", "score": "4"}'),
        "{__import__('os'): 1}",
    ],
)
def test_anything_else_is_no_verdict(reply):
    with pytest.raises(ValueError, match="expected"):
        read(ASPECTS["match"], reply)


def test_both_forms_of_retry_after_are_understood():
    assert _seconds("2.5") == 2.5
    assert _seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) == pytest.approx(60, abs=5)
    assert _seconds("soon") is None
    assert _seconds("-1") == 0


def test_wrong_settings_are_named():
    for changes, words in (
        ({"url": "localhost:1"}, "judge.url: expected https"),
        ({"url": "http://x", "model": ""}, "judge.model: name the model"),
        ({"aspects": ("style",)}, "'style' is unknown, known are: match"),
        ({"concurrency": 0}, "judge.concurrency: expected 1 or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            Judge(**changes)
