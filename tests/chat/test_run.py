"""Batch runs: one row per line, media read once, bad lines told, a killed run goes on."""

import json

import pytest

from avllm import media
from avllm.chat.run import run
from avllm.errors import ConfigError, DataError, MediaError
from avllm.media.isolated import IsolatedMedia


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


@pytest.mark.parametrize("trusted", [False, True])
def test_media_are_decoded_in_other_processes_unless_trusted(assistant, tmp_path, monkeypatch, trusted):
    doors = []
    monkeypatch.setattr(type(assistant), "perceive_request", lambda self, item: doors.append(self.processor.door) or [])
    rows = write(tmp_path / "in.jsonl", [{"id": 1, "video": "clip", "question": "what?"}])

    run(rows, tmp_path / "out", assistant=assistant, trusted_media=trusted, **OPTIONS)

    assert [isinstance(door, IsolatedMedia) for door in doors] == [not trusted]
    assert assistant.processor.door is media  # the given one stays as it is


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
    assert errors[8] == "question: expected a text, got nothing"
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
        if cut % 97 and cut != len(out.read_bytes()) - 1:
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
    with pytest.raises(DataError, match="is the input itself"):
        run(questions, questions, assistant=assistant, resume=True)
    copy = tmp_path / "copy.jsonl"
    for data in (questions.read_bytes(), b'{"id": 1, "question": "what?"}'):
        copy.write_bytes(data)
        with pytest.raises(DataError, match="byte 0 begins what is no row of a run"):
            run(questions, copy, assistant=assistant, resume=True)
        assert copy.read_bytes() == data
    with pytest.raises(DataError, match="is no file"):
        run(questions, tmp_path, assistant=assistant, resume=True)


def answered(assistant, tmp_path, data, **options):
    """The rows of an input, by id; there are as many as were told."""
    source, out = tmp_path / "in.jsonl", tmp_path / "answers.jsonl"
    source.write_bytes(data if isinstance(data, bytes) else data.encode())
    out.unlink(missing_ok=True)
    summary = run(source, out, assistant=assistant, **{**OPTIONS, **options})
    rows = [json.loads(line) for line in out.read_bytes().split(b"\n") if line]
    assert summary.done == len(rows) == len({row["id"] for row in rows})
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "expected an object with a question, got [1, 2]"),
        ("7", "expected an object"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"id": 1, "id": 2, "question": "what?"}', "key 'id' is written twice"),
        ('{"id": true, "question": "what?"}', "id: expected a text or a number, got true"),
        ('{"id": [1], "question": "what?"}', "id: expected a text or a number, got [1]"),
        ('{"id": 1e999, "question": "what?"}', "id: expected a text or a number"),
        ('{"id": "first", "question": "what?"}', 'id "first" is that of line 1 too; make it unique'),
    ],
)
def test_a_line_that_cannot_be_named_is_an_error_row_under_its_number(assistant, tmp_path, text, fault):
    rows = answered(assistant, tmp_path, f'{{"id": "first", "question": "a"}}\n\n{text}\n{{"id": 9, "question": "b"}}')
    assert rows.keys() == {"first", "line 3", 9}
    assert fault in rows["line 3"]["error"]
    assert "answer" in rows["first"]
    assert "answer" in rows[9]


def test_bytes_that_are_no_text_are_an_error_row(assistant, tmp_path):
    rows = answered(assistant, tmp_path, b'{"id": 1, "question": "caf\xe9?"}\n{"id": 2, "question": "what?"}\n')
    assert "byte 26 is 0xe9" in rows["line 1"]["error"]
    assert "answer" in rows[2]


def test_a_line_without_an_id_is_answered_under_its_number(assistant, tmp_path):
    data = '{"question": "what?"}\n{"id": null, "question": "what?"}\n{"id": NaN, "question": "what?"}\n'
    rows = answered(assistant, tmp_path, data + '{"id": "line 1", "question": "what?"}')
    assert rows.keys() == {"line 1'", "line 2", "line 3", "line 1"}
    assert len({row["answer"] for row in rows.values()}) == 1


def test_ids_are_written_as_they_came_and_a_run_goes_on_by_them(assistant, tmp_path):
    data = '{"id": 1.0, "question": "a"}\n{"id": 2.5, "question": "b"}\n'
    data += '{"id": "\\ud800", "question": "c"}\n{"question": "d"}'
    assert answered(assistant, tmp_path, data).keys() == {1.0, 2.5, "\ud800", "line 4"}
    assert '{"id": 1.0,' in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    summary = run(tmp_path / "in.jsonl", tmp_path / "answers.jsonl", assistant=assistant, resume=True)
    assert (summary.done, summary.skipped) == (0, 4)


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\f"])
def test_only_a_line_feed_ends_a_line(assistant, tmp_path, letter):
    text = json.dumps({"id": f"a{letter}b", "question": f"what{letter}moves?"}, ensure_ascii=False)
    rows = answered(
        assistant, tmp_path, "\ufeff" + text.replace(json.dumps(letter)[1:-1], letter) if letter < " " else text
    )
    written = (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    if letter < " ":  # JSON has these escaped
        assert "not JSON" in rows["line 1"]["error"]
    else:
        assert rows[f"a{letter}b"]["answer"] == assistant.chat().ask(f"what{letter}moves?", **OPTIONS)
        assert len(written.splitlines()) == 1


def test_marks_and_line_ends_of_windows_are_read(assistant, tmp_path):
    data = b'\xef\xbb\xbf{"id": 1, "question": "a"}\r\n\r\n{"id": 2, "question": "b"}\r\n'
    assert answered(assistant, tmp_path, data).keys() == {1, 2}
    assert answered(assistant, tmp_path, b"") == {}


@pytest.mark.parametrize(
    ("given", "frames"),
    [
        ('"num_frames": 3', 3),
        ('"num_frames": 3.0', 3),
        ('"num_frames": null', 4),
        ('"num_frames": NaN, "image": null, "audio": NaN, "system": null, "audio_mode": null, "start_s": NaN', 4),
    ],
)
def test_values_are_read_as_tables_write_them(assistant, tmp_path, given, frames):
    rows = answered(assistant, tmp_path, f'{{"id": 1, "video": "clip", "question": "what?", {given}}}')
    assert len(rows[1]["frames"]) == frames


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ('"num_frames": "8"', "num_frames: expected an int, got the text '8'"),
        ('"num_frames": 8.5', "num_frames: expected an int, got 8.5"),
        ('"num_frames": 9', "num_frames: 9 frames are more than the 8 that this model holds"),
        ('"num_frames": 1e3', "1000 frames are more than the 8"),
        ('"num_frames": 0', "num_frames: expected a number above 0, got 0"),
        ('"num_frames": -1', "num_frames: expected a number above 0"),
        ('"num_frames": [8]', "num_frames: expected an int, got a list"),
        ('"num_frames": true', "num_frames: expected an int, got True"),
        ('"num_frames": Infinity', "num_frames: expected an int"),
        ('"num_frame": 8', "unknown key num_frame; did you mean 'num_frames'?"),
        ('"fps": 1, "num_frames": 2', "fps, num_frames: give one of them"),
        ('"start_s": 3, "end_s": 2', "expected seconds with 0 <= start_s < end_s"),
        ('"start": 1, "start_s": 1', "start, start_s: mean the same"),
        ('"start": "0:01"', "start_s: expected a float"),
        ('"audio_mode": "none"', "audio_mode: 'none' is unknown; known are: auto, require, off"),
        ('"audio_mode": false', "audio_mode: False is unknown; known are"),
        ('"system": 5', "system: expected a text, got 5"),
        ('"max_new_tokens": 0', "max_new_tokens: expected a number from 1 on, got 0"),
        ('"max_new_tokens": "9"', "max_new_tokens: expected an int"),
        ('"image": ["a", "b"]', "image: expected one file, got a list; name several as media"),
        ('"image": 5', "image: expected a file, got 5"),
        ('"image": ""', "image: expected a file"),
        ('"image": {"path": "x"}', "image: expected a file"),
        ('"media": [{"type": "smell"}]', "content type: got 'smell'"),
        ('"media": "x.png"', "media: expected media alone"),
    ],
)
def test_what_cannot_be_honoured_is_an_error_row_that_names_it(assistant, tmp_path, given, fault):
    data = f'{{"id": 1, "video": "clip", "question": "what?", {given}}}\n{{"id": 2, "question": "what?"}}'
    rows = answered(assistant, tmp_path, data)
    assert fault in rows[1]["error"]
    assert "answer" in rows[2]


@pytest.mark.parametrize(
    "question", ["5", '""', '"  "', "true", "[]", '{"a": 1}', '"\\ud800"', '[{"type": "video", "video": "c"}]']
)
def test_a_question_is_a_text(assistant, tmp_path, question):
    rows = answered(assistant, tmp_path, f'{{"id": 1, "question": {question}}}')
    assert rows[1]["error"].startswith("question: ")


def test_options_that_no_medium_has_use_for_are_named_and_defaults_pass_them_by(assistant, tmp_path):
    data = '{"id": 1, "image": "picture", "question": "what?"}\n{"id": 2, "video": "clip", "question": "what?"}\n'
    data += '{"id": 3, "image": "picture", "num_frames": 2, "question": "what?"}\n{"id": 4, "question": "what?"}'
    rows = answered(assistant, tmp_path, data, num_frames=2, audio="require")
    assert len(rows[2]["frames"]) == 2
    assert "num_frames: is an option of a video" in rows[3]["error"]
    assert "answer" in rows[1]
    assert "answer" in rows[4]


def test_several_media_and_content_parts_are_looked_at(assistant, tmp_path):
    parts = [{"type": "video", "video": "clip", "num_frames": 2}, {"type": "image", "path": "picture"}]
    texts = [{"type": "text", "text": "First:"}, parts[0], {"type": "text", "text": "then:"}, parts[1]]
    rows = [{"id": 1, "media": parts, "question": "what?"}, {"id": 2, "question": texts}]
    got = answered(assistant, tmp_path, "\n".join(map(json.dumps, rows)), media_root="below")
    assert got[1]["streams_used"] == got[2]["streams_used"] == ["video", "image", "audio"]
    assert {source for source, _ in assistant.opened} == {"below/clip", "below/picture"}
    rooted = json.loads(json.dumps(texts).replace('"clip"', '"below/clip"').replace('"picture"', '"below/picture"'))
    assert got[2]["answer"] == assistant.chat().ask(rooted, **OPTIONS)


def test_a_wrong_option_of_the_run_stops_it_before_any_work(assistant, questions, tmp_path):
    for options in ({"num_frames": 9}, {"audio": "none"}, {"temperature": -1.0}, {"batch": 0}, {"temprature": 1.0}):
        with pytest.raises(ConfigError):
            run(questions, tmp_path / "out", assistant=assistant, **options)
        assert not (tmp_path / "out").exists()


def test_a_fault_of_code_is_a_row_that_names_it(assistant, questions, tmp_path, monkeypatch):
    good, tokens = assistant.processor.read, assistant.model.branch_tokens

    def read_medium(source, kind, **options):
        if "sound" in str(source):
            raise KeyError("no such thing")
        return good(source, kind, **options)

    def encode(branch, clips, times):
        if len(clips[0]) == 1:
            raise ZeroDivisionError
        return tokens(branch, clips, times)

    monkeypatch.setattr(assistant.processor, "read", read_medium)
    monkeypatch.setattr(assistant.model, "branch_tokens", encode)
    run(questions, tmp_path / "out", assistant=assistant, **OPTIONS)
    errors = {row["id"]: row["error"].split(" (avllm ")[0] for row in read(tmp_path / "out") if "error" in row}
    assert errors == {"two": "ZeroDivisionError", 4: "KeyError: 'no such thing'"}


def test_one_question_that_fails_takes_no_other_with_it(assistant, questions, tmp_path, monkeypatch):
    generate = assistant.generate

    def fail(embeds, **options):
        if len(embeds) > 1 or embeds.shape[1] > 45:
            raise RuntimeError("shapes do not match")
        return generate(embeds, **options)

    monkeypatch.setattr(assistant, "generate", fail)
    run(questions, tmp_path / "out", assistant=assistant, **OPTIONS)
    rows = {row["id"]: row for row in read(tmp_path / "out")}
    assert [name for name, row in rows.items() if "error" in row] == [3]
    assert "RuntimeError: shapes do not match" in rows[3]["error"]


def test_a_question_beyond_the_context_is_told_before_its_media_are_opened(assistant, tmp_path):
    rows = answered(assistant, tmp_path, json.dumps({"id": 1, "video": "clip", "question": "x" * 600}))
    assert "the decoder holds 512" in rows[1]["error"]
    assert assistant.opened == []


def test_a_name_that_no_file_can_have_is_an_error_row(assistant, tmp_path, monkeypatch):
    from avllm.model import AvllmProcessor

    monkeypatch.setattr(assistant.processor, "read", AvllmProcessor.read.__get__(assistant.processor))
    names = ["no.mp4", "nul\0.mp4", "\ud800.mp4", "x" * 5000, "", "../no", "https://a.b/c.mp4", "data:,"]
    rows = [{"id": number, "video": name, "question": "what?"} for number, name in enumerate(names)]
    got = answered(assistant, tmp_path, "\n".join(map(json.dumps, rows)))
    assert all("error" in row for row in got.values())
