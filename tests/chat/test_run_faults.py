"""Nothing odd ends a run, fills its memory, doubles its rows or loses them."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from avllm import textfile
from avllm.chat.run import run
from avllm.cli import main
from avllm.errors import AvllmError, DiskError, InUse, MediaError, OutOfMemory, attempted
from tests.durable.full_disk import fill, small_disk

OPTIONS = {"max_new_tokens": 4}


@pytest.fixture
def answered(assistant, tmp_path):
    """The rows of an input by id, of lines of JSON or of what makes them."""

    def work(lines, **options):
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        texts = [line if isinstance(line, bytes | str) else json.dumps(line) for line in lines]
        source.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
        out.unlink(missing_ok=True)
        run(source, out, assistant=assistant, **{**OPTIONS, **options})
        rows = [json.loads(line) for line in out.read_bytes().split(b"\n") if line]
        assert len(rows) == len(lines)
        return {row["id"]: row for row in rows}

    return work


class PanicException(BaseException):
    """As pyo3_runtime.PanicException, which is no Exception."""


@pytest.mark.parametrize("error", [PanicException("range end 5"), MemoryError(), RecursionError("deep")])
def test_what_is_no_common_exception_is_an_error_row_too(assistant, answered, monkeypatch, error):
    good, rows = assistant.processor.read, [{"id": n, "video": f"clip {n}", "question": "what?"} for n in range(3)]

    def read(source, kind, **options):
        if "1" in str(source):
            raise error
        return good(source, kind, **options)

    monkeypatch.setattr(assistant.processor, "read", read)
    got = answered(rows, workers=2)
    assert [name for name in got if "error" in got[name]] == [1]
    assert got[1]["error"].startswith(type(error).__name__)
    assert "(avllm " in got[1]["error"]  # ours, or a library's: not told as the file's


def test_s22_of_a_tenth_of_broken_media_exactly_those_are_error_rows(assistant, answered, monkeypatch):
    good, broken = assistant.processor.read, {3, 14, 29}
    rows = [{"id": n, "video": f"clip {n}.mp4", "question": "what?"} for n in range(30)]

    def read(source, kind, **options):
        if any(str(source) == f"clip {n}.mp4" for n in broken):
            raise MediaError(f"{source}: cut short")
        return good(source, kind, **options)

    monkeypatch.setattr(assistant.processor, "read", read)
    got = answered(rows, workers=3)
    assert {name: row["error"] for name, row in got.items() if "error" in row} == {
        n: f"clip {n}.mp4: cut short" for n in broken
    }


@pytest.fixture
def light_plan(monkeypatch):
    """Without the settings that would fit: to find them takes a second for each."""
    monkeypatch.setattr("avllm.model.plan.smaller", lambda *args: [])


@pytest.mark.usefixtures("light_plan")
@pytest.mark.parametrize("step", [0, 1, 3])
def test_s20_out_of_memory_is_typed_and_the_next_is_served(assistant, answered, monkeypatch, step):
    decoder, fails = assistant.model.decoder, [True]
    forward = decoder.forward

    def counted(*args, **inputs):
        counted.calls += 1
        if fails[0] and counted.calls > step:
            fails[0] = False
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **inputs)

    counted.calls = 0
    monkeypatch.setattr(decoder, "forward", counted)
    plain = answered([{"id": n, "video": "clip", "question": "what?"} for n in range(2)], batch=1)
    assert plain[0]["error"].startswith("out of memory on cpu: this needs about")
    fails[0] = False
    assert plain[1]["answer"] == answered([{"id": 1, "video": "clip", "question": "what?"}])[1]["answer"]


@pytest.mark.usefixtures("light_plan")
def test_s20_memory_gone_while_media_are_encoded_is_typed_too(assistant, answered, monkeypatch):
    tokens = assistant.model.branch_tokens

    def fail(branch, clips, times):
        if len(clips[0]) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tokens(branch, clips, times)

    monkeypatch.setattr(assistant.model, "branch_tokens", fail)
    got = answered(
        [{"id": n, "video": "clip", "num_frames": n, "question": "what?", "audio_mode": "off"} for n in (2, 3)]
    )
    assert got[3]["error"].startswith("out of memory on cpu")
    assert "answer" in got[2]


def test_an_error_that_is_kept_holds_no_frames():
    def fail():
        tensor = torch.zeros(10)
        try:
            raise RuntimeError("CUDA out of memory")
        except RuntimeError as error:
            raise OutOfMemory(f"{len(tensor)}") from error

    error = attempted(fail)
    assert isinstance(error, OutOfMemory)
    assert error.__traceback__ is error.__cause__ is error.__context__ is None


DEEP = "[" * 985 + "]" * 985


@pytest.mark.parametrize(
    "line",
    [
        f'{{"id": {DEEP}, "question": "what?"}}',
        DEEP,
        f'{{"id": "x", "question": {DEEP}}}',
        f'{{"id": "x", "question": "what?", "video": {DEEP}}}',
        f'{{"id": "x", "question": "what?", "media": [{{"type": "video", "video": "clip", "num_frames": {DEEP}}}]}}',
        '{"id": ' + "9" * 5000 + ', "question": "what?"}',
        '{"id": "x", "question": "what?", "num_frames": ' + "9" * 5000 + "}",
        '{"id": "x", "question": "what?", "num_frames": 1e400}',
        '{"id": "x", "' + "k" * 3_000_000 + '": 1, "question": "what?"}',
        '{"id": "x", "question": "what?", "video": "' + "v" * 3_000_000 + '", "num_frames": "8"}',
        b'{"id": "x\x00", "question": "what?"}',
        b"\x00" * 300,
        b"\xff\xfe{\x00}\x00",
    ],
    ids=range(13),
)
def test_no_line_ends_a_run_and_no_error_is_as_long_as_its_line(answered, line):
    got = answered([{"id": "first", "question": "what?"}, line, {"id": "next", "question": "what?"}])
    assert "answer" in got.pop("first")
    assert "answer" in got.pop("next")
    ((_, row),) = got.items()
    assert len(row["error"]) <= 2000


def test_a_line_up_to_the_limit_is_read_and_a_longer_one_is_an_error_row(answered, monkeypatch):
    monkeypatch.setattr(textfile, "LONGEST_LINE", 1000)
    start = '{"id": "x", "question": "what?", "answer_start": "'
    fits = start + " " * (1000 - len(start) - 2) + '"}'
    assert len(fits) == 1000
    over = fits.replace("what?", "what??") + " " * 5000
    got = answered([fits, over, {"id": "next", "question": "what?"}], max_new_tokens=1)
    assert "answer" in got["next"]
    assert "not JSON" not in str(got["x"])
    assert got["line 2"]["error"] == "line: is longer than 1000 bytes; expected one entry on a line"


def test_lines_whose_id_is_taken_are_named_at_the_end(assistant, tmp_path, capsys, monkeypatch):
    rows = [{"id": 5, "question": "a"}, {"id": 5, "question": "b"}, {"question": "c"}, {"id": 5.0, "question": "d"}]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr("avllm.chat.run.load", lambda model: assistant)

    assert main(["run", str(source), str(tmp_path / "out.jsonl"), "--max-new-tokens", "2"]) == 0

    told = capsys.readouterr()
    assert "4 rows in" in told.out
    assert "2 errors" in told.out
    warning = told.err.strip().splitlines()[-1]
    assert warning.startswith(
        "avllm run: 2 lines have the id of an earlier line and were not answered: their rows are "
    )
    assert '"line 2", "line 4"; make their ids unique' in warning


@pytest.mark.parametrize("options", [{"model": "/none"}, {"num_frames": 0}])
def test_a_run_that_cannot_begin_leaves_no_output(tmp_path, options):
    source = tmp_path / "in.jsonl"
    source.write_text('{"question": "what?"}', encoding="utf-8")
    with pytest.raises(AvllmError, match=r"/none|num_frames"):
        run(source, tmp_path / "out.jsonl", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_of_two_runs_on_one_output_the_second_is_told_of_the_first_before_a_model_loads(assistant, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 1, "video": "clip", "question": "what?"}', encoding="utf-8")
    failed = []

    def other(resume):
        try:
            run(source, out, model="/nowhere", resume=resume)
        except InUse as error:
            failed.append(str(error))

    read = assistant.processor.read

    def read_while_another_comes(*args, **options):
        for resume in (False, True):
            thread = threading.Thread(target=other, args=(resume,))
            thread.start()
            thread.join()
        return read(*args, **options)

    assistant.processor.read = read_while_another_comes
    run(source, out, assistant=assistant, audio="off", **OPTIONS)
    assert len(failed) == 2
    assert all(text.startswith(f"{out}: another thread of this process writes it right now") for text in failed)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


HOLD = """
import sys
from pathlib import Path
from avllm.durable import lock_beside, locked
with locked(lock_beside(Path(sys.argv[1])), sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_that_runs_is_named_on_the_command_line(tmp_path, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 1, "question": "what?"}', encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert main(["run", str(source), str(out), "--model", "/nowhere"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"avllm run: {out}: process {other.pid} on ")
        assert error.count("\n") == 1
        assert "writes it right now; wait for its end" in error


def test_s25_a_full_disk_loses_no_row_and_a_resumed_run_is_the_uninterrupted_one(assistant, answered, tmp_path):
    rows = [{"id": n, "question": f"what {n}?"} for n in range(40)]
    whole = answered(rows)
    with small_disk(tmp_path / "disk") as disk:
        out, filler = disk / "out.jsonl", fill(disk, leave=8192)
        with pytest.raises(DiskError, match=r"out.jsonl: cannot be written: no space is left on its disk"):
            run(tmp_path / "in.jsonl", out, assistant=assistant, batch=3, **OPTIONS)
        kept = out.read_bytes()
        assert 3 <= kept.count(b"\n") < 40
        assert kept.endswith(b"\n")
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "out.jsonl"]
        filler.unlink()
        run(tmp_path / "in.jsonl", out, assistant=assistant, resume=True, **OPTIONS)
        got = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert out.read_bytes().startswith(kept)
    assert {row["id"]: row["answer"] for row in got} == {name: row["answer"] for name, row in whole.items()}
    assert len(got) == 40


def test_s21_the_same_input_and_seed_give_the_same_answers_in_two_processes_and_in_a_batch(tmp_path):
    rows = [
        {"id": n, "question": q, **({} if n % 2 else {"image": "picture.png"})}
        for n, q in enumerate(["What do you see?", "Name a colour.", "What shape is it, and where?", "And now?"])
    ]
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "picture.png")
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = {"max_new_tokens": 8, "temperature": 1.5, "seed": 3, "media_root": str(tmp_path)}
    outs = [tmp_path / f"{name}.jsonl" for name in ("here", "alone", "there")]
    program = f"from avllm.chat.run import run; run({str(source)!r}, {str(outs[2])!r}, batch=2, **{options!r})"
    there = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    run(source, outs[0], batch=4, workers=2, **options)
    run(source, outs[1], batch=1, **options)
    assert there.wait() == 0
    answers = [{row["id"]: row["answer"] for row in map(json.loads, out.read_text().splitlines())} for out in outs]
    assert len(answers[0]) == 4
    assert answers[0] == answers[1] == answers[2]


def test_s27_no_question_answer_or_name_is_logged(assistant, answered, caplog, monkeypatch):
    caplog.set_level("INFO")
    good = assistant.processor.read

    def read(source, kind, **options):
        if "odd" in str(source):
            raise ZeroDivisionError("SECRET")
        return good(source, kind, **options)

    monkeypatch.setattr(assistant.processor, "read", read)
    rows = [{"id": n, "video": f"SECRET {n}", "question": "SECRET?", "system": "SECRET"} for n in ("mute", "odd")]
    answered([*rows, '{"id": "SECRET"', {"id": "SECRET", "SECRET": 1}], seed=1)
    assert "SECRET" not in caplog.text
