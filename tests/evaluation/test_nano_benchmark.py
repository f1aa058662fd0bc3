"""nano's world from its YAML through the command, with real clips and the shipped model."""

import json
from importlib.util import find_spec

import pytest

from avllm.cli import main


def test_nano_is_measured_in_one_command_and_scored_again_alike(tmp_path, capsys):
    words = ["eval", "eval_configs/nano.yaml", "limit=12", f"out={tmp_path}/run", f"data.folder={tmp_path}/clips"]
    words += ["data.clips=3", "batch=4"]
    assert main([*words, "--dry-run"]) == 0
    assert "12 samples about 3 media" in capsys.readouterr().out

    assert main(words) == 0
    first = json.loads((tmp_path / "run" / "report.json").read_text())
    assert first["answered"] == 12
    assert "all" in capsys.readouterr().out

    assert main([*words, "--rescore"]) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == first
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[0]["run"]["weights"]
    assert all(row["frames_s"] and row["streams"] == ["video", "audio"] for row in rows[1:])

    (tmp_path / "clips" / "seed1_clips3" / "clip_0000.mp4").unlink()
    assert main([*words, "--dry-run"]) == 3
    assert main(words) == 1
    assert "holds a run" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'avllm[ray]'")
def test_ray_gives_the_same_report(tmp_path):
    words = ["eval", "nano", "limit=24", f"data.folder={tmp_path}/clips", "data.clips=6", "batch=2"]
    assert main([*words, f"out={tmp_path}/alone"]) == 0
    assert main([*words, f"out={tmp_path}/ray", "--engine", "ray", "--processes", "2"]) == 0
    alone, by_ray = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("alone", "ray"))
    assert {**by_ray, "run": None} == {**alone, "run": None}
    answers = [
        {row["id"]: row["answer"] for row in map(json.loads, (tmp_path / name / "log.jsonl").open()) if "id" in row}
        for name in ("alone", "ray")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 24


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_one_line_says_what_to_install(tmp_path, capsys):
    words = [f"out={tmp_path}/out", f"data.folder={tmp_path}/clips", "data.clips=1", "limit=1"]
    assert main(["eval", "nano", *words, "--engine", "ray"]) == 1
    assert "the package 'ray' is not installed; install it with: pip install 'avllm[ray]'" in capsys.readouterr().err
