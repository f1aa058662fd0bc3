"""Batch runs: one row per line, media read once, bad lines told, a killed run goes on."""

import json

import pytest

from avllm.chat.run import run
from avllm.errors import DataError, MediaError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"id": 1, "video": "clip", "question": "what?"},
        {"id": "two", "image": "picture", "question": "which?"},
        {"id": 3, "video": "clip", "question": "a longer question about the same clip?"},
        {"id": 4, "audio": "sound", "question": "heard?"},
        {"id": 5, "question": "nothing to see"},
        {"id": 6, "video": "clip", "question": "again?"},
    ]
    return write(tmp_path / "in.jsonl", rows)


OPTIONS = {"max_new_tokens": 8}


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (3, 4)])
def test_every_line_gets_the_answer_that_it_gets_alone(assistant, questions, tmp_path, workers, batch):
    summary = run(questions, tmp_path / "out", assistant=assistant, workers=workers, batch=batch, **OPTIONS)
    rows = {row["id"]: row for row in read(tmp_path / "out")}
    assert (summary.done, summary.failed) == (6, 0)
    assert rows.keys() == {1, "two", 3, 4, 5, 6}
    assert rows[1]["streams_used"] == ["video", "audio"]
    for line in read(questions):
        media = {kind: line[kind] for kind in ("video", "image", "audio") if kind in line}
        assert rows[line["id"]]["answer"] == assistant.chat().ask(line["question"], **media, **OPTIONS)


def test_a_medium_is_opened_once_however_many_questions(assistant, questions, tmp_path):
    run(questions, tmp_path / "out", assistant=assistant, batch=2, workers=2, **OPTIONS)
    assert sorted(assistant.opened).count(("clip", "video")) == 1
    assert len(assistant.opened) == 4  # picture and sound of the clip, the picture, the sound


def test_a_bad_medium_and_a_bad_line_become_error_rows(assistant, questions, tmp_path, monkeypatch):
    good = assistant.processor.read

    def read_medium(source, kind, **options):
        if "broken" in str(source):
            raise MediaError(f"{source}: not a video")
        return good(source, kind, **options)

    monkeypatch.setattr(assistant.processor, "read", read_medium)
    rows = [*read(questions), {"id": 7, "video": "broken", "question": "what?"}, {"id": 8, "video": "clip"}]
    rows += [{"id": 9, "clip": "clip", "question": "what?"}, {"id": 10, "question": "x" * 600}]
    summary = run(write(questions, rows), tmp_path / "out", assistant=assistant, **OPTIONS)
    errors = {row["id"]: row["error"] for row in read(tmp_path / "out") if "error" in row}
    assert errors.keys() == {7, 8, 9, 10}
    assert "not a video" in errors[7]
    assert errors[8] == "question: expected a text"
    assert "unknown key clip" in errors[9]
    assert "the decoder holds" in errors[10]
    assert summary.failed == 4
    assert len(read(tmp_path / "out")) == 10


def test_a_run_that_was_killed_in_the_middle_of_a_row_goes_on(assistant, questions, tmp_path):
    out = tmp_path / "out"
    run(questions, out, assistant=assistant, **OPTIONS)
    whole = read(out)
    for cut in range(len(out.read_bytes())):
        data = ("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole)).encode()[:cut]
        if cut % 97:
            continue
        out.write_bytes(data)
        run(questions, out, assistant=assistant, resume=True, **OPTIONS)
        answers = {row["id"]: row["answer"] for row in read(out)}
        assert len(read(out)) == 6
        assert answers == {row["id"]: row["answer"] for row in whole}


def test_refuses_what_it_cannot_account_for(assistant, questions, tmp_path):
    out = tmp_path / "out"
    run(questions, out, assistant=assistant, **OPTIONS)
    with pytest.raises(DataError, match="--resume"):
        run(questions, out, assistant=assistant)
    out.write_text("hello\n" + out.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match="no row of a run"):
        run(questions, out, assistant=assistant, resume=True)
    for text, fault in (("{", "line 1: not JSON"), ('{"question": "x"}', "line 1: expected an object with an id")):
        questions.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=fault):
            run(questions, tmp_path / "new", assistant=assistant)
    write(questions, [{"id": 1, "question": "a"}, {"id": 1, "question": "b"}])
    with pytest.raises(DataError, match="line 2: id 1 is that of line 1 too"):
        run(questions, tmp_path / "new", assistant=assistant)
