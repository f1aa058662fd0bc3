"""What is handed to an entry point: a good file, and the damaged copy of it that a seed and a number make."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import Form, mutate


class Said(str):
    """What an entry point without exceptions says of a case, as its class: the status of HTTP."""


@dataclass(frozen=True, kw_only=True)
class Good:
    """A good file, alone or in a folder of others that stay as they are.

    Args:
        name: for people.
        folder: holds it and what goes with it.
        file: which one is damaged, relative to the folder.
        form: what it is.
        more: what its entry points need to know.
    """

    name: str
    folder: Path
    file: str
    form: Form
    more: dict[str, Any] = field(default_factory=dict)

    def data(self) -> bytes:
        """Its bytes."""
        return (self.folder / self.file).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One damaged file as a child process gets it.

    Args:
        kind: whose entry points it goes to.
        name: of the good file.
        folder: a copy of its folder with the damaged file in it; gone afterwards.
        file: the damaged one.
        number: of the case; negative of a good file.
        more: of the good file.
    """

    kind: str
    name: str
    folder: Path
    file: str
    number: int
    more: dict[str, Any]

    @property
    def path(self) -> Path:
        """The damaged file."""
        return self.folder / self.file

    def random(self) -> Random:
        """What an entry point draws for this case."""
        return Random(f"{self.name}/{self.number}")


def damaged(goods: Sequence[Good], seed: int, number: int) -> tuple[Good, bytes]:
    """The file of a number: which good one, and what became of it."""
    rng = Random(f"{seed}/{number}")
    good = rng.choice(goods)
    alike = [other for other in goods if other.form == good.form and other is not good]
    other = rng.choice(alike).data() if alike and rng.random() < 0.3 else b""
    data = good.data()
    changed = mutate(data, rng, good.form, other)
    return good, changed


def laid_out(good: Good, data: bytes | None, folder: Path) -> None:
    """Puts the folder of a good file there, with `data` in its place."""
    for path in sorted(good.folder.rglob("*")):
        target = folder / path.relative_to(good.folder)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if path == good.folder / good.file and data is not None:
                target.write_bytes(data)
            elif path.suffix in (".json", ".jsonl"):  # what an entry point may write to
                shutil.copyfile(path, target)
            else:
                os.link(path, target)


def good_file(folder: Path, name: str, data: bytes, form: Form, **more: Any) -> Good:
    """A good file alone."""
    (folder / name).mkdir(parents=True)
    (folder / name / name).write_bytes(data)
    return Good(name=name, folder=folder / name, file=name, form=form, more=more)
