"""The form `eval_textvqa`: how VQA's evaluation tidies answers, and its soft accuracy."""

from pathlib import Path

from avllm.evaluation.metrics import normalise_vqa, vqa_accuracy
from tests.parity.check import Check
from tests.parity.common import read_json


def run(folder: Path, check: Check) -> None:
    """Checks every text and every accuracy."""
    stored = read_json(folder / "cases.json")
    for index, row in enumerate(stored["normalise"]):
        check.same(f"normalise.{index}: {row['text']!r}", normalise_vqa(row["text"]), row["processed"])
    for index, row in enumerate(stored["textvqa_accuracy"]):
        ours = vqa_accuracy(row["pred"], row["gt"])
        check.close(f"textvqa_accuracy.{index}: {row['pred']!r}", [ours], [row["accuracy"]], atol=1e-6)
