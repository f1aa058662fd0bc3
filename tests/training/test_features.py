import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from avllm.cli import main
from avllm.data import DATASETS
from avllm.data.feature_shards import SHARDS, ShardIndex
from avllm.durable import in_use
from avllm.errors import ConfigError, DataError, DiskError, InUse, MediaError
from avllm.model import AvllmForConditionalGeneration
from avllm.training import train
from avllm.training.feature_engines import extract
from avllm.training.features import frozen_end
from avllm.training.progress import read_log
from avllm.training.stage import read_stage
from avllm.training.start import open_branches
from tests.durable.full_disk import fill, small_disk
from tests.training.many_clips import PARTS, wait_for_shards, write_stage
from tests.training.media_system import save_media_system, write_layouts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def layouts(root):
    return write_layouts(root)


@pytest.fixture(scope="module")
def base(root):
    return save_media_system(root / "base")


@pytest.fixture
def stage(tmp_path, base, layouts):
    """Writes a stage that trains one branch on all layouts."""

    def write(branch="video", **changes):
        plain = {
            "init": str(base),
            "output": str(tmp_path / "media"),
            "trainable": [f"branches.{branch}.connector.{part}" for part in PARTS],
            "data": list(layouts.values()),
            "modality": {"audio": "vision"} if branch == "audio" else {},
            "mix": "sample",
            "batch": 2,
            "schedule": {"steps_per_epoch": 3, "lr": 1e-3},
            "logging": {"every": 1, "tensorboard": False},
            **changes,
        }
        path = tmp_path / "stage.yaml"
        path.write_text(yaml.safe_dump(plain))
        return path

    return write


def _losses(folder):
    return [row["loss"] for row in read_log(folder / "log.csv")]


@pytest.mark.parametrize("branch", ["video", "audio"])
def test_training_on_features_equals_training_on_media(tmp_path, stage, branch):
    path = stage(branch)
    media = _losses(train(path))
    trained = load_file(tmp_path / "media/trainable.safetensors")

    for dtype in ("fp16", "fp32"):
        store = tmp_path / dtype
        summary = extract(path, out=store, dtype=dtype, batch=2, shard_size=3)
        assert (summary.wanted, summary.stored, summary.num_shards) == (6, 6, 2)
        out = train(path, [f"features={store}", f"output={tmp_path}/{dtype}-out"])
        if dtype == "fp32":
            assert _losses(out) == media
            if branch == "video":  # a product of few rows may differ in its last bit, which AdamW makes a step of
                weights = load_file(out / "trainable.safetensors")
                assert all(torch.equal(value, trained[name]) for name, value in weights.items())
        else:
            assert _losses(out) == pytest.approx(media, abs=1e-3)


def test_training_reads_no_media_and_runs_no_encoder(tmp_path, stage, layouts, monkeypatch):
    path = stage()
    extract(path, out=tmp_path / "store")

    def refuse(*args, **options):
        raise AssertionError("the encoder ran, or a medium was opened")

    monkeypatch.setattr("avllm.model.processing.AvllmProcessor.read", refuse)
    monkeypatch.setattr("avllm.encoders.eva_clip.EvaClip.forward", refuse)

    assert len(_losses(train(path, [f"features={tmp_path}/store"]))) == 3


def test_a_trained_frame_qformer_is_left_out_of_the_features(tmp_path, stage):
    path = stage(trainable=["branches.video.connector"])
    media = _losses(train(path))

    extract(path, out=tmp_path / "store", dtype="fp32", batch=2)

    assert json.loads((tmp_path / "store/features.json").read_text())["branches"]["video"]["end"] == "encoder"
    assert _losses(train(path, [f"features={tmp_path}/store", f"output={tmp_path}/out"])) == media


def test_stale_features_are_refused_before_the_first_step(tmp_path, stage, base):
    path = stage()
    store = tmp_path / "store"
    extract(path, out=store)
    model = AvllmForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        next(model.branches["video"].encoder.parameters()).add_(0.1)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    model.save_pretrained(other)

    with pytest.raises(ConfigError, match="stale: weights of branch video"):
        train(path, [f"init={other}", f"features={store}"])
    with pytest.raises(ConfigError, match="branch video, of which this stage has none"):
        train(path, ["trainable=[branches.video]", f"features={store}"])
    with pytest.raises(ConfigError, match="stale: weights"):
        extract(path, [f"init={other}"], out=store)
    with pytest.raises(ConfigError, match="has no media that a frozen encoder sees"):
        extract(path, ["trainable=[branches.video]"], out=tmp_path / "none")


def test_what_is_drawn_at_random_cannot_be_stored(tmp_path, stage, layouts):
    path = stage(data=[{**layouts["webvid"], "sampling": "head_tail", "crop": [0.5, 1.0]}])
    with pytest.raises(ConfigError, match=r"data\.0: crop \[0\.5, 1\.0\] cuts at random.*set crop=null"):
        extract(path, out=tmp_path / "store")
    with pytest.raises(ConfigError, match=r"data\.0: sampling head_tail draws other frames.*set sampling=uniform"):
        extract(path, ["data.0.crop=null"], out=tmp_path / "store")
    assert extract(path, ["data.0.crop=null", "data.0.sampling=uniform"], out=tmp_path / "store").stored == 2


def test_unreadable_media_are_listed_and_too_many_stop(tmp_path, stage, layouts, capsys):
    (tmp_path / "some.csv").write_text("videoid,page_dir,name\n1,p,A dog.\ngone,p,The sea.\nlost,p,The sea.\n")
    path = stage(data=[{**layouts["webvid"], "annotations": str(tmp_path / "some.csv")}])
    with pytest.raises(DataError, match=r"2 of 3 media could not be read, max_unreadable allows 1.0%.*lost\.mp4"):
        extract(path, out=tmp_path / "store")

    assert main(["features", str(path), "--out", str(tmp_path / "store"), "max_unreadable=0.02"]) == 0
    out = train(path, ["max_unreadable=0.5", f"features={tmp_path}/store"])

    printed = capsys.readouterr()
    assert "1 were there" in printed.out
    assert printed.err.count("unreadable:") == 2
    assert read_log(out / "log.csv")[-1]["unreadable"] == 4  # two of three, in two passes


def test_ranks_of_torchrun_share_the_shards(tmp_path, stage, monkeypatch):
    path, out = stage(), tmp_path / "store"
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        shares.append(extract(path, out=out, shard_size=2))

    assert sorted(share.stored for share in shares) == [2, 4]
    entries = ShardIndex(out).entries()
    assert len({entry.key for entry in entries}) == len(entries) == 6


def test_branches_open_alone_as_in_the_whole_model(base, stage):
    settings, _ = read_stage(stage("audio"), datasets=DATASETS)
    branches, processor = open_branches(settings)
    model = AvllmForConditionalGeneration.from_pretrained(base)

    for name, branch in branches.items():
        whole = model.branches[name].state_dict()
        assert all(torch.equal(value, whole[key]) for key, value in branch.state_dict().items())
        assert not any(tensor.is_meta for tensor in [*branch.parameters(), *branch.buffers()])
    assert branches["audio"].modality == "vision"
    assert (
        frozen_end("audio", branches["audio"], ["branches.audio.encoder.audio"]) == "prefix"
    )  # pictures do not meet it
    assert frozen_end("audio", branches["audio"], ["branches.audio.encoder.vision.blocks"]) is None


def _features(path, out, *args):
    command = [sys.executable, "-m", "avllm", "features", str(path), "--out", str(out), "--dtype", "fp32", *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kills_lose_no_finished_shard(tmp_path):
    """kill -9 of the command, then of one of two workers of the next one; each medium is stored once."""
    total = 80
    path = write_stage(tmp_path, total)
    out = tmp_path / "store"

    first = _features(path, out, "--shard-size", "2")
    before = {file: file.stat().st_mtime_ns for file in wait_for_shards(out, 3)}
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.communicate()
    left = len(list((out / SHARDS).glob("*.safetensors")))
    assert left < total // 2

    second = _features(path, out, "--shard-size", "2", "--workers", "2")
    wait_for_shards(out, left + 4)
    workers = [child for child in psutil.Process(second.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    _, errors = second.communicate(timeout=240)

    assert second.returncode == 0, errors
    assert "ended with code -9; started again" in errors
    entries = ShardIndex(out).entries()
    assert len(entries) == len({entry.key for entry in entries}) == total
    assert all(file.stat().st_mtime_ns == changed for file, changed in before.items())


def test_s22_of_a_tenth_of_broken_media_exactly_those_are_listed(tmp_path, stage, layouts, capsys, monkeypatch):
    from avllm.model import AvllmProcessor

    good, broken = AvllmProcessor.read, {"clip3.mp4": KeyError("rotation"), "clip7.mp4": MediaError("cut short")}
    names = [f"clip{number}" for number in range(20)]
    videos = tmp_path / "p"
    videos.mkdir()
    source = next(path for path in Path(layouts["webvid"]["videos"]).rglob("*.mp4"))
    for name in names:
        (videos / f"{name}.mp4").write_bytes(source.read_bytes() + name.encode())
    (tmp_path / "some.csv").write_text("videoid,page_dir,name\n" + "".join(f"{name},p,A dog.\n" for name in names))

    def read(self, opened, kind, **options):
        error = broken.get(Path(opened).name)
        if error is not None:
            raise error
        return good(self, opened, kind, **options)

    monkeypatch.setattr(AvllmProcessor, "read", read)
    path = stage(data=[{**layouts["webvid"], "annotations": str(tmp_path / "some.csv"), "videos": str(tmp_path)}])
    summary = extract(path, ["max_unreadable=0.1"], out=tmp_path / "store", decoders=2)

    assert summary.stored == 18
    listed = {Path(entry.source).name: entry.reason for entry in summary.unreadable}
    assert listed.keys() == broken.keys()
    assert listed["clip7.mp4"] == "cut short"
    assert listed["clip3.mp4"].startswith("KeyError: 'rotation' (avllm ")


def test_s25_a_full_disk_leaves_whole_shards_and_features_go_on(tmp_path, stage, layouts):
    with small_disk(tmp_path / "disk", kib=256) as disk:
        filler = fill(disk, leave=16 * 1024)
        with pytest.raises(DiskError, match=r"/disk/store/\S+: cannot be written: no space is left on its disk"):
            extract(stage(), ["max_unreadable=0.5"], out=disk / "store", shard_size=1, dtype="fp32")
        left = list((disk / "store").rglob("*"))
        assert not [path for path in left if path.name.startswith(".")]
        filler.unlink()
        summary = extract(stage(), ["max_unreadable=0.5"], out=disk / "store", shard_size=1, dtype="fp32")
        assert summary.present == sum(path.suffix == ".safetensors" for path in left)
        whole = extract(stage(), ["max_unreadable=0.5"], out=tmp_path / "store", shard_size=1, dtype="fp32")
        assert (summary.wanted, summary.present + summary.stored) == (whole.wanted, whole.stored)


def test_two_on_one_store_and_what_a_kill_left(tmp_path, stage):
    left = tmp_path / "store" / "shards" / ".unfinished-x"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with in_use(tmp_path / "store"), ThreadPoolExecutor() as other:
        failed = other.submit(extract, stage(), out=tmp_path / "store").exception()
    assert isinstance(failed, InUse)
    assert "store: another thread of this process writes it right now" in str(failed)
    extract(stage(), out=tmp_path / "store")
    assert not left.exists()
