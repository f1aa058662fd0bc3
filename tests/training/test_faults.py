"""Nothing odd in the data ends a stage, and a full disk loses nothing of it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from avllm.data.mixture import Draw, Mixture, Unreadable
from avllm.data.records import Medium, Record, Turn
from avllm.errors import ConfigError, DataError, DiskError, MediaError, NoAudioStream
from avllm.training import train
from tests.durable.full_disk import fill, small_disk
from tests.training.tiny_system import DATASETS, TinyFeatures, make_stage

SHORT = {"schedule": {"steps_per_epoch": 5, "lr": 1e-2}, "checkpoints": {"every": 2}}


class PanicException(BaseException):
    """As pyo3_runtime.PanicException, which is no Exception."""


def _failing(monkeypatch, faults):
    original = TinyFeatures.record

    def record(self, index, seed):
        if index in faults:
            raise faults[index]
        return original(self, index, seed)

    monkeypatch.setattr(TinyFeatures, "record", record)


def test_s22_of_a_tenth_of_broken_media_exactly_those_are_listed(tmp_path, monkeypatch):
    faults = {2: MediaError("clip.mp4: cut short"), 11: KeyError("rotation")}
    _failing(monkeypatch, faults)
    out = train(make_stage(tmp_path, max_unreadable=0.1, **SHORT), datasets=DATASETS)
    listed = {item["id"]: item["reason"] for item in json.loads((out / "training.json").read_text())["unreadable"]}
    assert listed.keys() == {"dataset 0, record 2", "dataset 0, record 11"}
    assert listed["dataset 0, record 2"] == "clip.mp4: cut short"
    assert listed["dataset 0, record 11"].startswith("KeyError: 'rotation' (avllm ")  # ours: not told as the file's


def _odd(error):
    def prepare(record, seed):
        raise error

    return prepare


class _OneRecord:
    def __len__(self):
        return 1

    def record(self, index, seed):
        medium = Medium(kind="video", source="a\0.mp4")
        return Record(id="a[0]", turns=(Turn(role="user", text="", media=(medium,)), Turn(role="assistant", text="b")))


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), MemoryError(), PanicException("range end"), NoAudioStream("mute"), RecursionError()]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_a_sample_meets_it_is_left_out_and_told(error, workers):
    mixture = Mixture([_OneRecord()], _odd(error))
    loader = DataLoader(mixture, batch_sampler=[[Draw(0, 0, 0)]], collate_fn=list, num_workers=workers)
    ((found,),) = list(loader)
    assert isinstance(found, Unreadable)
    assert found.id == "a[0]"
    assert found.reason.startswith("mute" if isinstance(error, NoAudioStream) else type(error).__name__)


@pytest.mark.parametrize("error", [DataError("a[0]: wrong"), ConfigError("wrong"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_wrong_with_the_annotation_and_orders_to_stop_stop(error):
    mixture = Mixture([_OneRecord()], _odd(error))
    with pytest.raises(type(error)):
        mixture[Draw(0, 0, 0)]


def test_s25_a_full_disk_loses_no_checkpoint_and_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    stage = make_stage(tmp_path, **SHORT)
    whole = train(stage, datasets=DATASETS)
    size = sum(path.stat().st_size for path in (whole / "checkpoints").rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", kib=8 * size // 1024) as disk:
        out, filler = disk / "out", fill(disk, leave=int(0.85 * size))
        with pytest.raises(DiskError, match=r"/disk/out/\S+: cannot be written: no space is left on its disk"):
            train(stage, [f"output={out}"], datasets=DATASETS)
        left = [path.name for path in out.rglob("*")]
        assert any(name.startswith("step-") for name in left)
        assert not [name for name in left if name.startswith(".")]
        filler.unlink()
        train(stage, [f"output={out}"], resume=True, datasets=DATASETS)
        one, other = (load_file(folder / "trainable.safetensors") for folder in (whole, out))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_output_that_can_be_no_folder_is_one_line(tmp_path):
    stage = make_stage(tmp_path)
    (tmp_path / "file").touch()
    for output in (f"{tmp_path}/file", f"{tmp_path}/file/below", f"{tmp_path}/{'n' * 300}"):
        with pytest.raises(DiskError, match=r"expected a folder|name is too long"):
            train(stage, [f"output={output}"], datasets=DATASETS)


def test_what_a_kill_left_half_written_goes_on_the_next_start(tmp_path):
    stage = make_stage(tmp_path, **SHORT)
    for left in ("out/.unfinished-export/a", "out/checkpoints/.unfinished-step-00000002/a", "out/.unfinished-log.csv"):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("half")
    out = train(stage, datasets=DATASETS)
    assert not list(out.rglob(".*"))
