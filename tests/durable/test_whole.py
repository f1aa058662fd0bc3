"""Files and folders that appear whole, and what a kill or a failure leaves of them."""

import os
import threading

import pytest

from avllm.durable import file_whole, whole, write_whole, written_whole
from avllm.errors import DiskError, InUse


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(folder, text):
    with written_whole(folder) as unfinished:
        for name in ("a", "b"):
            (unfinished / name).write_text(text)


@pytest.mark.parametrize("can_swap", [True, False])
def test_what_was_there_is_replaced_and_nothing_stays_beside(tmp_path, monkeypatch, can_swap):
    if not can_swap:
        monkeypatch.setattr(whole, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        _write(tmp_path / "model", text)
        (tmp_path / "model" / text).write_text("more")

    assert _content(tmp_path / "model") == {"a": b"new", "b": b"new", "new": b"more"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_one_and_nothing_beside(tmp_path):
    _write(tmp_path / "model", "old")

    def stopped():
        with written_whole(tmp_path / "model") as unfinished:
            (unfinished / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()

    assert _content(tmp_path / "model") == {"a": b"old", "b": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_is_followed_and_a_file_is_left_alone(tmp_path):
    _write(tmp_path / "disk" / "model", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    (tmp_path / "file").write_text("mine")

    _write(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert _content(tmp_path / "disk" / "model")["a"] == b"new"
    with pytest.raises(DiskError, match="is a file"):
        _write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_kill_left_of_a_folder_goes_when_it_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "_exchange", lambda one, other: False)
    _write(tmp_path / "model", "old")
    (tmp_path / ".unfinished-model").mkdir()
    (tmp_path / ".unfinished-model" / "a").write_text("half")
    (tmp_path / "model").rename(tmp_path / ".unfinished-model.old")  # killed between its two renames

    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "model"):
        raise KeyboardInterrupt

    assert _content(tmp_path / "model") == {"a": b"old", "b": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_is_written_by_one_at_a_time(tmp_path):
    failed = []

    def other():
        try:
            _write(tmp_path / "model", "other")
        except InUse as error:
            failed.append(str(error))

    with written_whole(tmp_path / "model") as unfinished:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        (unfinished / "a").write_text("mine")

    assert failed == [f"{tmp_path}/model: another thread of this process writes it right now; wait for its end"]
    assert _content(tmp_path / "model") == {"a": b"mine"}


def test_a_file_appears_whole_and_a_failure_leaves_the_old_one_alone(tmp_path):
    write_whole(tmp_path / "new folder" / "a.json", "old \ud800")
    file = tmp_path / "new folder" / "a.json"

    def stopped():
        with file_whole(file) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()

    assert file.read_bytes() == b"old \\ud800"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_file_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.json").symlink_to(tmp_path / "disk" / "a.json")
    write_whole(tmp_path / "a.json", "text")
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "disk" / "a.json").read_text() == "text"


def test_what_a_killed_process_left_of_a_file_goes_and_that_of_a_living_one_stays(tmp_path):
    file = tmp_path / "a[1].json"
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    with file_whole(file) as unfinished:
        unfinished.write_text("in work")
        of_dead = tmp_path / unfinished.name.replace(f".{os.getpid()}.", f".{ended}.")
        of_parent = tmp_path / unfinished.name.replace(f".{os.getpid()}.", f".{os.getppid()}.")
        of_other_machine = tmp_path / f".unfinished-{file.name}.elsewhere.1.0"
        old = tmp_path / f".unfinished-{file.name}.elsewhere.2.0"
        others = tmp_path / ".unfinished-a1.json.elsewhere.2.0"
        for left in (of_dead, of_parent, of_other_machine, old, others):
            left.write_text("half")
        os.utime(old, (0, 0))
        os.utime(others, (0, 0))

        write_whole(file, "meanwhile")

        assert {path.name for path in tmp_path.iterdir()} == {
            path.name for path in (file, unfinished, of_parent, of_other_machine, others)
        }
    assert file.read_text() == "in work"


def test_names_as_long_as_a_file_system_holds_can_be_written_whole(tmp_path):
    longest, too_long = "n" * 255, "n" * 256
    write_whole(tmp_path / longest, "text")
    assert (tmp_path / longest).read_text() == "text"
    (tmp_path / longest).unlink()
    _write(tmp_path / longest, "text")
    with pytest.raises(DiskError, match="its name is too long"):
        write_whole(tmp_path / too_long, "text")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
