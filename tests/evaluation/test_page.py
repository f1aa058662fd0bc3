import re
from dataclasses import replace

import pytest

from avllm.cli import main
from avllm.evaluation.page import page, paired, run_names
from avllm.evaluation.run import evaluate, stored
from avllm.nano.sample import make_clip, write_clip
from tests.evaluation.fake import FakeAssistant, benchmark


@pytest.fixture
def report(tmp_path):
    return evaluate(benchmark(tmp_path), assistant=FakeAssistant())


def test_the_page_needs_nothing_else_and_shows_every_part(report, tmp_path):
    html = (tmp_path / "out" / "report.html").read_text()
    assert html == page([report])
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "@import" not in html
    for text in ("given", "even", "length", "Options chosen", "Worst samples", "Random samples", "A is right"):
        assert text in html
    assert html.count('<div class="sample') == 20 + min(20, sum(row["score"] < 1 for row in report.rows))


def test_samples_show_frames_of_real_clips(tmp_path):
    bench = benchmark(tmp_path, limit=5)
    scene = make_clip("test", 0, 0, held_out=False).scene
    for file in (tmp_path / "clips").iterdir():
        write_clip(scene, file)
    html = page([evaluate(bench, assistant=FakeAssistant())])
    assert html.count("data:image/jpeg;base64,") == 4 * html.count('<div class="sample')


def test_what_models_and_data_say_is_text_on_the_page(report):
    evil = "<script>alert(1)</script>"
    rows = [{**report.rows[0], "question": evil, "answer": evil, "prompt": evil, "category": evil, "id": evil}]
    html = page([replace(report, rows=tuple(rows), name=evil, run={**report.run, "model": evil})])
    assert "<script" not in html


def test_two_runs_stand_side_by_side_with_a_paired_test(tmp_path, capsys):
    one = evaluate(benchmark(tmp_path / "a"), assistant=FakeAssistant())
    other = FakeAssistant()
    other.name = "other"
    evaluate(benchmark(tmp_path / "b", limit=30), assistant=other)
    runs = [str(tmp_path / "a" / "out"), str(tmp_path / "b" / "out")]

    assert main(["compare", *runs, "--out", str(tmp_path / "both.html")]) == 0

    assert "fake minus other: +0.0 (+0.0 to +0.0), p 1.0000, on 30 samples of both" in capsys.readouterr().out
    html = (tmp_path / "both.html").read_text()
    assert "Paired test" in html
    assert "other" in html
    assert run_names([one, one]) == ["fake (1)", "fake (2)"]
    assert stored(runs[0]).overall == one.overall
    assert paired(one, replace(one, rows=())) is None


def test_runs_of_different_benchmarks_are_not_compared(tmp_path, capsys):
    evaluate(benchmark(tmp_path / "a"), assistant=FakeAssistant())
    evaluate(benchmark(tmp_path / "b", name="another"), assistant=FakeAssistant())
    assert main(["compare", str(tmp_path / "a" / "out"), str(tmp_path / "b" / "out")]) == 1
    assert "expected runs of one benchmark, got given, another" in capsys.readouterr().err
