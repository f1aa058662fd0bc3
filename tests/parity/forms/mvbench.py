"""The form `mvbench`: the table of tasks, the prompt, the frames and the check of answers as published."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from avllm.evaluation.extraction import LETTERS, ChoiceRule, first_words_agree
from avllm.evaluation.mvbench import TASKS, MVBench, part
from avllm.evaluation.sample import PromptText, Sample
from avllm.media import Sampling
from tests.parity.check import Check
from tests.parity.common import read_json

YAML = Path(__file__).parents[3] / "eval_configs" / "mvbench_videochat2.yaml"


def run(folder: Path, check: Check) -> None:
    """Checks everything that the case holds."""
    stored = read_json(folder / "mvbench.json")
    prompt = PromptText(**yaml.safe_load(YAML.read_text(encoding="utf-8"))["prompt"])
    check.same("tasks", {task.name: _plain(task) for task in TASKS}, stored["tasks"])
    check.same("system", prompt.system, stored["system"])
    check.same("question_prompt", prompt.template.split("{options}")[1], stored["question_prompt"])
    check.same("answer_prompt", prompt.answer_start, stored["answer_prompt"])
    check.same("return_prompt", prompt.answer_start[-1:], stored["return_prompt"])
    for index, row in enumerate(stored["samples"]):
        run_sample(f"samples.{index}", row, prompt, check)
    for index, row in enumerate(stored["frame_indices"]):
        run_frames(f"frame_indices.{index}", row, check)
    for index, row in enumerate(stored["check_ans"]):
        run_answer(f"check_ans.{index}: {row['pred']!r}", row, check)


def run_sample(name: str, row: dict[str, Any], prompt: PromptText, check: Check) -> None:
    """A sample read from a file in the published layout, and the words around its media."""
    sample = read_sample(row["task"], row["data"])
    question = prompt.template.removeprefix("{system}").split("{options}")[0] + "{options}"
    check.same(f"{name}.question", PromptText(template=question).text(sample), row["question_text"])
    answer = f"({LETTERS[sample.truth or 0]}) {sample.options[sample.truth or 0]}"
    check.same(f"{name}.answer", answer, row["answer_text"])
    check.same(f"{name}.qformer_instruction", prompt.system, row["qformer_instruction"])
    asked = f"{prompt.system}###Human: <Video><VideoHere></Video>\n###Human: {prompt.text(sample)}"
    check.same(f"{name}.prompt", f"{asked}\n###Assistant: {prompt.answer_start}", row["prompt"])


def read_sample(task: str, data: dict[str, Any]) -> Sample:
    """What the reader makes of an entry."""
    found = next(one for one in TASKS if one.name == task)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "json" / found.file
        path.parent.mkdir()
        path.write_text(json.dumps([data]), encoding="utf-8")
        return next(iter(MVBench(folder=folder, tasks=(task,)).samples()))


def run_frames(name: str, row: dict[str, Any], check: Check) -> None:
    """Half a step late, then equal steps, over the part whose ends are rounded to frames."""
    bound = tuple(row["bound"]) if row["bound"] else None
    first, last = part(bound, fps=row["fps"], first=row["first_idx"], last=row["max_frame"])
    sampling = Sampling(kind="half_step", num_frames=row["num_segments"])
    ours = [first + index for index in sampling.indices(last - first + 1, row["fps"])]
    check.same(name, ours, row["indices"])


def run_answer(name: str, row: dict[str, Any], check: Check) -> None:
    """As published with the switch; an answer without a letter is wrong without it."""
    published = first_words_agree(row["pred"], row["gt"], empty_is_right=True)
    check.same(f"{name}, as published", published, row["correct"])
    has_letter = any(character.isalnum() for character in row["pred"].split(" ")[0])
    check.same(name, first_words_agree(row["pred"], row["gt"]), row["correct"] and has_letter)
    check.same(f"{name}, nothing chosen", has_letter or ChoiceRule().choose(row["pred"], ["x", "y", "z"]) is None, True)


def _plain(task: Any) -> dict[str, Any]:
    kind = "frame" if task.has_frames else "video"
    return {"json": task.file, "folder": f"{task.folder}/", "data_type": kind, "bound": task.has_part}
