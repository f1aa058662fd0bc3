"""The page of the published systems keeps up with what there is."""

from pathlib import Path
from typing import get_args

import pytest

from avllm.model.configuration import Quirk, System

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
PUBLISHED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "nano")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_system_has_its_place(name: str):
    system = System.from_yaml(name)

    assert f"`{name}`" in PAGE
    assert f"`{system.prompt}`" in PAGE


@pytest.mark.parametrize("name", get_args(Quirk))
def test_every_published_quirk_is_told(name: str):
    assert f"`{name}`" in PAGE


def test_every_link_inside_the_page_leads_somewhere():
    headings = {line.removeprefix("## ").lower() for line in PAGE.splitlines() if line.startswith("## ")}
    anchors = {"".join(c for c in text if c.isalnum() or c in " -").replace(" ", "-") for text in headings}
    wanted = {part.split(")")[0] for part in PAGE.split("(#")[1:]}

    assert wanted <= anchors
