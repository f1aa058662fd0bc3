"""Files for the servers that hold the truth of a benchmark, in the form that each wants."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from avllm.data.annotations import read_entries
from avllm.durable import write_whole
from avllm.errors import AvllmError, DataError
from avllm.evaluation.extraction import LETTERS
from avllm.evaluation.metrics import normalise_vqa, tidy

Rows = Sequence[Mapping[str, Any]]
Files = dict[str, str | bytes]
_ALL_OF_VQA = "llava_vqav2_mscoco_test2015.jsonl"


def write(kind: str, rows: Rows, out: Path, folder: Path) -> list[str]:
    """Writes the files of a run.

    Args:
        kind: of `FORMATS`.
        rows: of the log, each with an answer; a question without one is not submitted.
        out: folder of the run.
        folder: of the benchmark's data.

    Returns:
        names of the files, beside report.json.

    Raises:
        DataError: a package that writes them is not installed, or the rows are not of the benchmark of that server.
    """
    try:
        files = FORMATS[kind](rows, folder)
    except AvllmError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"submission: {kind} cannot be written of the rows in {out} ({type(error).__name__}: {error}); they are "
            f"not of its benchmark"
        ) from error
    for name, content in files.items():
        write_whole(out / name, content)
    return list(files)


def _chosen(row: Mapping[str, Any]) -> int:
    """Index of the chosen option; of the first where none was, as servers want one."""
    return LETTERS.index(row["read_as"]) if row["read_as"] else 0


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False) + "\n"


def _number(name: str) -> int | str:
    return int(name) if name.isdigit() else name


def _vqav2(rows: Rows, folder: Path) -> Files:
    """The server of test-dev wants all questions of test2015; those that were not asked are answered with nothing."""
    answers: dict[int | str, str] = {_number(row["id"]): normalise_vqa(row["answer"]) for row in rows}
    if (folder / _ALL_OF_VQA).is_file():
        answers = {entry["question_id"]: "" for entry, _ in read_entries(folder / _ALL_OF_VQA)} | answers
    return {"submission.json": _json([{"question_id": key, "answer": said} for key, said in answers.items()])}


def _vizwiz(rows: Rows, folder: Path) -> Files:
    found = [{"image": Path(row["media"]["image"]).name, "answer": normalise_vqa(row["answer"])} for row in rows]
    return {"submission.json": _json(found)}


def _gqa(rows: Rows, folder: Path) -> Files:
    """Under the name by which GQA's own `eval.py` looks for it."""
    found = [{"questionId": row["id"], "prediction": tidy(row["answer"])} for row in rows]
    return {"testdev_balanced_predictions.json": _json(found)}


def _mmbench(rows: Rows, folder: Path) -> Files:
    try:
        openpyxl = import_module("openpyxl")
    except ModuleNotFoundError as error:
        raise DataError("MMBench's submission needs the package openpyxl; pip install 'avllm[eval]'") from error
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(["index", "question", *"ABCD", "prediction", "answer", "split"])
    for row in sorted(rows, key=lambda row: int(row["id"])):
        options = [*row["options"], "", "", ""][:4]
        right = "" if row.get("truth") is None else LETTERS[row["truth"]]
        texts = [row["question"], *options, row["answer"], right, row.get("groups", {}).get("split", "")]
        sheet.append([int(row["id"]), *(_plain(openpyxl, text) for text in texts)])
    file = io.BytesIO()
    book.save(file)
    return {"submission.xlsx": file.getvalue()}


def _plain(openpyxl: Any, text: str) -> str:
    """A cell's text without the control characters that the format forbids."""
    return openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.sub("", text)


def _egoschema(rows: Rows, folder: Path) -> Files:
    """As a table for Kaggle and as JSON for the server of the authors."""
    chosen = {row["id"]: _chosen(row) for row in rows}
    lines = [f"{name},{index}" for name, index in chosen.items()]
    return {"submission.csv": "\n".join(["q_uid,answer", *lines]) + "\n", "submission.json": _json(chosen)}


def _perception_test(rows: Rows, folder: Path) -> Files:
    videos: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        video, _, question = row["id"].rpartition("/")
        chosen = _chosen(row)
        answer = {"id": _number(question), "answer_id": chosen, "answer": row["options"][chosen]}
        videos.setdefault(video, []).append(answer)
    return {"submission.json": _json(videos)}


def _videomme(rows: Rows, folder: Path) -> Files:
    """What `eval_your_results.py` of the benchmark reads: a video an entry, with its questions."""
    videos: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, groups = row["id"].rpartition("-")[0], row["groups"]
        about = {"duration": groups["duration"], "domain": groups["domain"], "sub_category": groups["sub-domain"]}
        video = videos.setdefault(name, {"video_id": name, **about, "questions": []})
        video["questions"].append(
            {
                "question_id": row["id"],
                "task_type": row["category"],
                "question": row["question"],
                "options": [f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=False)],
                "answer": LETTERS[row["truth"]],
                "response": row["read_as"],
            }
        )
    return {"submission.json": _json(list(videos.values()))}


FORMATS: Mapping[str, Callable[[Rows, Path], Files]] = {
    "egoschema": _egoschema,
    "gqa": _gqa,
    "mmbench": _mmbench,
    "perception_test": _perception_test,
    "videomme": _videomme,
    "vizwiz": _vizwiz,
    "vqav2": _vqav2,
}
