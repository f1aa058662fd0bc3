"""Weights are those that were written, or the folder is refused on load and the tensor named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avllm.checkpoints import adapters, manifest
from avllm.checkpoints.inspect import inspect
from avllm.checkpoints.load import load_model
from avllm.checkpoints.save import save_model
from avllm.errors import CheckpointError
from avllm.model import AvllmForConditionalGeneration
from tests.model.tiny import tiny_model, tiny_processor

SQUARE = "decoder.model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def rewrite(path: Path, state: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"})


def drop(state: dict[str, Tensor]) -> str:
    del state[SQUARE]
    return SQUARE


def rename(state: dict[str, Tensor]) -> str:
    state["stray.weight"] = state.pop(SQUARE)
    return f"{SQUARE}.*stray.weight|stray.weight.*{SQUARE}"


def reshape(state: dict[str, Tensor]) -> str:
    state[SQUARE] = state[SQUARE].reshape(2, -1)
    return SQUARE


def extra(state: dict[str, Tensor]) -> str:
    state["stray.weight"] = torch.ones(3)
    return "stray.weight"


def integers(state: dict[str, Tensor]) -> str:
    state[SQUARE] = state[SQUARE].int()
    return SQUARE


def not_finite(state: dict[str, Tensor]) -> str:
    state[SQUARE][3, 4] = torch.nan
    return f"{SQUARE} (holds values that are not finite|in model.safetensors has other bytes)"


def transpose(state: dict[str, Tensor]) -> str:
    state[SQUARE] = state[SQUARE].T
    return f"{SQUARE} in model.safetensors has other bytes"


def halve(state: dict[str, Tensor]) -> str:
    state[SQUARE] = state[SQUARE].half()
    return f"{SQUARE} in model.safetensors has other bytes"


def flip(state: dict[str, Tensor]) -> str:
    state[SQUARE].view(torch.int32)[1, 2] ^= 1
    return f"{SQUARE} in model.safetensors has other bytes"


def swap(state: dict[str, Tensor]) -> str:
    other = SQUARE.replace("q_proj", "k_proj")
    state[SQUARE], state[other] = state[other], state[SQUARE]
    return f"{other} in model.safetensors has other bytes"


ALWAYS = [drop, rename, reshape, extra, integers, not_finite]
BY_CHECKSUM = [transpose, halve, flip, swap]


@pytest.mark.parametrize("fault", [*ALWAYS, *BY_CHECKSUM])
def test_s23_a_changed_tensor_is_refused_by_name(folder, fault):
    state = load_file(folder / "model.safetensors")
    message = fault(state)
    rewrite(folder / "model.safetensors", state)
    with pytest.raises(CheckpointError, match=message) as told:
        load_model(folder)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("fault", ALWAYS)
def test_s23_a_folder_without_checksums_is_checked_for_what_can_be_told(folder, fault):
    (folder / manifest.MANIFEST).unlink()
    state = load_file(folder / "model.safetensors")
    message = fault(state)
    rewrite(folder / "model.safetensors", state)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize("fault", [drop, reshape, extra])
def test_s23_the_auto_classes_refuse_it_before_they_take_memory(folder, monkeypatch, fault):
    state = load_file(folder / "model.safetensors")
    message = fault(state)
    rewrite(folder / "model.safetensors", state)
    monkeypatch.setattr(AvllmForConditionalGeneration, "_load_pretrained_model", None)  # what takes it
    with pytest.raises(CheckpointError, match=message):
        AvllmForConditionalGeneration.from_pretrained(folder)


def test_s23_every_bit_of_the_weights_counts(saved, tmp_path):
    data = (saved / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for number in range(8):
        folder = Path(shutil.copytree(saved, tmp_path / str(number)))
        damaged, at = bytearray(data), begin + (len(data) - begin - 1) * number // 7
        damaged[at] ^= 1 << number
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="has other bytes than were written; its copy or its disk is"):
            load_model(folder)
        assert any("has other bytes" in problem for problem in inspect([folder]).problems)


def test_a_change_of_ones_own_is_accepted_once_the_checksums_are_gone(folder):
    state = load_file(folder / "model.safetensors")
    transpose(state)
    rewrite(folder / "model.safetensors", state)
    (folder / manifest.MANIFEST).unlink()
    assert torch.equal(load_model(folder)[0].state_dict()[SQUARE], state[SQUARE])
    assert inspect([folder]).ok


def test_a_saved_folder_is_well_and_a_damaged_manifest_is_named(folder):
    assert inspect([folder]).ok
    for text, message in (
        ("{", "is no JSON"),
        ('{"tensors": []}', "lists no tensors"),
        ('{"tensors": {}}', "lists no"),
    ):
        (folder / manifest.MANIFEST).write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_model(folder)


def test_s23_a_changed_adapter_is_refused_by_name(saved, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need avllm[train]")
    model = peft.get_peft_model(load_model(saved)[0], peft.LoraConfig(r=2, target_modules=r"decoder\..*q_proj"))
    trained = {"decoder.model.norm.weight": model.state_dict()["base_model.model.decoder.model.norm.weight"]}
    folder = adapters.save_adapter(model, tmp_path / "adapter", base=saved, trained=trained)
    load_model(folder)
    for file in (adapters.WEIGHTS, adapters.TRAINED):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=rf"in {file} has other bytes than were written"):
            load_model(folder)
        (folder / file).write_bytes(whole)


def test_a_large_folder_is_read_once_and_again_when_it_changed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ALWAYS_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read = []
    sums = manifest._sums
    monkeypatch.setattr(manifest, "_sums", lambda files: read.append(1) or sums(files))
    for _ in range(2):
        assert manifest.require_as_written(folder)
    assert len(read) == 1
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="other bytes"):
        manifest.require_as_written(folder)
    assert len(read) == 2
    (folder / "model.safetensors").write_bytes(data)
    (tmp_path / "cache" / "avllm" / "checked").chmod(0o500)
    next((tmp_path / "cache" / "avllm" / "checked").iterdir()).write_text("[1")
    assert manifest.require_as_written(folder)


def test_s25_a_cache_that_cannot_be_written_is_no_fault(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ALWAYS_BYTES", 0)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert manifest.require_as_written(folder)
    assert json.loads((folder / manifest.MANIFEST).read_text())["tensors"]


def test_saving_changed_weights_over_their_folder_in_the_way_of_transformers_leaves_a_folder_that_loads(folder):
    model = load_model(folder)[0]
    with torch.no_grad():
        model.decoder.get_parameter("model.norm.weight").add_(1.0)
    model.save_pretrained(folder)

    assert torch.equal(
        load_model(folder)[0].decoder.get_parameter("model.norm.weight"),
        model.decoder.get_parameter("model.norm.weight"),
    )
