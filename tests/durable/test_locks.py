"""Locks between processes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from avllm.durable import in_use, lock_beside, locked
from avllm.errors import DiskError, InUse

HOLD = """
import sys
from pathlib import Path
from avllm.durable import lock_beside, locked
with locked(lock_beside(Path(sys.argv[1])), sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
RACE = """
import sys
from avllm.durable import lock_beside, locked
from avllm.errors import InUse
from pathlib import Path
print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(lock_beside(Path(sys.argv[1])), sys.argv[1]):
        print("holds", flush=True)
        sys.stdin.readline()
except InUse as error:
    print(error, flush=True)
"""


def _started(program, *args):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def _take(path, **options):
    with locked(lock_beside(path), path, **options):
        pass


def test_the_other_is_told_who_holds_it_and_a_kill_frees_it(path):
    with _started(HOLD, path) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InUse) as told:
            _take(path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    text = str(told.value)
    assert text.startswith(f"{path}: process {other.pid} on {os.uname().nodename} (-c {path}), since 2")
    assert text.endswith("UTC, writes it right now; wait for its end, or name another place")
    assert "\n" not in text
    assert lock_beside(path).exists()  # signed by the one that was killed, and holds nothing
    _take(path)
    assert not lock_beside(path).exists()


def test_of_two_at_the_same_instant_one_goes_on(path):
    with _started(RACE, path) as one, _started(RACE, path) as other:
        both = (one, other)
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.readline() for process in both]
        for process in both:
            process.stdin.close()
    assert sorted(text == "holds\n" for text in said) == [False, True]
    holder = both[said.index("holds\n")]
    assert any(f"process {holder.pid} on " in text for text in said)


def test_it_can_be_waited_for(path):
    with _started(HOLD, path) as other:
        assert other.stdout.readline() == "held\n"
        threading.Timer(0.1, other.stdin.close).start()
        _take(path, wait=True)
        assert other.wait(60) == 0


def test_a_forked_reader_that_outlives_its_parent_holds_nothing(path):
    started, ended = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        with locked(lock_beside(path), path):
            if os.fork() == 0:  # a reader of data
                os.close(ended[1])
                os.write(started[1], b"1")
                os.read(ended[0], 1)
                os._exit(0)
            signal.pause()
    os.read(started[0], 1)
    with pytest.raises(InUse, match=f"process {parent} on"):
        _take(path)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _take(path)
    os.close(ended[1])


def test_the_thread_that_holds_it_may_take_it_again_and_others_not(path):
    failed = []

    def other():
        try:
            _take(path)
        except InUse as error:
            failed.append(error)

    with locked(lock_beside(path), path):
        _take(path)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert lock_beside(path).exists()
    assert len(failed) == 1
    assert not lock_beside(path).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(path, monkeypatch, caplog, number):
    def lockf(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    _take(path)
    assert f"{path}: its file system knows no locks; see to it that no second process writes there" in caplog.text


def test_a_folder_in_use_is_made_and_goes_again_when_nothing_came_into_it(tmp_path):
    with in_use(tmp_path / "runs" / "out"):
        assert (tmp_path / "runs" / "out" / ".in_use").exists()
    assert not (tmp_path / "runs" / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"/file: .*is a file; expected a folder"), in_use(tmp_path / "file"):
        pass
