"""Names, answers and errors are text in a terminal, whatever is in them."""

import ast
import io
import json
import logging
from pathlib import Path

import pytest

from avllm.chat.reply import Reply
from avllm.cli import main
from avllm.data.check import Fault, Report
from avllm.terminal import say, visible

ROOT = Path(__file__).parents[1]
EVIL = "a\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp.exe\u2066\x7f\ud800\U000e0041\u2028b"
SHOWN = "a\\u001b]0;owned\\u0007\\u001b[2J\\r\\u009b31m\\u202egnp.exe\\u2066\\u007f\\ud800\\udb40\\udc41\\u2028b"


def test_what_a_terminal_would_obey_is_visible_and_all_else_as_it_is():
    assert visible(EVIL) == SHOWN
    plain = "two\nlines\tof \u05e9\u05dc \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469 \\u001b \xe9\xa0"
    assert visible(plain) == plain
    assert "".join(map(visible, EVIL)) == SHOWN  # a stream may pass any pieces


def test_json_stays_the_same_json():
    text = json.dumps({EVIL: [EVIL, "\b\f"]}, ensure_ascii=False, indent=2)
    assert json.loads(visible(text)) == json.loads(text)
    assert "\x1b" not in visible(text)


def test_letters_that_a_terminal_has_not_are_escaped():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("caf\xe9 \U0001f680", file=file)
    assert file.buffer.getvalue() == b"caf\\xe9 \\U0001f680\n"


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_answers_of_ask(monkeypatch, capsys, flag):
    monkeypatch.setattr("avllm.chat.ask.ask", lambda *args, **options: iter([Reply(question=EVIL, answer=EVIL)]))
    assert main(["ask", "clip", "what?", *flag]) == 0
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\r\x07\x9b\u202e\ud800")
    assert (json.loads(out)["answer"] if flag else out) == (EVIL if flag else SHOWN + "\n")


def test_answers_and_messages_of_a_chat(monkeypatch, capsys):
    class Session:
        last, exchanges, forgotten = None, (), ()

        def stream(self, question, **options):
            yield from EVIL

    class Assistant:
        model = None

        def chat(self, **options):
            return Session()

    lines = iter(["what?", f"/video {EVIL}", f"/{EVIL}"])
    monkeypatch.setattr("avllm.chat.console.load", lambda model: Assistant())
    monkeypatch.setattr("avllm.chat.console.choose_threads", lambda model: None)
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    assert main(["chat"]) == 0
    told = capsys.readouterr()
    assert told.out == SHOWN + "\n"
    assert "owned" in told.err
    assert not set(told.out + told.err) & set("\x1b\r\x07\x9b\u202e\ud800")


@pytest.mark.parametrize(
    "args", [["probe", EVIL[:-5]], ["run", f"{EVIL[:-5]}.jsonl", "out"], ["data", "check", EVIL[:-5]]]
)
def test_errors(args, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "owned" in error
    assert not set(error) & set("\x1b\r\x07\x9b\u202e")
    assert error.count("\n") == 1


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "nano", "--wrong", "\x1b[2J"])
    assert "\\u001b[2J" in capsys.readouterr().err


def test_what_is_logged(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr("avllm.media.probe", lambda file: logging.getLogger("avllm").warning("%s", EVIL) or 1 / 0)
    assert main(["probe", "clip"]) == 1
    error = capsys.readouterr().err
    assert SHOWN in error
    assert "\x1b" not in error


def test_tables(capsys, monkeypatch, tmp_path):
    from avllm.evaluation.report import Report as EvalReport

    row = {"id": "1", "category": f"[/x] {EVIL}", "score": 1.0, "answer": "a", "groups": {}, "read_as": None}
    table = EvalReport(
        name=EVIL, rows=(row,), shuffled=(), missing=(), num_without_media=0, max_missing=0.0, run={"model": "[red]"}
    ).to_table()
    say(table)
    faults = (Fault(what="entry", message=EVIL),)
    found = Report(file=EVIL, entries=1, good=0, media={}, lengths=(), faults=faults, max_unreadable=0.0)
    say(found.to_table())
    out = capsys.readouterr().out
    assert "[/x]" in out
    assert "[red]" in out
    assert not set(out) & set("\x1b\r\x07\x9b\u202e\ud800")


def test_commands_print_through_one_function_alone():
    for path in [*(ROOT / "avllm" / "cli").rglob("*.py"), *(ROOT / "avllm" / "chat").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Name) and node.id == "print"
            is_stream = (
                isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and "write" in ast.dump(node)
            )
            assert not is_print, f"{path}:{node.lineno}: print; use avllm.terminal.say"
            assert not is_stream, f"{path}:{node.lineno}: writes by itself; use avllm.terminal.say"
