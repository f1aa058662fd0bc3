"""Copies of reference cases with other values, for the tests of the runner."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity import runner
from tests.parity.test_parity import COPIES, GOLDEN


def case_of(tmp_path: Path, name: str) -> Path:
    """A private copy of a case; the small ones come with the package's tests."""
    source = next((root / name for root in (COPIES, GOLDEN) if (root / name).is_dir()), None)
    if source is None:
        pytest.skip(f"the reference case {name} is not here; AVLLM_GOLDEN names the folder of the recorded cases")
    shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
    for path in (tmp_path / name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / name


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    """Edits the prompts of a case."""
    path = folder / "prompts.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def bad(folder: Path) -> list[str]:
    """What does not hold in a case."""
    return [f"{row.name}: {row.note}" for row in runner.run_case(folder) if not row.ok]


def messages_of(rounds: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Rounds as LLaVA's files have them."""
    return [{"from": who, "value": text} for pair in rounds for who, text in zip(("human", "gpt"), pair, strict=True)]
