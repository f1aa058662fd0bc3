"""What a disk says, told in one line with file and advice."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avllm.durable import append_line, appending, disk_faults, file_whole, told_of_disk, write_whole, written_whole
from avllm.errors import DataError, DiskError
from tests.durable.full_disk import fill, small_disk

BIG = {"a": torch.zeros(400_000)}
WRITERS = {
    "python": lambda path: path.write_bytes(bytes(2_000_000)),
    "safetensors": lambda path: save_file(BIG, path),
    "torch": lambda path: torch.save(BIG, path),
    "numpy": lambda path: np.save(path.open("wb"), BIG["a"].numpy()),
}


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.mark.parametrize("name", WRITERS)
def test_s25_a_full_disk_is_one_line_and_leaves_what_was_there(disk, name):
    write_whole(disk / "a.bin", "old")
    with pytest.raises(DiskError) as told, file_whole(disk / "a.bin") as unfinished:
        WRITERS[name](unfinished)
    assert str(told.value).startswith(f"{disk}/a.bin: cannot be written: no space is left on its disk (")
    assert str(told.value).endswith(" of 1.0 MiB are free); free some, or name a place on another disk")
    assert (disk / "a.bin").read_text() == "old"
    assert [path.name for path in disk.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("name", WRITERS)
def test_s25_a_folder_on_a_full_disk_is_the_old_one(disk, name):
    with written_whole(disk / "model") as unfinished:
        (unfinished / "a").write_text("old")
    with (
        pytest.raises(DiskError, match="model: cannot be written: no space"),
        written_whole(disk / "model") as unfinished,
    ):
        WRITERS[name](unfinished / "a")
    assert (disk / "model" / "a").read_text() == "old"
    assert [path.name for path in disk.iterdir()] == ["model"]


def test_s25_rows_on_a_full_disk_are_whole_and_go_on_when_there_is_room(disk):
    rows = [{"id": number, "answer": "x" * 3000} for number in range(4)]
    path = disk / "rows.jsonl"
    with appending(path) as out:
        out.add(rows[:1])
        filler = fill(disk, leave=4096)
        with pytest.raises(DiskError, match=r"rows.jsonl: cannot be written: no space"):
            out.add(rows[1:])
        assert path.read_bytes().count(b"\n") == 1
        filler.unlink()
        out.add(rows[1:])
    assert path.read_bytes().count(b"\n") == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told_of(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="no permission; change the rights"):
        write_whole(tmp_path / "a", "text")


def test_a_read_only_disk_is_told_of(disk):
    import subprocess

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for write in (lambda: write_whole(disk / "a", "text"), lambda: written_whole(disk / "b").__enter__()):
        with pytest.raises(DiskError, match=r"/disk/[ab]: cannot be written: its file system is read-only"):
            write()
    with pytest.raises(DiskError, match="read-only"), appending(disk / "c"):
        pass


def test_what_stands_in_the_place_is_told_of(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="is a folder; expected a file"):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(DiskError, match="expected a folder"):
        write_whole(tmp_path / "file" / "a", "text")
    with pytest.raises(DiskError, match="is no file that rows can be kept in"), appending(tmp_path / "folder"):
        pass
    with pytest.raises(DiskError, match="is no file that rows can be kept in"), appending("/dev/null"):
        pass


def test_errors_about_something_else_pass(tmp_path):
    for error in (
        FileNotFoundError(errno.ENOENT, "none", str(tmp_path / "a")),
        PermissionError(errno.EACCES, "no", "/elsewhere/clip.mp4"),
        ValueError("os error of mine"),
    ):
        with pytest.raises(type(error)), disk_faults(tmp_path / "a"):
            raise error
        assert type(error) is PermissionError or told_of_disk(error) is None


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b"", 1),
        (b'{"id": 2, "answer": "ha', 1),
        (b'{"id": 2, "answer": "half"}', 2),  # cut just before its end
        (bytes(400), 1),
    ],
)
def test_a_row_that_a_kill_cut_off_is_dropped_and_a_whole_one_kept(tmp_path, tail, kept):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 1}\n' + tail)
    with appending(path) as out:
        out.add([{"id": 3}])
    lines = path.read_bytes().splitlines()
    assert len(lines) == kept + 1
    assert lines[-1] == b'{"id": 3}'


@pytest.mark.parametrize("data", [b"my notes", b"[1, 2]", b'{\n "pretty": 1\n}', "ä".encode("utf-16")])
def test_a_file_of_somebody_else_is_not_cut(tmp_path, data):
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match="its last line is no row of a run"), appending(path):
        pass
    assert path.read_bytes() == data


def test_a_line_is_not_glued_to_one_that_was_cut(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b'{"vote": "up"}\n{"vote": "d')
    append_line(path, '{"vote": "down"}')
    assert path.read_text().splitlines() == ['{"vote": "up"}', '{"vote": "d', '{"vote": "down"}']


def test_rows_are_strict_json_whatever_is_in_them(tmp_path):
    path = Path(tmp_path / "rows.jsonl")
    with appending(path) as out:
        out.add([{"id": "\ud800", "x": float("nan"), "y": [float("inf"), 1.5], "z": "a\u2028\x85b"}])
    assert path.read_bytes() == b'{"id": "\\ud800", "x": null, "y": [null, 1.5], "z": "a\\u2028\\u0085b"}\n'
