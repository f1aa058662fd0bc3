"""Every command that writes, killed as by the seed of the day; and that the tool sees what it looks for."""

import re
import time
from random import Random

import pytest

from avllm.durable import lock_beside
from avllm.evaluation.run import evaluate
from tests.evaluation.fake import FakeAssistant, benchmark
from tests.kill import stubs
from tests.kill.commands import COMMANDS
from tests.kill.run import Killed

SEED = int(time.time()) // 86_400
KILLS = {"nano": 1}  # of the others two


@pytest.fixture(scope="module", params=COMMANDS)
def killed(request, tmp_path_factory):
    """A command that ran in peace once."""
    killed = Killed(request.param, tmp_path_factory.mktemp(request.param), warm=True)
    killed.run_whole()
    return killed


def test_s24_after_kills_a_command_goes_on_to_the_output_of_one_in_peace(killed, capsys):
    name = killed.result.name

    killed.run_killed(KILLS.get(name, 2), Random(f"{SEED}/{name}"))

    with capsys.disabled():
        print(f"\nkill: seed {SEED}, {killed.result.to_text()}")
    assert killed.result.kills == KILLS.get(name, 2)
    assert killed.result.faults == []


def test_of_two_at_once_one_goes_on_and_the_other_says_who_holds_the_output(killed):
    killed.result.faults.clear()

    killed.run_two()

    assert killed.result.faults == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("good", None),
        ("loses", r"differs: rows.jsonl: 30 and \d+ rows; gone \[.*\]; more \[\]"),
        ("doubles", r"differs: rows.jsonl: 30 and \d+ rows"),
        ("leaves", r"left over: \.unfinished-\d+"),
        ("destroys", "the old output is damaged"),
    ],
)
def test_what_must_not_happen_is_seen(name, fault, tmp_path):
    killed = Killed(name, tmp_path, command=stubs.command(name), warm=True)
    killed.run_whole()
    killed.run_killed(4, Random(0))

    if fault is None:
        assert killed.result.faults == []
        assert killed.result.kills == 4
    else:
        assert re.search(fault, killed.result.to_text()), killed.result.to_text()


def test_two_that_both_go_on_are_seen(tmp_path):
    killed = Killed("good", tmp_path, command=stubs.command("good"), warm=True)
    killed.run_whole()
    killed.run_two()

    assert any("the second ended with 0, too" in fault for fault in killed.result.faults)
    assert any("differs: rows.jsonl" in fault for fault in killed.result.faults)


def test_the_lock_of_a_killed_benchmark_goes_though_nothing_is_left_to_answer(tmp_path):
    wanted = benchmark(tmp_path, clips=2)
    evaluate(wanted, assistant=FakeAssistant())
    lock = lock_beside(tmp_path / "out" / "log.jsonl")
    lock.touch()

    evaluate(wanted, resume=True, assistant=FakeAssistant())

    assert not lock.exists()
