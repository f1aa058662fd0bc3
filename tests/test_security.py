"""The page of promises and the tests that hold them name the same rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISED = set(re.findall(r"^\| (S\d\d) \|", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), re.M))


def test_every_promise_has_a_test_and_every_such_test_a_promise():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    tested = {f"S{number}" for text in texts for number in re.findall(r"^def test_s(\d\d)_", text, re.M)}

    assert len(PROMISED) == 24
    assert tested == PROMISED
