"""The command line as people use it: real processes, real files, real kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from avllm.cli import main

EXAMPLES = Path(__file__).parents[1] / "avllm" / "nano" / "examples"
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
AVLLM = [sys.executable, "-m", "avllm"]


def avllm(*args, text=None):
    return subprocess.run([*AVLLM, *map(str, args)], input=text, capture_output=True, text=True, env=ENV, check=False)


def read(path):
    return {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rows = []
    for number in range(12):
        data = (EXAMPLES / "rocket.mp4").read_bytes() + bytes(number)  # other contents: nothing is remembered
        (folder / f"{number}.mp4").write_bytes(data)
        rows += [
            {"id": f"{number}{letter}", "video": f"{number}.mp4", "question": q} for letter, q in QUESTIONS.items()
        ]
    rows.append({"id": "broken", "video": "none.mp4", "question": "What?"})
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


QUESTIONS = {"a": "What do you see?", "b": "What do you hear?"}


def test_a_killed_run_goes_on_to_the_same_rows(questions, capsys):
    source, whole, out = questions / "in.jsonl", questions / "whole.jsonl", questions / "out.jsonl"
    options = ("--media-root", str(questions), "--batch", "2")
    assert main(["run", str(source), str(whole), *options]) == 0
    printed = capsys.readouterr().out
    assert "25 rows" in printed
    assert "1 errors" in printed

    command = ["run", str(source), str(out), *options]
    running = subprocess.Popen([*AVLLM, *command], env=ENV)
    while not out.exists() or out.read_bytes().count(b"\n") < 7:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 7 <= len(out.read_text(encoding="utf-8").splitlines()) < 25
    assert main(command) == 1  # --resume is asked for
    assert main([*command, "--resume"]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 25
    assert {name: row.get("answer") for name, row in read(out).items()} == {
        name: row.get("answer") for name, row in read(whole).items()
    }


def test_ctrl_c_ends_a_run_with_a_line_that_tells_how_to_go_on(questions):
    source, out = questions / "many.jsonl", questions / "stopped.jsonl"
    rows = [{"id": n, "video": f"{n % 12}.mp4", "question": f"What do you see? {n}"} for n in range(600)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [*AVLLM, "run", str(source), str(out), "--media-root", str(questions), "--batch", "1"]
    # A shell in the background lets its children ignore Ctrl-C; here it counts.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True, **heed)
    while not out.exists() or not out.read_bytes():
        assert running.poll() is None
        time.sleep(0.01)
    decoders = psutil.Process(running.pid).children(recursive=True)
    assert decoders
    running.send_signal(signal.SIGINT)
    error = running.communicate()[1]
    assert running.returncode == 130, error
    assert "--resume" in error
    assert len(error.splitlines()) == 1, error
    assert not [decoder for decoder in decoders if decoder.is_running()]
    assert 0 < len(out.read_text(encoding="utf-8").splitlines()) < 600


def test_a_chat_from_a_pipe(tmp_path):
    lines = "What do you see?\n/smell\n/save " + str(tmp_path / "talk.json") + "\n/quit\nnever asked\n"
    done = avllm("chat", EXAMPLES / "rocket.mp4", text=lines)
    assert done.returncode == 0, done.stderr
    assert "rocket" in done.stdout
    assert "unknown command /smell" in done.stderr
    talk = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [turn["question"] for turn in talk["turns"]] == ["What do you see?"]


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("plan", "nano", "--json"), 0, ""),
        (("plan", "nothing"), 1, "no such YAML"),
        (("plan", "nano", "--quantization", "nf4", "--train", "all"), 1, "cannot be trained"),
        (("merge", "nano", "--out", "x"), 1, "whole model already"),
        (("chat", "none.mp4"), 1, "none.mp4"),
        (("run", "none.jsonl", "x.jsonl"), 1, "cannot be read"),
        (("run", "none.jsonl"), 2, "usage"),
        (("ask", "none.mp4", "What?"), 1, "none.mp4"),
        (("ask", str(EXAMPLES / "rocket.mp4"), ""), 1, "expected a question"),
    ],
)
def test_bad_input_gives_one_line_and_a_code(args, code, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(args)
    except SystemExit as ended:  # argparse, about the command line itself
        found = ended.code
    error = capsys.readouterr().err
    assert found == code, error
    assert line in error
    assert code != 1 or error.count("\n") == 1
