"""A cold `avllm ask`: seconds from the command to its end, and the most memory it held.

    python -m benchmarks.ask [--json] [--rounds N] [--model NAME|DIR] [--peer COMMIT]

Every run is a new process on a 10 s clip of 640 x 360 with sound, made here; starting Python and all imports count.
With a peer, an older commit of this repository answers the same question in turn with this tree.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avllm.media import write_video
from benchmarks.common import ROOT, Figure, arguments, interleaved, machine, median, report

SECONDS, FPS, WIDTH, HEIGHT = 10, 25, 640, 360
QUESTION = "What do you see and hear?"


def main() -> None:
    parser = arguments("Seconds and memory of a cold `avllm ask`.")
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument("--peer", metavar="COMMIT", help="a commit that answers in turn with this tree")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_video(
            clip, frames(), FPS, waveform=0.2 * np.sin(np.arange(SECONDS * 16000) / 20)[None].astype(np.float32)
        )
        arms = {"ask": lambda: ask(clip, args.model), "help": lambda: command("--help")}
        if args.peer:
            peer = unpacked(args.peer, Path(folder) / "peer")
            arms["peer"] = lambda: ask(clip, args.model, tree=peer)
        runs = interleaved(arms, args.rounds)
    figures = {
        "ask_cold_s": Figure(
            value=median([run["seconds"] for run in runs["ask"]]),
            goal=6.0,
            better="lower",
            note=f"{median([run['cpu_seconds'] for run in runs['ask']]):.2f} s of processor time",
        ),
        "ask_peak_mib": Figure(value=max(run["peak_mib"] for run in runs["ask"]), goal=1200.0, better="lower"),
        "ask_without_start_s": Figure(
            value=median([run["timings_s"]["total"] for run in runs["ask"]]),
            better="lower",
            note="decoding, encoding and answering, once everything is imported and loaded",
        ),
        "help_s": Figure(value=median([run["seconds"] for run in runs["help"]]), goal=1.0, better="lower"),
    }
    if args.peer:
        peer_s = median([run["seconds"] for run in runs["peer"]])
        ask_s = median([run["seconds"] for run in runs["ask"]])
        figures["ask_against_peer_x"] = Figure(
            value=ask_s / peer_s, goal=0.6, better="lower", against=f"commit {args.peer}", note=f"{peer_s:.2f} s there"
        )
    report(figures, machine("torch", "transformers", "av"), as_json=args.json)


def frames() -> Iterator[np.ndarray]:
    """A bright square that crosses noise."""
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(SECONDS * FPS):
        frame = noise.copy()
        left = index * (WIDTH - 80) // (SECONDS * FPS)
        frame[140:220, left : left + 80] = (220, 40, 40)
        yield frame


def unpacked(commit: str, folder: Path) -> Path:
    """The files of a commit, with the compiled modules that an installed package has."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder / "avllm")], check=True)
    return folder


def ask(clip: Path, model: str, tree: Path = ROOT) -> dict[str, Any]:
    """One cold question to the avllm of a source tree."""
    result = command("ask", str(clip), QUESTION, "--model", model, "--json", tree=tree)
    return {**result, **json.loads(result["output"])}


def command(*args: str, tree: Path = ROOT) -> dict[str, Any]:
    """Runs `avllm` in a process of its own and takes its time and memory."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "avllm", *args], cwd=tree, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    if status != 0:
        raise RuntimeError(f"avllm {' '.join(args)} failed with status {os.waitstatus_to_exitcode(status)}")
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "seconds": elapsed,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / scale,
        "output": output,
    }


if __name__ == "__main__":
    main()
