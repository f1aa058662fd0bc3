"""What people have in place of published weights is named by its cause, with what to do, by convert and inspect."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avllm.checkpoints.convert import convert, convert_with_progress
from avllm.checkpoints.inspect import inspect
from avllm.checkpoints.load import find_model, load_model
from avllm.cli import main
from avllm.errors import CheckpointError
from tests.checkpoints.published import base_layout, lora_of, videollama2_layout

FILE = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 14\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A published folder as it should be, in one file, and a LoRA of another one with what it needs."""
    root = tmp_path_factory.mktemp("published")
    videollama2_layout(root)
    lora_of(base_layout(root), root)
    return root


@pytest.fixture
def whole(root, tmp_path) -> Path:
    return shutil.copytree(root / "VideoLLaMA2-7B", tmp_path / "whole")


def _write(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / FILE).write_bytes(content) and None


def _cut(length: Callable[[int], int]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(content[: length(len(content))])

    return change


def _shards(folder: Path, *, index: bool, lose: int | None) -> None:
    weights = load_file(folder / FILE)
    (folder / FILE).unlink()
    where = {}
    for number in range(3):
        part = {name: weights[name] for name in sorted(weights)[number::3]}
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        where |= dict.fromkeys(part, file)
        if number != lose:
            save_file(part, folder / file)
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def _only(*files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / FILE).unlink()
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\x80\x02}q\x00.")

    return change


CAUSES: dict[str, tuple[Callable[[Path], None], str]] = {
    "LFS pointer": (_write(POINTER), "model.safetensors: is a Git LFS pointer.* git lfs pull"),
    "LFS pointer of settings": (lambda f: _put(f / "config.json", POINTER), "config.json: is a Git LFS pointer"),
    "empty": (_write(b""), r"is empty \(0 bytes\).*download it again"),
    "web page": (_write(b"\n<!DOCTYPE html>\n<html><title>Sign in</title>"), "is a web page"),
    "settings are a page": (lambda f: _put(f / "config.json", b"<html></html>"), "config.json: is a web page"),
    "text": (_write(b"Entry not found"), "is text, which begins with 'Entry not found'"),
    "answer in JSON": (_write(b'{"error": "Repository is gated"}'), "is text, which begins with"),
    "zeros": (_write(bytes(4096)), "begins with nothing but zeros"),
    "header cut off": (_cut(lambda size: 300), "cut off within its header.*download it again"),
    "cut off": (_cut(lambda size: size - 100), "damaged or cut off, download it again"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing beside the weights.*--system"),
    "lost shard": (
        lambda f: _shards(f, index=True, lose=1),
        r"model-00002-of-00003.* is missing; .*index.json names",
    ),
    "lost shard, no index": (lambda f: _shards(f, index=False, lose=2), "model-00003-of-00003.* is missing"),
    "ZeRO": (_only("global_step8/zero_pp_rank_0_mp_rank_00_optim_states.pt"), "ZeRO.*/zero_to_fp32.py"),
    "ZeRO, flat": (_only("mp_rank_00_model_states.pt", "latest"), "ZeRO.*/zero_to_fp32.py"),
    "FSDP": (_only("pytorch_model_fsdp_0/__0_0.distcp"), "shares of FSDP.* accelerate merge-weights"),
    "state alone": (_only("trainer_state.json", "optimizer.pt", "rng_state.pth"), "state of a training .*no weights"),
    "unfinished": (_only("model.safetensors.incomplete"), "a download that was not finished"),
    "other format": (_only("model-q4.gguf"), "holds model-q4.gguf, a format that is not read"),
    "nothing": (_only(), "holds no weights .* only config.json"),
}


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_is_named_in_one_line(whole, tmp_path, capsys, cause):
    change, message = CAUSES[cause]
    change(whole)

    assert main(["convert", str(whole), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(["inspect", str(whole)]) == 1
    assert re.search(message, "".join(capsys.readouterr()))


@pytest.mark.parametrize(
    "prefixes", [("module.",), ("_orig_mod.",), ("module.", "_orig_mod."), ("model.",), ("inside",)]
)
def test_a_wrapper_before_all_names_is_taken_off_and_said(root, whole, tmp_path, prefixes):
    weights = load_file(whole / FILE)
    before = "".join(prefixes) if prefixes != ("inside",) else ""
    names = {name: before + name for name in weights}
    if not before:
        names = {name: name.replace(".layers.0.", ".layers.0._orig_mod.") for name in weights}
    save_file({names[name]: weight for name, weight in weights.items()}, whole / FILE)

    told = convert_with_progress([whole], tmp_path / "out")
    convert([root / "VideoLLaMA2-7B"], tmp_path / "plain")

    for prefix in prefixes if before else ("_orig_mod.",):
        assert re.search(f"'{prefix}'.* before the names of its weights .*taken off", told), told
    assert "taken off" in inspect([whole]).to_table()
    ours, plain = (load_file(tmp_path / name / FILE) for name in ("out", "plain"))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in ours)


def test_a_wrapper_before_some_names_is_left_and_refused(whole, tmp_path):
    weights = load_file(whole / FILE)
    save_file({f"module.{n}" if i else n: w for i, (n, w) in enumerate(weights.items())}, whole / FILE)

    with pytest.raises(CheckpointError, match="module"):
        convert([whole], tmp_path / "out")


def test_numbered_shards_need_no_index(root, whole, tmp_path):
    _shards(whole, index=False, lose=None)

    convert([whole], tmp_path / "out")
    convert([root / "VideoLLaMA2-7B"], tmp_path / "plain")

    ours, plain = (load_file(tmp_path / name / FILE) for name in ("out", "plain"))
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def _with_state(root: Path, folder: Path) -> Path:
    """A checkpoint of a LoRA training under DeepSpeed."""
    folder.mkdir(parents=True)
    for name in ("adapter_model.bin", "adapter_config.json"):
        shutil.copy(root / "lora" / name, folder)
    (folder / "global_step10").mkdir()
    for name in ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"):
        torch.save({"optimizer_state_dict": {}}, folder / "global_step10" / name)
    (folder / "latest").write_text("global_step10")
    torch.save([1], folder / "rng_state_0.pth")
    return folder


def test_of_a_checkpoint_under_deepspeed_the_adapter_is_taken(root, tmp_path):
    rest = [root / name for name in ("VideoLLaMA2-7B-Base", "clip")]
    checkpoint = _with_state(root, tmp_path / "run" / "checkpoint-10")

    told = convert_with_progress([checkpoint, *rest], tmp_path / "out", decoder=root / "mistral")
    convert([tmp_path / "run", *rest], tmp_path / "from_above", decoder=root / "mistral")

    assert "global_step10 beside it: the state of a training, left out" in told
    ours, above = (load_file(tmp_path / name / FILE) for name in ("out", "from_above"))
    assert all(torch.equal(ours[name], above[name]) for name in ours)
    _with_state(root, tmp_path / "run" / "checkpoint-20")
    with pytest.raises(
        CheckpointError, match=r"several checkpoints \(checkpoint-10, checkpoint-20\); give one of them"
    ):
        convert([tmp_path / "run", *rest], tmp_path / "no", decoder=root / "mistral")
    # Beside the adapter at the end of a training they are older states.
    shutil.copytree(root / "lora", tmp_path / "run", dirs_exist_ok=True)
    convert([tmp_path / "run", root / "clip"], tmp_path / "end", decoder=root / "mistral")


def test_an_adapter_without_settings_is_named(root, tmp_path):
    checkpoint = _with_state(root, tmp_path / "checkpoint-10")
    (checkpoint / "adapter_config.json").unlink()

    with pytest.raises(CheckpointError, match=r"adapter_config\.json, which holds its scale, is missing"):
        convert([checkpoint, root / "VideoLLaMA2-7B-Base", root / "clip"], tmp_path / "out", decoder=root / "mistral")


def test_models_of_ours_need_no_conversion(tmp_path):
    with pytest.raises(CheckpointError, match="is a model folder of avllm already"):
        convert([find_model("nano")], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"), [(FILE, "safetensors: is a Git LFS"), ("config.json", "json: is a Git LFS")]
)
def test_a_model_folder_cloned_without_lfs_is_named(tmp_path, name, message):
    folder = shutil.copytree(find_model("nano"), tmp_path / "model")
    _put(folder / name, POINTER)

    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
