"""Model folders open whole or are refused with what is missing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from avllm.chat import load
from avllm.checkpoints.load import find_model, load_config, load_model
from avllm.checkpoints.save import save_model
from avllm.errors import CheckpointError
from tests.model.tiny import tiny_model, tiny_processor

BIAS = "branches.audio.connector.projection.bias"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path_factory.mktemp("models") / "tiny", dtype=torch.float16)


@pytest.fixture
def folder(saved, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def rewrite(folder, change):
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})


def test_half_precision_storage_runs_in_full_precision_on_a_cpu(saved):
    model, processor = load_model(saved, device="cpu")
    stored = load_file(saved / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()[BIAS], stored[BIAS].float())
    assert not model.training
    assert (saved / "model.safetensors").stat().st_mode == (saved / "config.json").stat().st_mode
    assert processor.slot_ids == model.config.slot_ids() == load_config(saved).slot_ids()


def test_a_loaded_folder_answers(saved):
    session = load(saved, device="cpu").chat()
    session.ask("hello", max_new_tokens=3)
    assert session.last.model == str(saved)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        CheckpointError,
        match=r"model nano2: no such folder or name; expected a model folder, a hub id \(OWNER/NAME\) or: nano",
    ):
        find_model("nano2")


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} is missing"):
        load_model(folder)


def test_a_missing_or_surplus_weight_is_named(folder):
    rewrite(folder, lambda state: {("stray" if name == BIAS else name): value for name, value in state.items()})
    with pytest.raises(CheckpointError, match=rf"missing: {BIAS}; left over: stray"):
        load_model(folder)


def test_a_weight_of_another_shape_is_named(folder):
    rewrite(folder, lambda state: {**state, BIAS: state[BIAS][:-1].clone()})
    with pytest.raises(CheckpointError, match=BIAS):
        load_model(folder)


def test_damaged_files_are_checkpoint_errors(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="copy"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(weights)
    system = json.loads((folder / "config.json").read_text())
    system["system"]["branches"]["video"]["encoder"]["kind"] = "eva"
    (folder / "config.json").write_text(json.dumps(system))
    with pytest.raises(CheckpointError, match=r"branches.video.encoder.kind: 'eva' is unknown"):
        load_model(folder)


def test_saving_again_replaces_the_folder(saved, tmp_path):
    model, processor = load_model(saved, device="cpu")
    target = tmp_path / "again"
    target.mkdir()
    save_model(model, processor, target)
    (target / "model-00001-of-00001.safetensors").write_text("of an older save")
    save_model(model, processor, target)
    assert not (target / "model-00001-of-00001.safetensors").exists()
    again, _ = load_model(target, device="cpu")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
