"""What `avllm inspect` tells of a model folder that training or `save_pretrained` wrote."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from avllm.checkpoints.inspect import inspect
from avllm.checkpoints.load import find_model


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(find_model("nano"), tmp_path / "model")


def test_a_whole_folder_is_well(folder):
    report = inspect([folder])
    assert report.ok
    assert report.parts[0].fills == report.parts[0].keys == 374


@pytest.mark.parametrize("fault", ["missing", "left over", "wrong shape"])
def test_what_does_not_fit_its_configuration_is_named(folder, fault):
    state = load_file(folder / "model.safetensors")
    key = "branches.video.connector.projection.weight"
    if fault == "missing":
        del state[key]
    elif fault == "left over":
        key = key.replace("projection", "projector")
        state[key] = state[key.replace("projector", "projection")].clone()
    else:
        state[key] = state[key].T.contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    report = inspect([folder])
    assert not report.ok
    assert any(fault in problem and key in problem for problem in report.problems)
