"""The worked example of docs/adding_a_part.md runs as it stands, and what it promises about the YAML holds."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from avllm.config import parse
from avllm.connectors import CONNECTORS
from avllm.errors import ConfigError
from avllm.model import System

PAGE = Path(__file__).parents[1] / "docs" / "adding_a_part.md"


@pytest.fixture
def names():
    """What the page's Python leaves behind; the table of connectors is put back."""
    before, found = dict(CONNECTORS), {"__name__": "docs.adding_a_part"}
    for text in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE):
        exec(compile(text, str(PAGE), "exec"), found)
    yield found
    CONNECTORS.clear()
    CONNECTORS.update(before)


def test_the_page_runs_and_its_system_survives_a_save(names, tmp_path):
    model, config = names["model"], names["config"]
    model.save_pretrained(tmp_path / "saved")

    again = type(model).from_pretrained(tmp_path / "saved")

    assert again.config.parsed() == config.parsed()
    key = "branches.video.connector.projection.weight"
    assert torch.equal(again.state_dict()[key], model.state_dict()[key])


def test_the_part_means_over_cells(names):
    part = names["GridMean"].Config(side=1).build(in_width=3, out_width=3)
    part.projection.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    tokens = torch.randn(2, 4, 9, 3)

    torch.testing.assert_close(part(tokens), tokens.mean(2))
    with pytest.raises(ValueError, match=r"9 patches are no square of a multiple of 2; change connector\.side"):
        names["GridMean"].Config(side=2).build(in_width=3, out_width=3)(tokens)


def test_a_wrong_key_is_named(names):
    plain = yaml.safe_load(names["SYSTEM"])
    plain["branches"]["video"]["connector"] = {"kind": "grid_mean", "sides": 3}

    with pytest.raises(ConfigError, match=r"branches\.video\.connector\.sides: unknown key; did you mean 'side'"):
        parse(System, plain)
