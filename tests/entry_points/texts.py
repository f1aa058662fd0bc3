"""Everything that takes settings or rows from a user, as two tables: its name, and how a test hands it a file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.entry_points.commands import command


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry point.

    Args:
        name: a command with its argument.
        content: of a file that it takes.
        use: hands it such a file and a folder for what it writes; a text that it returns is its complaint.
        suffix: of the file.
    """

    name: str
    content: str
    use: Callable[[Path, Path], str]
    suffix: str


def _told(path: Path) -> str:
    return next((row["error"] for row in map(json.loads, path.read_text().splitlines()) if "error" in row), "")


def _run(source: Path, folder: Path) -> str:
    return command("run", source, folder / "out.jsonl") or _told(folder / "out.jsonl")


def _preview(source: Path, folder: Path) -> str:
    return command("data", "preview", source, "--out", folder / "page.html")


def _eval(source: Path, folder: Path) -> str:
    rows = f"kind: rows, folder: {source.parent}, file: {source.name}, media: {{}}, question: q, answers: a"
    text = f"name: one\ndata: {{{rows}}}\nscore: {{kind: accepted}}\nmax_new_tokens: 1\n"
    (folder / "benchmark.yaml").write_text(text)
    return command("eval", folder / "benchmark.yaml", "--dry-run", f"out={folder / 'out'}")


_OWN = json.dumps({"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "a star"}]})
ROWS = (
    Entry(name="run source", content='{"question": "Hello?", "max_new_tokens": 1}', use=_run, suffix=".jsonl"),
    Entry(
        name="data check file",
        content=_OWN,
        use=lambda source, folder: command("data", "check", source),
        suffix=".jsonl",
    ),
    Entry(name="data preview file", content=_OWN, use=_preview, suffix=".jsonl"),
    Entry(name="eval benchmark", content='{"q": "Hello?", "a": "a star"}', use=_eval, suffix=".jsonl"),
)
SETTINGS = (
    Entry(
        name="demo --cfg-path",
        content="model: none-of-this-name\n",
        use=lambda source, folder: command("demo", "--cfg-path", source),
        suffix=".yaml",
    ),
    Entry(
        name="plan model",
        content=(Path(__file__).parents[2] / "configs" / "nano.yaml").read_text(encoding="utf-8"),
        use=lambda source, folder: command("plan", source),
        suffix=".yaml",
    ),
    *(
        Entry(
            name=name,
            content="init: nano\n",
            use=lambda source, folder, words=words: command(*words, source, f"output={folder}"),
            suffix=".yaml",
        )
        for name, words in {
            "train stage": ("train",),
            "features stage": ("features", "--out", "none"),
            "data check file": ("data", "check"),
            "data preview file": ("data", "preview"),
        }.items()
    ),
    Entry(
        name="eval benchmark",
        content="name: one\n",
        use=lambda source, folder: command("eval", source),
        suffix=".yaml",
    ),
)
