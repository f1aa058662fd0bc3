"""The process that damaged files are handed to: calls every entry point of a case and tells what came of it."""

import gc
import importlib
import os
import re
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, Said

ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
OK = {"class": "ok", "fault": "", "message": "", "seconds": 0.0}
ROOT = str(Path(__file__).parents[2])


def work(pipe: Connection, modules: Mapping[str, str], log: str, room_bytes: int) -> None:
    """Answers cases until the pipe is closed.

    Args:
        pipe: to the parent.
        modules: kind -> module with its `calls`.
        log: gets what is printed here.
        room_bytes: address space beyond what the imports take.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = os.environ["TMPDIR"] = str(Path(log).parent)  # which the parent removes
    out = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    calls = {kind: importlib.import_module(module).calls for kind, module in modules.items()}
    gc.set_threshold(700, 10, 10)  # as usual: processes of tests look for cycles seldom, and decoders lie in some
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _status("VmSize") * 1024 + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    pipe.send("ready")
    read = os.fstat(out).st_size
    while True:
        try:
            case: Case = pipe.recv()
        except EOFError:
            return
        before = _reset_peak()
        for entry, call in calls[case.kind](case):
            pipe.send(("begin", entry))
            pipe.send(("end", _outcome(call)))
        printed = os.pread(out, 1 << 20, read)
        read += len(printed)
        if b"Traceback (most recent call last)" in printed:
            blamed = _blamed(printed.decode(errors="replace"))
            of = {"class": "traceback of ours", "fault": "traceback in the log", "message": blamed}
            pipe.send(("begin", "log"))
            pipe.send(("end", {**OK, **(of if blamed else {"class": "traceback of others"})}))
        pipe.send(
            (
                "done",
                {"before": before, "peak": _status("VmHWM"), "after": _status("VmRSS"), "virtual": _status("VmSize")},
            )
        )


def _outcome(call: Any) -> dict[str, Any]:
    """The class of what a call did, and whether that is a fault."""
    from avllm.errors import AvllmError, InternalError

    started = time.perf_counter()
    found: dict[str, Any] = dict(OK)
    try:
        said = call()
        if isinstance(said, Said):
            found["class"] = str(said)
    except AvllmError as error:
        found |= {"class": type(error).__name__, "message": str(error)}
        if ADDRESS.search(str(error)):
            found["fault"] = "address in an error text"
    except MemoryError as error:
        found |= {"class": "MemoryError", "fault": "memory", "message": str(error)}
    except (Exception, SystemExit) as error:
        fault = "fault of avllm or a library" if isinstance(error, InternalError) else "foreign exception"
        message = f"{type(error).__name__}: {error} ({_where(error)})"
        found |= {"class": type(error).__name__, "fault": fault, "message": message}
    found["seconds"] = time.perf_counter() - started
    found["message"] = found["message"][:600]
    return found


def _where(error: BaseException) -> str:
    """The last line of our package and the last of all, by which equal faults are known."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(ROOT) and "/tests/fuzz/" not in frame.filename]
    shown = dict.fromkeys(
        f"{Path(frame.filename).relative_to(ROOT) if frame.filename.startswith(ROOT) else Path(frame.filename).name}"
        f":{frame.lineno} {frame.name}"
        for frame in (*ours[-1:], *frames[-1:])
    )
    return ", ".join(shown)


def _blamed(printed: str) -> str:
    """The end of the first traceback that our code has a part in; `look.py` stands around every request."""
    for text in printed.split("Traceback (most recent call last)")[1:]:
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', text)
        ours = [number for number, frame in enumerate(frames) if frame[0].startswith(f"{ROOT}/avllm/")]
        if ours and (ours[-1] == len(frames) - 1 or not frames[ours[-1]][0].endswith("demo/look.py")):
            file, line, name = frames[ours[-1]]
            end = next((line for line in text.splitlines()[1:] if line[:1].strip()), "")
            return f"{end[:400]} ({file.removeprefix(ROOT + '/')}:{line} {name})"
    return ""


def _reset_peak() -> int:
    """Starts the peak of memory anew; resident KiB now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """KiB of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split(maxsplit=1)[0])
