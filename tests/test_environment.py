"""What a report of a fault needs is told, also where packages are missing or broken."""

import json
import sys

import av
import pytest
import torch

from avllm import __version__, confinement, environment
from avllm.cli import main
from avllm.environment import CORE, read_environment


@pytest.fixture(autouse=True)
def _few_extras(monkeypatch):
    monkeypatch.setattr(environment, "EXTRAS", {"train": ("peft",)})


def test_tells_releases_devices_and_codecs(capsys):
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["system"]["avllm"] == __version__
    assert found["system"]["decoder processes"] == confinement.describe()
    assert found["packages"]["torch"] == torch.__version__
    assert set(found["packages"]) == set(CORE)
    assert found["codecs"]["FFmpeg"] == av.ffmpeg_version_info
    assert {"h264", "hevc", "vp9", "aac", "opus"} <= set(found["codecs"]["read"])
    assert f"{torch.get_num_threads()} threads" in found["devices"]["CPU"]
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name} " in text for name in CORE)
    assert "problems:" in text


@pytest.mark.parametrize("name", ["av", "torch", "peft"])
def test_a_package_that_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    found = read_environment()
    assert {**found.packages, **found.extras["train"]}[name] == "absent"
    is_needed = any(line.startswith(f"{name} is not installed, and avllm needs it") for line in found.problems)
    assert is_needed == (name in CORE)
    assert found.packages["numpy"][0].isdigit()


def test_a_package_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "peft.py").write_text("import torch.gone_with_a_release")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    found = read_environment()
    assert found.neighbours["torchvision"].endswith("cannot be imported")
    assert any(line.endswith("pip uninstall torchvision") for line in found.problems)
    assert found.extras["train"]["peft"].endswith(", cannot be imported")
    assert any("No module named 'torch.gone_with_a_release'" in line for line in found.problems)
