"""A folder is replaced by a model only if it holds a model of avllm and nothing else; what is there is never lost."""

import json
import shutil
from pathlib import Path

import pytest

from avllm.checkpoints import adapters
from avllm.checkpoints.load import find_model, load_model, merge_adapter
from avllm.checkpoints.replaced import require_replaceable
from avllm.checkpoints.save import save_model
from avllm.cli import main
from avllm.config import PACKAGE
from avllm.durable import UNFINISHED
from avllm.errors import CheckpointError, ConfigError, DiskError
from avllm.nano.build import build, finish
from tests.durable.full_disk import fill, small_disk
from tests.model.tiny import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_model()
    return save_model(model, tiny_processor(model), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapter(saved):
    peft = pytest.importorskip("peft", reason="adapters need avllm[train]")
    model = peft.get_peft_model(load_model(saved)[0], peft.LoraConfig(r=2, target_modules=r"decoder\..*q_proj"))
    return adapters.save_adapter(model, saved.parent / "adapter", base=saved, trained={})


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def below(folder: Path) -> None:
    (folder / "below").mkdir()


def other_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def damaged(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def weights_alone(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()


def linked(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def code(folder: Path) -> None:
    (folder / "train.py").write_text("mine")


HELD = [notes, below, other_model, damaged, weights_alone, linked, code]
WRITERS = {
    "save": lambda saved, out: save_model(*load_model(saved), out),
    "nano build": finish,
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_holds_something_else_is_refused_and_left(saved, folder, writer, held):
    held(folder)
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"holds something else than a model.*would be lost"):
        WRITERS[writer](saved, folder)
    assert content(folder) == before
    assert sorted(path.name for path in folder.parent.iterdir() if path.name != "elsewhere") == ["copy"]


def test_a_model_an_empty_folder_and_what_a_kill_left_are_replaced(saved, folder):
    (folder / f"{UNFINISHED}x").mkdir()
    (folder.parent / "empty").mkdir()
    for out in (folder, folder.parent / "empty", folder.parent / "new"):
        save_model(*load_model(saved), out)
        assert load_model(out)[0].config.model_type == "avllm"
        assert not (out / f"{UNFINISHED}x").exists()


def test_places_that_are_no_place_for_a_model_are_refused(saved, folder, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: folder.parent / "home" / "me")
    (folder.parent / "cwd" / "below").mkdir(parents=True)
    monkeypatch.chdir(folder.parent / "cwd" / "below")
    for out in ("/", ".", "..", "../../home", "../../home/me", PACKAGE, find_model("nano"), PACKAGE.parent):
        with pytest.raises(CheckpointError, match=r"--out .*: is, or holds, (the current|your home|avllm itself)"):
            require_replaceable(Path(out))
    (folder.parent / "link").symlink_to(folder)
    for out in (folder, folder.parent / "link", folder / ".." / "copy"):
        with pytest.raises(CheckpointError, match="is what the model is made of"):
            require_replaceable(out, folder)
    with pytest.raises(CheckpointError, match=r"holds .*, which the model is made of"):
        require_replaceable(folder.parent.parent, folder)
    require_replaceable(folder.parent / "new", folder)


def test_merge_refuses_its_sources_and_other_folders(adapter, saved, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    notes(tmp_path / "notes")
    for out, message in (
        (tmp_path / "notes", "holds something else than a model, which would be lost (notes.txt)"),
        (adapter, "is what the model is made of"),
        (saved, "is what the model is made of"),
        (saved.parent, "which the model is made of"),
    ):
        before = content(out)
        assert main(["merge", str(adapter), "--out", str(out)]) == 1
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
        assert content(out) == before


def test_a_build_of_nano_finds_its_own_or_nothing(folder, tmp_path):
    notes(tmp_path)
    with pytest.raises(ConfigError, match=r"holds something else than a build \(copy\)"):
        build(tmp_path)
    out = tmp_path / "out"
    (out / "nano").mkdir(parents=True)
    notes(out / "nano")
    with pytest.raises(CheckpointError, match=r"holds something else than a model.*notes\.txt"):
        build(out, resume=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        build(tmp_path / "file")
    assert (out / "nano" / "notes.txt").read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["nano"]


@pytest.mark.parametrize("what", ["save", "merge"])
def test_s25_a_full_disk_is_one_line_and_loses_nothing(saved, adapter, tmp_path, capsys, what):
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(saved, disk / "model")
        before = content(disk / "model")
        filler = fill(disk, leave=100_000)
        write = WRITERS["save"] if what == "save" else merge_adapter
        with pytest.raises(DiskError, match=r"model: cannot be written: no space is left on its disk .*free") as told:
            write(saved if what == "save" else adapter, disk / "model")
        assert "\n" not in str(told.value)
        assert content(disk / "model") == before
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "model"]
        filler.unlink()
        save_model(*load_model(saved), disk / "model")


@pytest.mark.parametrize("cut", [10, 2_000, -100])
def test_s25_half_a_download_is_named(folder, cut):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:cut])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*cut off") as told:
        load_model(folder)
    assert "\n" not in str(told.value)


def test_s25_half_an_index_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": "model-0')
    with pytest.raises(CheckpointError, match=r"index\.json: is no JSON"):
        load_model(folder)
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_model(folder)
