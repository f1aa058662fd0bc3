"""A medium at which workers die, with a stand-in for Ray that always runs, and on Ray itself."""

import os
import signal

import pytest

from avllm.data.shares import Ledger
from avllm.evaluation import on_ray
from avllm.evaluation.on_ray import answer_share
from avllm.evaluation.run import evaluate
from tests.evaluation.fake import FakeAssistant, benchmark


class Killed(BaseException):
    """The end of a worker, as a test may survive it."""


class Deadly(FakeAssistant):
    """Dies of one clip; of others it may only be in trouble."""

    def __init__(self, *, by_signal=False, trouble="none"):
        super().__init__()
        self.by_signal, self.trouble = by_signal, trouble

    def perceive_all(self, *, video, **options):
        if video.name == "1.mp4":
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed
        if video.name == self.trouble:
            raise RuntimeError("a fault of a library")
        return super().perceive_all(video=video, **options)


def test_questions_about_a_deadly_medium_become_error_rows_and_all_others_are_answered(tmp_path):
    bench = benchmark(tmp_path, clips=4)
    ledger, deaths, rows = Ledger(), 0, None
    while rows is None:
        try:
            rows = answer_share(bench, 0, bench.samples(), Deadly(trouble="2.mp4"), ledger)
        except Killed:
            deaths += 1

    assert deaths == 3
    errors = {row["id"]: row["error"] for row in rows if "error" in row}
    assert sorted(errors) == [f"{clip}/{index}" for clip in (1, 2) for index in range(5)]
    assert errors["1/0"].startswith("3 workers died while they were at it")
    assert errors["2/0"].startswith("RuntimeError: a fault of a library")
    alone = evaluate(benchmark(tmp_path / "alone", clips=4), assistant=FakeAssistant())
    answers = {row["id"]: row["answer"] for row in alone.rows}
    assert {row["id"]: row["answer"] for row in rows if "answer" in row} == {
        name: answer for name, answer in answers.items() if name not in errors
    }


class Answering(on_ray._Answering):
    """An actor with the fake in place of the model."""

    def __init__(self, benchmark, shares, ledger):
        self.benchmark, self.shares, self.ledger = benchmark, shares, ledger
        self.assistant = Deadly(by_signal=True)


@pytest.mark.slow
def test_on_ray_a_run_ends_though_workers_are_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed here: pip install 'avllm[ray]' to run this test")
    monkeypatch.setattr(on_ray, "_Answering", Answering)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    bench = benchmark(tmp_path, clips=4, max_missing=0.5)

    report = evaluate(bench, engine="ray", processes=1)

    assert [row["id"] for row in report.errors] == [f"1/{index}" for index in range(5)]
    assert report.errors[0]["error"].startswith("3 workers died")
    assert len(report.answered) == 15
