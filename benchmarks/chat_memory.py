"""The memory of the demo at rest, and of a long conversation."""

import http.client
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import avllm
from benchmarks.ask import FPS, frames
from benchmarks.common import ROOT, Figure, in_child, resident_mib

# The allocator's holes fill up during the first turns; then nothing may grow.
NUM_TURNS, WARM_UP = 500, 300


def memory() -> dict[str, Figure]:
    """Both figures, each in processes of its own."""
    long = in_child("benchmarks.chat", "--turns")
    return {
        "demo_idle_mib": Figure(
            value=demo_idle_mib(),
            goal=1200.0,
            better="lower",
            note="demo.py with nano, the page served, its children too",
        ),
        "turns_200_growth_mib": Figure(
            value=long["after"] - long["before"],
            goal=32.0,
            better="lower",
            note=f"from turn {WARM_UP} ({long['before']:.0f} MiB) to {NUM_TURNS}; with undo, reset, new media",
        ),
    }


def demo_idle_mib() -> float:
    """Resident memory of `demo.py` and its children two seconds after it has served its page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "demo.py"), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not serves(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not serve its page")
            time.sleep(0.5)
        time.sleep(2)
        parent = psutil.Process(process.pid)
        return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))) / 2**20
    finally:
        process.terminate()
        process.wait(30)


def serves(port: int) -> bool:
    """Whether the page comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status == 200 and b"<html" in response.read()
    except OSError:
        return False
    finally:
        connection.close()


def turns() -> dict[str, Any]:
    """Resident MiB at turn 300 and at turn 500 of one session with nano; the store holds three media of eight."""
    assistant = avllm.load("nano")
    session = assistant.chat(overflow="drop_oldest_turn")
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = [_clip(Path(folder) / f"{index}.mp4", index) for index in range(8)]
        for turn in range(1, NUM_TURNS + 1):
            if turn % 25 == 1:
                session.reset()
            new = clips[turn // 5 % len(clips)] if turn % 5 == 1 else None
            session.ask(f"What moves in turn {turn}?", max_new_tokens=8, video=new)
            if turn == 3:
                assistant.store.max_bytes = assistant.store.num_bytes() * 3
            if turn % 7 == 0:
                session.undo()
            if turn in (WARM_UP, NUM_TURNS):
                result["before" if turn == WARM_UP else "after"] = resident_mib()
    return result


def _clip(path: Path, seed: int) -> Path:
    from avllm.media import write_video

    write_video(path, (np.roll(frame, seed, axis=0) for frame, _ in zip(frames(), range(25), strict=False)), FPS)
    return path
