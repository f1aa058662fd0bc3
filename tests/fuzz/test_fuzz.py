"""Damaged files of every kind, by the seed of the day; and that the fuzzer sees what it looks for."""

import time
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import of_media, of_requests, of_settings
from tests.fuzz.case import damaged
from tests.fuzz.mutate import mutate
from tests.fuzz.run import Bounds, Kind, fuzz

SEED = int(time.time()) // 86_400
FILES = 2000
SHARES = {"media": 28, "rows": 4, "yaml": 5, "http": 2, "weights": 1}
STUBS = {
    "abort": "crash",
    "exit": "crash",
    "hang": "hang",
    "memory": "memory over the bound",
    "foreign": "foreign exception",
    "address": "address in an error text",
    "log": "traceback in the log",
}


def test_s09_two_thousand_damaged_files_end_in_answers_or_errors_of_ours(capsys):
    report = fuzz(SEED, Bounds(files=FILES), shares=SHARES, goods_of=("media", "yaml"))

    with capsys.disabled():
        print(f"\nfuzz: seed {SEED}, {sum(report.files.values())} files, {report.seconds:.0f} s")
    assert sum(report.files.values()) == FILES
    assert set(report.files) == set(SHARES)
    assert report.ok, report.to_text()


def test_what_must_not_happen_is_seen_and_the_next_file_is_read(tmp_path):
    kinds = {name: Kind(module="tests.fuzz.stubs", child="stubs", share=1) for name in STUBS}
    for name, what in STUBS.items():
        bounds = Bounds(files=3, case_seconds=1.5, memory_mib=32)
        report = fuzz(7, bounds, kinds=[name], table=kinds, keep=tmp_path)

        assert [(fault.what, fault.number) for fault in report.faults] == [(what, 1)], (name, report.to_text())
        assert report.faults[0].entry == ("all" if name == "memory" else name)
        assert sum(report.files.values()) == 3
        assert report.classes[f"{name}.refuse"]["MediaError"] == 3  # of the good file and of two damaged ones
        again = f"python -m tests.fuzz --seed 7 --kinds {name} --only 1"
        assert again in report.to_text()
        kept = Path(report.faults[0].kept)
        assert kept.read_bytes() != b"x" * 100
        assert kept.read_bytes() == _alone(kinds, name, tmp_path / "alone")


def _alone(kinds, name, keep):
    report = fuzz(7, Bounds(case_seconds=1.5, memory_mib=32), kinds=[name], table=kinds, only=1, keep=keep)
    assert len(report.faults) == 1
    return Path(report.faults[0].kept).read_bytes()


def test_memory_that_grows_from_file_to_file_is_seen():
    kinds = {name: Kind(module="tests.fuzz.stubs", child="stubs", share=1) for name in ("leak", "foreign")}
    report = fuzz(0, Bounds(files=300), kinds=["leak"], table=kinds)
    assert [fault.what for fault in report.faults] == ["growth"]


@pytest.mark.parametrize("module", [of_media, of_settings, of_requests])
def test_a_number_of_a_seed_is_always_the_same_file(module, tmp_path):
    one, two = (module.corpus(tmp_path / name) for name in "ab")

    for number in range(40):
        (first, data), (second, same) = damaged(one, 5, number), damaged(two, 5, number)
        assert first.name == second.name
        assert data == same, first.name
    assert len({damaged(one, seed, 0)[1] for seed in range(20)}) > 10


def test_most_files_differ_from_the_good_one(tmp_path):
    for good in of_media.corpus(tmp_path / "files"):
        data = good.data()
        assert sum(mutate(data, Random(number), good.form) != data for number in range(10)) >= 6, good.name
