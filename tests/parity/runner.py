"""Chooses the adapter of a case by the name of its folder, runs it, and collects the rows.

An adapter is a file in `forms/` named after the form of case; it has `run(path) -> list[Row]` or `run(path, check)`,
and may have `recognises(path) -> bool`, which is asked when no name fits. `<system>_<form>.py` beats `<form>.py` for a
case below a folder `<system>`.
"""

import importlib
import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from avllm.errors import AvllmError
from tests.parity.check import Check
from tests.parity.common import Row

FORMS = Path(__file__).parent / "forms"
NOT_CASES = {"baseline": "timings of the original, no tensors"}


@dataclass(frozen=True)
class Result:
    """The rows of one case."""

    case: str
    rows: list[Row]

    @property
    def ok(self) -> bool:
        """Whether there are rows and all hold."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def to_plain(self) -> list[dict[str, Any]]:
        """The rows as plain data, each with its case."""
        return [{"case": self.case, **asdict(row)} for row in self.rows]


def run(path: Path) -> list[Result]:
    """Runs one case, every case below a folder, or one manifest."""
    path = path.resolve()
    if not path.exists():
        return [Result(path.name, [Row("(case)", None, "", False, f"{path} does not exist")])]
    cases = cases_below(path)
    if not cases:
        return [Result(path.name, [Row("(case)", None, "", False, f"{path} holds no case")])]
    return [Result(case.name, run_case(case)) for case in cases]


def cases_below(path: Path) -> list[Path]:
    """The case itself, or those of a folder of cases, of folders of such folders, and so on."""
    if is_case(path):
        return [path]
    return [case for child in sorted(path.iterdir()) if child.is_dir() for case in cases_below(child)]


def is_case(path: Path) -> bool:
    """A file, or a folder that itself holds JSON or tensors; other folders are folders of cases."""
    if path.is_file():
        return True
    return any(child.suffix in {".json", ".safetensors"} for child in path.iterdir())


def run_case(path: Path) -> list[Row]:
    """The rows of one case; whatever stops it is a row that does not hold."""
    skipped = next((reason for name, reason in NOT_CASES.items() if path.name.startswith(name)), None)
    if skipped is not None:
        return [Row("(case)", None, "", True, f"not covered: {skipped}")]
    try:
        adapter = choose(path)
        if adapter is None:
            known = ", ".join(sorted(forms()))
            return [Row("(case)", None, "", False, f"unknown form of case; known are: {known}")]
        return _rows(adapter, path)
    except AvllmError as error:
        return [Row("(case)", None, "", False, str(error))]
    except Exception as error:  # a broken case must not hide the other cases' rows
        return [Row("(case)", None, "", False, f"{type(error).__name__}: {error}")]


def forms() -> list[str]:
    """Names of the adapters; other files beside them help one."""
    return [path.stem for path in FORMS.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8")]


def choose(path: Path) -> ModuleType | None:
    """The adapter of a case: by the longest name that begins the folder's, else by content, else by a name inside."""
    if path.is_file():
        return _adapter("manifests")
    full = f"{path.parent.name}_{path.name}"
    begins = [form for form in forms() if path.name.startswith(form) or full.startswith(form)]
    if begins:
        return _adapter(max(begins, key=len))
    for form in sorted(forms()):
        adapter = _adapter(form)
        if getattr(adapter, "recognises", lambda path: False)(path):
            return adapter
    inside = [form for form in forms() if form in path.name]
    return _adapter(max(inside, key=len)) if inside else None


def _rows(adapter: ModuleType, path: Path) -> list[Row]:
    if len(inspect.signature(adapter.run).parameters) == 1:
        return adapter.run(path)
    check = Check()
    adapter.run(path, check)
    return check.rows


def _adapter(form: str) -> ModuleType:
    return importlib.import_module(f"tests.parity.forms.{form}")
