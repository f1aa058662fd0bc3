import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from avllm.cli import main
from avllm.errors import DataError, InUse
from avllm.evaluation import run
from avllm.evaluation.log import Log
from avllm.evaluation.run import evaluate, plan, rescore, stored
from avllm.evaluation.scoring import MultipleChoice
from avllm.nano import benchmark as _nano  # noqa: F401  (loaded once here, not in each process)
from tests.evaluation.fake import OPEN, OPTIONS, FakeAssistant, benchmark, open_benchmark


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
        kept = max(data[: place + 1].count(b"\n") - 1, 0)  # a row that lacks only its end is whole
        assistant = FakeAssistant()

        report = evaluate(benchmark(tmp_path), resume=True, assistant=assistant)

        assert plain(report) == whole
        assert len(assistant.asked) == 40 - kept
        assert Counter(row_ids(log)) == Counter({f"{clip}/{index}": 1 for clip in range(8) for index in range(5)})


def command(folder, *words, rank=0, num_processes=1):
    """Runs `avllm eval` on open questions in a process of its own, with the fake in place of the model."""
    questions = [
        {"question_id": i, "video_name": f"v{i // 5}", "question": f"what is thing {i % 5}"} for i in range(200)
    ]
    truths = [{"question_id": i, "answer": f"({OPEN[i % 3]})"} for i in range(200)]
    if not (folder / "test_q.json").exists():
        (folder / "videos").mkdir()
        for i in range(40):
            (folder / "videos" / f"v{i}.mp4").touch()
        (folder / "test_q.json").write_text(json.dumps(questions))
        (folder / "test_a.json").write_text(json.dumps(truths))

    def child():
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num_processes)}
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        run.assistant_of = lambda benchmark: FakeAssistant(seconds=0.003, letters=OPEN)
        settings = (f"data.folder={folder}", f"out={folder / 'out'}", "batch=3", "score={kind: accepted}")
        sys.exit(main(["eval", "eval_configs/msvd_qa.yaml", *settings, *words]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def test_killed_at_twenty_random_moments_a_run_loses_nothing_and_repeats_nothing(tmp_path):
    draw, whole, log = random.Random(0), tmp_path / "whole", tmp_path / "killed" / "out" / "log.jsonl"
    (tmp_path / "killed").mkdir()
    whole.mkdir()
    alone = command(whole)
    kills, before = 0, []
    while kills < 20:
        process = command(log.parents[1], "--resume")
        rows = len(before) + draw.randrange(8)  # kill when there are so many, and some moments later
        while process.is_alive() and (not log.exists() or log.read_bytes().count(b"\n") <= rows):
            time.sleep(0.001)
        time.sleep(draw.random() * 0.01)
        if not process.is_alive():  # it came to the end meanwhile, on a machine that has other things to do
            break
        process.kill()
        process.join()
        kills += 1
        now = row_ids_of_whole_lines(log)
        assert now[: len(before)] == before
        before = now
    last = command(log.parents[1], "--resume")
    for process in (last, alone):
        process.join()
        assert process.exitcode == 0

    assert kills >= 3
    assert row_ids(log) == row_ids(whole / "out" / "log.jsonl")
    assert len(set(row_ids(log))) == 200
    assert figures(log.parent) == figures(whole / "out")


def row_ids_of_whole_lines(path):
    return [row["id"] for row in map(json.loads, path.read_bytes().split(b"\n")[:-1]) if "id" in row]


def figures(folder):
    report = json.loads((folder / "report.json").read_text())
    del report["run"]
    return report


def test_two_processes_at_once_share_the_work_and_give_the_same_report(tmp_path):
    for name in ("alone", "both"):
        (tmp_path / name).mkdir()
    running = [
        command(tmp_path / "alone"),
        *(command(tmp_path / "both", rank=rank, num_processes=2) for rank in range(2)),
    ]
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert figures(tmp_path / "both" / "out") == figures(tmp_path / "alone" / "out")
    shares = [row_ids(tmp_path / "both" / "out" / f"log.{rank}.jsonl") for rank in range(2)]
    assert [len(share) for share in shares] == [100, 100]
    assert not set(shares[0]) & set(shares[1])


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
    with Log(tmp_path / "out").appending({}), ThreadPoolExecutor() as other:
        failed = other.submit(evaluate, benchmark(tmp_path), resume=True, assistant=FakeAssistant()).exception()
    assert isinstance(failed, InUse)
    assert "log.jsonl: another thread of this process writes it right now" in str(failed)


def test_a_plan_touches_nothing(tmp_path):
    bench = benchmark(tmp_path)
    (tmp_path / "clips" / "1.mp4").unlink()
    text = plan(bench).describe(bench)
    assert "40 samples about 8 media" in text
    assert "1 media of 5 samples are missing" in text
    assert "(A) left" in text
    assert not (tmp_path / "out").exists()


def test_options_in_other_orders_show_who_chooses_a_place(tmp_path):
    class Sticks(FakeAssistant):
        """Always the first place; but knows one answer."""

        def answers(self, requests, *, media, **options):
            replies = super().answers(requests, media=media, **options)
            knows = [line[1] for item in requests for line in item.question.splitlines() if line.endswith("right")]
            return [
                replace(reply, answer=knows[index] if "thing 1" in reply.question else "A")
                for index, reply in enumerate(replies)
            ]

    bench = benchmark(tmp_path, shuffle_options=3)
    report = evaluate(bench, assistant=Sticks())

    assert report.overall.n == len(report.rows) == 40
    assert len(report.shuffled) == 80
    assert {name.count("~") for name in row_ids(tmp_path / "out" / "log.jsonl")} == {0, 1}
    orders = report.orders
    assert orders.num_orders == 3
    assert (orders.consistent.mean, orders.consistent.n) == (8 / 40, 40)
    assert orders.score.mean < report.overall.mean + 0.3
    assert "same choice in all orders" in report.to_table()
    assert stored(tmp_path / "out").orders == orders == rescore(bench).orders
    # The published order is asked as without the option.
    alone = evaluate(benchmark(tmp_path / "alone"), assistant=Sticks())
    assert alone.overall == report.overall
    assert alone.orders is None
    with pytest.raises(DataError, match="has no options"):
        open_benchmark(tmp_path / "open", shuffle_options=2).samples()


def test_orders_are_all_different_and_keep_the_truth(tmp_path):
    for sample in benchmark(tmp_path, shuffle_options=10).samples():
        right = sample.options[sample.truth]
        assert right == OPTIONS[sample.order[sample.truth] if sample.order else sample.truth]
    by_question = Counter(sample.id.split("~")[0] for sample in benchmark(tmp_path, shuffle_options=10).samples())
    assert set(by_question.values()) == {6}  # of three options
