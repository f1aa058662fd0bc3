import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avllm.checkpoints.reading import open_file
from avllm.checkpoints.sources import open_sources
from avllm.errors import CheckpointError

WEIGHTS = {
    "plain": torch.arange(15.0).reshape(3, 5),
    "slice": torch.arange(10)[2:7],
    "turned": torch.arange(24.0).reshape(4, 6).t(),
    "number": torch.tensor(2.0),
    "empty": torch.empty(0, 3),
    "half": torch.ones(7, dtype=torch.bfloat16),
}


class Evil:
    """Creates the file `canary` when it is unpickled by a careless reader."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", [None, "model", "state_dict"])
def test_reads_each_tensor_of_a_pickled_file(container: str | None, options: dict, tmp_path: Path):
    beside = {"optimizer": {"state": {0: torch.ones(2)}}, "epoch": 1}
    data = WEIGHTS if container is None else {container: WEIGHTS, **beside}
    torch.save(data, tmp_path / "a.pth", **options)

    found = open_file(tmp_path / "a.pth")

    assert found.tensors.keys() == WEIGHTS.keys()
    for name, tensor in found.tensors.items():
        assert (tensor.shape, tensor.dtype) == (WEIGHTS[name].shape, WEIGHTS[name].dtype)
        assert torch.equal(tensor.read(), WEIGHTS[name])
    assert found.left_out.keys() == (beside.keys() if container else set())


def test_reads_each_tensor_of_a_safetensors_file(tmp_path: Path):
    save_file({name: tensor.contiguous() for name, tensor in WEIGHTS.items()}, tmp_path / "a.safetensors")

    found = open_file(tmp_path / "a.safetensors")

    assert all(torch.equal(tensor.read(), WEIGHTS[name]) for name, tensor in found.tensors.items())


def test_the_settings_inside_a_file_are_kept(tmp_path: Path):
    torch.save({"cfg": {"encoder_layers": 3}, "model": WEIGHTS}, tmp_path / "a.pt")

    assert open_file(tmp_path / "a.pt").config == {"encoder_layers": 3}


def zip_of(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def safetensors_of(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}).encode()


def evil_zip(path: Path, canary: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "config": Evil(canary)}, path)


def evil_legacy(path: Path, canary: Path) -> None:
    torch.save({"w": Evil(canary)}, path, _use_new_zipfile_serialization=False)


def evil_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(canary), protocol=2))


def evil_text_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(canary), protocol=0))


def code_archive(path: Path, canary: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


def bomb(path: Path, canary: Path) -> None:
    zip_of(path, {"a/data.pkl": b"\0" * 50_000_000, "a/version": b"3"}, zipfile.ZIP_DEFLATED)


def overlapping(path: Path, canary: Path) -> None:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"a"))  # an entry of the directory: its size is a lie
    data[at + 20 : at + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(data)


def cut_zip(path: Path, canary: Path) -> None:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    path.write_bytes(buffer.getvalue()[:-700])


def other_zip(path: Path, canary: Path) -> None:
    zip_of(path, {"readme.txt": b"hello"})


FORGED: dict[str, Callable[[Path, Path], object]] = {
    "pickle in a zip": evil_zip,
    "pickle of an old torch": evil_legacy,
    "bare pickle": evil_pickle,
    "bare pickle as text": evil_text_pickle,
    "TorchScript": code_archive,
    "zip bomb": bomb,
    "zip with lying sizes": overlapping,
    "zip cut off": cut_zip,
    "another zip": other_zip,
    "whole module": lambda path, canary: torch.save(torch.nn.Linear(2, 2), path),
    "a list": lambda path, canary: torch.save([torch.ones(2)], path),
    "a text among tensors": lambda path, canary: torch.save({"w": torch.ones(2), "x": "y"}, path),
    "sparse": lambda path, canary: torch.save({"w": torch.ones(2, 2).to_sparse()}, path),
    "header of 2^62 bytes": lambda path, canary: path.write_bytes(safetensors_of(b"{}", length=1 << 62)),
    "header longer than the file": lambda path, canary: path.write_bytes(safetensors_of(b"{}", length=100)),
    "header no JSON": lambda path, canary: path.write_bytes(safetensors_of(b"{not json}")),
    "header nested": lambda path, canary: path.write_bytes(safetensors_of(b'{"a":' * 5000 + b"1" + b"}" * 5000)),
    "header a list": lambda path, canary: path.write_bytes(safetensors_of(b'{"w": [1]}')),
    "tensors that overlap": lambda path, canary: path.write_bytes(
        safetensors_of(entry([8], 0, 8, "U8")[:-1] + b"," + entry([8], 4, 12, "U8")[1:].replace(b"w", b"v"), b"\0" * 12)
    ),
    "offsets that are texts": lambda path, canary: path.write_bytes(
        safetensors_of(entry([2], 0, 8).replace(b"[0, 8]", b'["0", "8"]'), b"\0" * 8)
    ),
    "offsets that go back": lambda path, canary: path.write_bytes(safetensors_of(entry([2], 8, 0), b"\0" * 8)),
    "tensor of 2^40 values": lambda path, canary: path.write_bytes(safetensors_of(entry([1 << 40], 0, 8), b"\0" * 8)),
    "tensor behind the end": lambda path, canary: path.write_bytes(safetensors_of(entry([2], 0, 8), b"\0" * 4)),
    "negative shape": lambda path, canary: path.write_bytes(safetensors_of(entry([-2, -1], 0, 8), b"\0" * 8)),
    "hole between tensors": lambda path, canary: path.write_bytes(safetensors_of(entry([2], 4, 12), b"\0" * 12)),
    "unknown type": lambda path, canary: path.write_bytes(safetensors_of(entry([2], 0, 8, "F99"), b"\0" * 8)),
    "type that is a list": lambda path, canary: path.write_bytes(
        safetensors_of(entry([2], 0, 8).replace(b'"F32"', b'["F32"]'), b"\0" * 8)
    ),
    "notes that are no texts": lambda path, canary: path.write_bytes(
        safetensors_of(b'{"__metadata__":{"format":128},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0")
    ),
    "bytes left": lambda path, canary: path.write_bytes(safetensors_of(entry([2], 0, 8), b"\0" * 9)),
    "a name twice": lambda path, canary: path.write_bytes(
        safetensors_of(b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{}}', b"\0")
    ),
    "empty": lambda path, canary: path.write_bytes(b""),
    "text": lambda path, canary: path.write_text("version https://git-lfs.github.com/spec/v1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_s11_a_forged_file_is_refused_and_nothing_in_it_runs(name: str, tmp_path: Path):
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    FORGED[name](path, canary)

    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        open_file(path)

    assert not canary.exists()


def shards(folder: Path, where: dict[str, str], files: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, tensors in files.items():
        save_file(tensors, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text("{}")


def test_s11_an_index_of_published_weights_may_not_leave_its_folder(tmp_path: Path):
    shards(tmp_path, {"w": "../outside.safetensors"}, {})

    with pytest.raises(CheckpointError, match="no file of this folder"):
        open_sources(tmp_path)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"w": "a.safetensors", "v": "b.safetensors"}, "b.safetensors is missing"),
        ({"w": "a.safetensors", "v": "b" * 300}, "b is missing; model.safetensors.index.json names it"),
        ({"w": "a.safetensors", "v": "a.safetensors"}, "v is in no shard"),
    ],
)
def test_a_shard_or_a_weight_that_the_index_names_must_be_there(where: dict[str, str], message: str, tmp_path: Path):
    shards(tmp_path, where, {"a.safetensors": {"w": torch.ones(2)}})

    with pytest.raises(CheckpointError, match=message):
        open_sources(tmp_path)
