"""`avllm eval nano` from the shell to the report, and what batches gain over one question at a time.

    python -m benchmarks.eval [--json] [--rounds N] [--questions N] [--model NAME|DIR]

The whole command is a new process: imports, weights, decoding, encoding, answering, report; the clips are made before.
Arms then answer all questions about some clips in one process: in batches, one at a time, and each with its own media.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import torch

from avllm.chat.assistant import Assistant, load
from avllm.evaluation.answering import answer
from avllm.evaluation.benchmark import Benchmark, read_benchmark
from avllm.nano.benchmark import READERS
from benchmarks.common import ROOT, Figure, arguments, interleaved, machine, median, report

CLIPS = 16  # that the arms ask about


def main() -> None:
    parser = arguments("Speed of `avllm eval nano`.")
    parser.add_argument("--questions", type=int, default=500, help="of the whole command (default: 500)")
    parser.add_argument("--model", default="nano", help="a name or a folder (default: nano)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = read_benchmark("nano", [f"data.folder={folder}/clips", f"model={args.model}"], READERS)
        making = time.perf_counter()
        bench.samples()
        making = time.perf_counter() - making
        whole = whole_command(Path(folder), args.questions, args.model)
        few = replace(bench, data=replace(bench.data, clips=CLIPS))
        assistant = load(args.model)
        arms: dict[str, Callable[[], dict[str, Any]]] = {
            "batch": lambda: answered(few, assistant),
            "single": lambda: answered(replace(few, batch=1), assistant),
            "alone": lambda: answered(replace(few, batch=1), assistant, each_alone=True),
        }
        runs = interleaved(arms, args.rounds)
    first = runs["single"][0]["answers"]
    others = [run["answers"] for arm in runs.values() for run in arm]
    different = {name for answers in others for name in answers if answers[name] != first[name]}
    rate = {name: median([run["rate"] for run in arm]) for name, arm in runs.items()}
    figures = {
        "eval_500_s": Figure(
            value=whole["seconds"],
            goal=180.0,
            better="lower",
            against=f"{whole['questions']} questions",
            note=f"score {whole['score']}; making the clips took {making:.1f} s before",
        ),
        "batch_vs_one_at_a_time": Figure(
            value=rate["batch"] / rate["single"],
            goal=2.0,
            against=f"batches of {few.batch}, of 1",
            note=f"{rate['batch']:.1f} and {rate['single']:.1f} questions a second, one thread; both keep media",
        ),
        "batch_vs_each_alone": Figure(
            value=rate["batch"] / rate["alone"],
            against="the medium read anew for each question",
            note=f"{rate['alone']:.1f} questions a second, as the published evaluations do it",
        ),
        "different_answers": Figure(value=len(different), goal=0, better="lower", against=f"{len(first)} questions"),
    }
    report(figures, machine("torch", "transformers", "av"), as_json=args.json)


def whole_command(folder: Path, questions: int, model: str) -> dict[str, Any]:
    """Seconds of `avllm eval nano` as a user runs it."""
    words = [f"limit={questions}", f"out={folder}/whole", f"data.folder={folder}/clips", f"model={model}", "--json"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "avllm", "eval", "nano", *words]
    done = run_process(command, cwd=ROOT, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"avllm eval failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return {"seconds": elapsed, "questions": found["answered"], "score": found["overall"]["mean"]}


def answered(bench: Benchmark, loaded: Assistant, *, each_alone: bool = False) -> dict[str, Any]:
    """Questions a second of one arm; nothing is kept from the arm before."""
    samples = bench.samples()
    shares = [[sample] for sample in samples] if each_alone else [samples]
    started = time.perf_counter()
    found = [
        row
        for share in shares
        for rows in answer(bench, share, Assistant(loaded.model, loaded.processor))
        for row in rows
    ]
    elapsed = time.perf_counter() - started
    answers = {row["id"]: row["answer"] for row in found}
    return {"rate": len(found) / elapsed, "answers": answers}


if __name__ == "__main__":
    main()
