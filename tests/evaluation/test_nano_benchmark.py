"""nano's world from its YAML through the command, with real clips and the shipped model."""

import json

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
