"""What code in a decoder process cannot do, by canaries. Skipped, and said so, where the kernel has no means."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from avllm import confinement
from avllm.confinement import landlock, seccomp
from avllm.errors import MediaError
from avllm.media import write_video
from avllm.media.isolated import IsolatedMedia
from tests.media.in_child import taken_over

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no limits of processes on this system")
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="NOT TESTED: this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not seccomp.is_there(), reason="NOT TESTED: this kernel has no seccomp filters")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("confined") / "clip.mp4"
    return write_video(path, [np.full((32, 48, 3), 12 * i, np.uint8) for i in range(8)], 10.0)


@pytest.fixture(scope="module")
def isolated():
    with IsolatedMedia(seconds=60.0, num_workers=1) as isolated:
        yield isolated


def attempt(isolated, clip, code):
    """What came of some code in the child: `done`, or the name of an exception."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    tried = f"try:\n{lines}\n    said = 'done'\nexcept Exception as error:\n    said = type(error).__name__\n"
    with pytest.raises(MediaError) as caught:
        isolated.open_video(clip, taken_over(f"{tried}raise MediaError(said)"))
    return str(caught.value)


def test_attempts_that_are_allowed_are_done(isolated, clip):
    assert attempt(isolated, clip, "sum(range(3))") == "done"
    assert attempt(isolated, clip, "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()") == "done"


@needs_seccomp
def test_s09_the_network_is_out_of_reach(isolated, clip):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        address = canary.getsockname()
        canary.settimeout(0.2)
        said = attempt(isolated, clip, f"import socket\nsocket.create_connection({address!r}, 5)")
        assert said == "PermissionError"
        with pytest.raises(TimeoutError):
            canary.accept()
    for kind in ("AF_INET, socket.SOCK_DGRAM", "AF_UNIX, socket.SOCK_STREAM", "AF_INET6, socket.SOCK_STREAM"):
        assert attempt(isolated, clip, f"import socket\nsocket.socket(socket.{kind})") == "PermissionError"


@needs_landlock
def test_s09_other_files_are_out_of_reach(isolated, clip, tmp_path):
    canary = tmp_path / "canary.txt"
    canary.write_text("secret", encoding="utf-8")

    assert attempt(isolated, clip, f"open({str(canary)!r}).read()") == "PermissionError"
    assert attempt(isolated, clip, f"open({str(clip)!r}, 'rb').read()") == "PermissionError"  # only what is lent
    assert attempt(isolated, clip, f"os.listdir({str(tmp_path)!r})") == "PermissionError"
    assert attempt(isolated, clip, "open('/etc/passwd').read()") == "PermissionError"
    assert attempt(isolated, clip, "open('/proc/%d/environ' % os.getppid(), 'rb').read()") == "PermissionError"


def test_s09_nothing_is_written_changed_or_removed(isolated, clip, tmp_path):
    if not (landlock.version() or seccomp.is_there()):
        pytest.skip("NOT TESTED: this kernel has neither Landlock nor seccomp filters")
    canary, new = tmp_path / "canary.txt", tmp_path / "new.txt"
    canary.write_text("kept", encoding="utf-8")
    before = canary.stat()

    for code in (
        f"open({str(new)!r}, 'w').write('x')",
        f"open({str(canary)!r}, 'a').write('x')",
        f"os.unlink({str(canary)!r})",
        f"os.rename({str(canary)!r}, {str(new)!r})",
        f"os.chmod({str(canary)!r}, 0o777)",
        f"os.utime({str(canary)!r}, (0, 0))",
        f"os.truncate({str(canary)!r}, 0)",
        f"os.mkdir({str(new)!r})",
        f"os.symlink({str(canary)!r}, {str(new)!r})",
        f"os.mkfifo({str(new)!r})",
    ):
        assert attempt(isolated, clip, code) == "PermissionError", code
    assert not new.exists()
    assert canary.read_text(encoding="utf-8") == "kept"
    assert (canary.stat().st_mode, canary.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@needs_seccomp
def test_s09_no_program_no_process_and_no_signal_to_others(isolated, clip):
    marks = {
        "os.fork()": "PermissionError",
        "import subprocess\nsubprocess.run(['/bin/true'])": "PermissionError",
        "os.execv('/bin/true', ['true'])": "PermissionError",
        f"os.kill({os.getpid()}, 0)": "PermissionError",
        f"os.kill({os.getppid()}, 0)": "PermissionError",
        f"os.pidfd_open({os.getpid()})": "PermissionError",
        f"import fcntl\nfcntl.fcntl(end, fcntl.F_SETOWN, {os.getpid()})": "PermissionError",
        "import ctypes\nif ctypes.CDLL(None).prctl(4, 1, 0, 0, 0): raise PermissionError": "PermissionError",
    }
    for code, expected in marks.items():
        assert attempt(isolated, clip, code) == expected, code


def test_s09_limits_cannot_be_lifted(isolated, clip):
    names = ("RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE")
    names += ("RLIMIT_AS",) if sys.platform == "linux" else ()
    for name in names:
        code = f"import resource\nresource.setrlimit(resource.{name}, (resource.RLIM_INFINITY,) * 2)"
        assert attempt(isolated, clip, code) in ("PermissionError", "ValueError"), name
        code = f"import resource\nassert resource.RLIM_INFINITY not in resource.getrlimit(resource.{name})"
        assert attempt(isolated, clip, code) == "done", name
    code = "files = []\ntry:\n    files += map(lambda _: os.dup(0), range(100))\nfinally:\n    [*map(os.close, files)]"
    assert attempt(isolated, clip, code) == "OSError"
    assert len(isolated.open_video(clip)) == 8


def test_passwords_of_the_environment_stay_with_the_parent(clip, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with IsolatedMedia(num_workers=1) as isolated:
        assert attempt(isolated, clip, "os.environ['HF_TOKEN']") == "KeyError"


def test_what_is_in_force_is_told(isolated, clip, caplog):
    described = confinement.describe()

    assert ("Landlock" in described.partition("not, on this system")[0]) == bool(landlock.version())
    assert ("seccomp" in described.partition("not, on this system")[0]) == seccomp.is_there()


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the parent's end is looked for in /proc")
def test_a_killed_parent_leaves_no_child_even_one_that_hangs(clip):
    code = f"""
import sys, threading, time
from avllm.media.isolated import IsolatedMedia
from tests.media.in_child import OnArrival
isolated = IsolatedMedia(num_workers=1)
isolated.probe({str(clip)!r})
threading.Thread(target=isolated.open_video, args=({str(clip)!r}, OnArrival(time.sleep, 600)), daemon=True).start()
print(isolated.pids[0], flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(child)


def runs(pid):
    """Whether a process is there and has not ended; one that nobody waited for has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
