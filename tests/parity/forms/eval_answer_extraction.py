"""The form `eval_answer_extraction` of VideoLLaMA 2: from outputs to options, by each published rule."""

from pathlib import Path

from avllm.evaluation.extraction import PUBLISHED
from tests.parity.check import Check
from tests.parity.common import read_json

LETTERS = "ABCDE"


def recognises(folder: Path) -> bool:
    """Whether the case holds this form's table."""
    path = folder / "cases.json"
    rows = read_json(path) if path.is_file() else None
    return isinstance(rows, list) and bool(rows) and "egoschema_csv_line" in rows[0]


def run(folder: Path, check: Check) -> None:
    """Checks every rule on every output."""
    for index, row in enumerate(read_json(folder / "cases.json")):
        output, options = row["output"], row["options"]
        name = f"{index}: {output[:40]!r}"
        for key in (key for key in row if key.startswith("mvbench_")):
            count = int(key.removeprefix("mvbench_"))
            found = PUBLISHED["mvbench"].choose(output, options[:count], LETTERS[:count])
            check.same(f"{name}: {key}", found, row[key])
        found = PUBLISHED["videomme"].choose(output, options, LETTERS[:4])
        check.same(f"{name}: videomme", letter(found), row["videomme"])
        found = PUBLISHED["videomme_scorer"].choose(output, options, LETTERS[:4])
        check.same(f"{name}: videomme_scorer", letter(found), row["videomme_scorer_extract"])
        found = PUBLISHED["egoschema"].choose(output, options, LETTERS)
        name_of_video = row["egoschema_csv_line"].split(",")[0]
        check.same(f"{name}: egoschema", f"{name_of_video}, {found}\n", row["egoschema_csv_line"])


def letter(index: int | None) -> str:
    """The letter of an option; nothing for none."""
    return "" if index is None else LETTERS[index]
