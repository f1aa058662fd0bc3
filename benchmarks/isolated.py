"""What decoder processes cost: `avllm run` on 50 clips, with them and with `--trusted-media`, in turn.

    python -m benchmarks.isolated [--json] [--rounds N] [--clips N] [--model NAME|DIR]

Every run is a new process on clips of `avllm nano sample`, one question about each; imports, loading the model and
starting the decoder processes count. The answers of all runs must be equal.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avllm.nano.sample import sample
from benchmarks.ask import command
from benchmarks.common import Figure, arguments, interleaved, machine, median, report

QUESTION = "What do you see and hear?"
ARMS = {"isolated": (), "trusted": ("--trusted-media",)}


def main() -> None:
    parser = arguments("Time of a run of 50 clips with decoder processes, against one without.")
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    parser.add_argument("--clips", type=int, default=50, help="how many (default: 50)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder, args.clips)
        arms = {arm: lambda arm=arm: run(folder, rows, args.model, ARMS[arm]) for arm in ARMS}
        runs = interleaved(arms, args.rounds)
    answers = {json.dumps(one["answers"]) for found in runs.values() for one in found}
    if len(answers) != 1:
        raise SystemExit("the answers of the runs differ")
    report(figures(runs), machine("torch", "transformers", "av"), as_json=args.json)


def write_rows(folder: Path, clips: int) -> Path:
    """Clips, and a line for each."""
    sample(folder / "clips", num_clips=clips, seed=0)
    files = sorted((folder / "clips").glob("*.mp4"))
    rows = folder / "rows.jsonl"
    lines = ({"id": file.stem, "video": str(file), "question": QUESTION} for file in files)
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return rows


def run(folder: Path, rows: Path, model: str, options: Sequence[str]) -> dict[str, Any]:
    """One run, in a process of its own, with its answers."""
    out = folder / "out.jsonl"
    out.unlink(missing_ok=True)
    result = command("run", str(rows), str(out), "--model", model, *options)
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {**result, "answers": sorted((row["id"], row["answer"]) for row in found)}


def figures(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Figure]:
    """Medians of both arms, and how they compare."""
    of = {key: {arm: median([one[key] for one in runs[arm]]) for arm in runs} for key in ("seconds", "cpu_seconds")}
    found = {}
    for key, name, goal in (("seconds", "wall", 1.1), ("cpu_seconds", "cpu", None)):
        isolated, trusted = of[key]["isolated"], of[key]["trusted"]
        note = f"{isolated:.2f} s, {trusted:.2f} s in this process"
        found[f"isolated_{name}_x"] = Figure(
            value=isolated / trusted, goal=goal, better="lower", against="--trusted-media", note=note
        )
    return found


if __name__ == "__main__":
    main()
