import io
import json
import socket

import pytest
from rich.console import Console

from avllm.demo import serve
from avllm.demo.server import FIRST_PORT, free_port
from avllm.demo.terminal import plain
from avllm.demo.votes import Votes
from avllm.errors import CheckpointError, ConfigError


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_was_asked_for_must_be_free(taken):
    with pytest.raises(ConfigError, match=f"port {taken} is taken"):
        free_port("127.0.0.1", taken)


def test_without_a_port_the_first_free_one_is_taken():
    first = free_port("127.0.0.1", None)
    with socket.socket() as server:
        server.bind(("127.0.0.1", first))
        server.listen()
        second = free_port("127.0.0.1", None)

    assert FIRST_PORT <= first < second


def test_a_host_that_is_none_is_named():
    with pytest.raises(ConfigError, match="host: 'no such host' is not an address"):
        free_port("no such host", None)


def test_an_unknown_yaml_or_model_is_an_error_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"eval_configs/ holds: .*nano_only_vl, nano_withaudio, "):
        serve("nowhere")
    with pytest.raises(CheckpointError, match=r"model .*/none: no such folder"):
        serve("nano_withaudio", model=f"{tmp_path}/none")


def test_votes_need_a_file_that_can_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"page.votes: .* cannot be written"):
        Votes(tmp_path / "nowhere" / "votes.jsonl")


def test_a_vote_begins_a_line_of_its_own_also_after_a_cut_one(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text('{"vote": "up", "question": "cut o')
    votes = Votes(path)
    votes.add("up", question="Why\u2028?", answer="half \ud83d a pair", number=float("nan"))
    votes.add("down")

    cut, *whole = path.read_text().splitlines()
    assert cut.endswith("cut o")
    assert [json.loads(line)["vote"] for line in whole] == ["up", "down"]
    assert json.loads(whole[0])["number"] is None


def test_what_a_terminal_would_obey_is_not_printed():
    assert (
        plain("a\x1b[31mred\x1b]0;title\x07\r\x9bb\nc ü …") == "a\ufffd[31mred\ufffd]0;title\ufffd\ufffd\ufffdb\nc ü …"
    )


def test_the_console_takes_model_text_literally():
    out = io.StringIO()
    Console(file=out, highlight=False, markup=False).print("[red]x[/red]")
    assert out.getvalue() == "[red]x[/red]\n"
