"""docs/training.md: its commands for nano run as they stand, in order, with fewer steps."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from avllm.cli import main
from avllm.config import find_file

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
QUICK = ["schedule.steps_per_epoch=3", "schedule.warmup_steps=1", "batch=2", "checkpoints.every=2"]


def _blocks():
    part = PAGE.split("## Your data")[0]
    return re.findall(r"^```(sh|python)\n(.*?)^```$", part, flags=re.DOTALL | re.MULTILINE)


def _run(line):
    program, *arguments = shlex.split(line)
    assert program == "avllm"
    if arguments[0] == "train":
        arguments[2:2] = QUICK
    if arguments[:2] == ["nano", "sample"]:
        arguments[arguments.index("--clips") + 1] = "3"
    shown, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
        code = main(arguments)
    assert code == 0, f"{line}: {told.getvalue()}"
    return shown.getvalue()


def test_the_way_from_clips_to_an_answer_runs_as_written(tmp_path, monkeypatch):
    pytest.importorskip("peft", reason="adapters need avllm[train]")
    monkeypatch.chdir(tmp_path)
    shown = {}

    for language, text in _blocks():
        if language == "python":
            exec(compile(text, "docs/training.md", "exec"), {})
        else:
            shown.update({line: _run(line) for line in text.strip().splitlines()})

    assert "entries     3, good 3" in shown["avllm data check clips/my.jsonl --sound auto"]
    assert (tmp_path / "own" / "adapter_config.json").is_file()
    assert (tmp_path / "own-merged" / "model.safetensors").is_file()
    answers = [text for line, text in shown.items() if line.startswith("avllm ask")]
    assert len(answers) == 2
    assert answers[0] == answers[1]


def test_every_stage_is_on_the_page():
    folder = find_file("train_configs", "nano/own").parents[1]
    for path in folder.glob("*/*.yaml"):
        if path.parent.name != "nano":
            assert f"`{path.stem}`" in PAGE, path
