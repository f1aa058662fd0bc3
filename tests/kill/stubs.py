"""Commands that lose, double, leave or destroy when they are killed; the tool must see each of them."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kill.commands import Command

ROWS, PAUSE_S = 30, 0.01


def forked(argv: Sequence[str]) -> int:
    """`NAME FOLDER [--resume]`."""
    name, folder = argv[0], Path(argv[1])
    target = folder / "rows.jsonl"
    if name == "destroys":
        shutil.rmtree(folder / "model")
        _write(target, range(ROWS))
        (folder / "model").mkdir()
        (folder / "model" / "new").write_text("new")
        return 0
    if name == "leaves":
        (folder / f".unfinished-{time.time_ns()}").touch()
    done = len(target.read_text().splitlines()) if target.exists() and name != "doubles" else 0
    _write(target, range(done + 2 * (name == "loses" and done > 0), ROWS))
    if name == "leaves" and len(argv) == 2:
        next(folder.glob(".unfinished-*")).unlink()
    return 0


def _write(path: Path, numbers: Sequence[int] | range) -> None:
    for number in numbers:
        with path.open("a") as file:
            file.write(json.dumps({"id": number, "seconds": time.time()}) + "\n")
        time.sleep(PAUSE_S)


def _old(root: Path, work: Path) -> None:
    (work / "model").mkdir()
    (work / "model" / "old").write_text("old")


def command(name: str) -> Command:
    """The command of a name."""

    def argv(root: Path, work: Path, again: bool) -> list[str]:
        return [name, str(work), *(["--resume"] if again else [])]

    old = _old if name == "destroys" else None
    return Command(prepare=lambda root: None, argv=argv, old=old, module="tests.kill.stubs")


if __name__ == "__main__":
    sys.exit(forked(sys.argv[1:]))
