import os
import signal
import subprocess
import sys

import psutil
import pytest
from tqdm import tqdm

from avllm.data import DATASETS
from avllm.data.feature_shards import ShardIndex
from avllm.training import feature_ray
from avllm.training.features import Job
from avllm.training.stage import read_stage
from tests.training.many_clips import wait_for_shards, write_stage

pytest.importorskip("ray", reason="Ray is not installed here: pip install 'avllm[ray]' to run this test")


@pytest.mark.slow
def test_a_killed_actor_loses_no_finished_shard(tmp_path):
    """Ray Data on a local cluster of two workers, of which one is killed with -9."""
    total, out = 160, tmp_path / "store"
    path = write_stage(tmp_path, total)
    command = [sys.executable, "-m", "avllm", "features", str(path), "--out", str(out), "--engine", "ray"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(
            [*command, "--workers", "2", "--shard-size", "2"], env=environment, stderr=log, stdout=log
        )
    try:
        done = len(wait_for_shards(out, 3))
        actors = [
            child
            for child in psutil.Process(driver.pid).children(recursive=True)
            if "MapWorker" in " ".join(child.cmdline())
        ]
        assert len(actors) == 2, [child.name() for child in psutil.Process(driver.pid).children(recursive=True)]
        actors[0].send_signal(signal.SIGKILL)
        assert done < total // 2
        assert driver.wait(timeout=400) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        driver.kill()
        driver.wait()

    entries = ShardIndex(out).entries()
    assert len(entries) == len({entry.key for entry in entries}) == total
    assert f"stored {total} media" in (tmp_path / "log").read_text()


class Deadly(feature_ray._Shards):
    """An actor that is killed by one clip."""

    def __init__(self, job, ledger):
        super().__init__(job, ledger)
        read = self.work.processor.read

        def deadly(source, *args, **options):
            if str(source).endswith("/3.mp4"):
                os.kill(os.getpid(), signal.SIGKILL)
            return read(source, *args, **options)

        self.work.processor.read = deadly


@pytest.mark.slow
def test_a_clip_that_kills_three_actors_is_unreadable_and_all_others_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_ray, "_Shards", Deadly)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    stage, _ = read_stage(write_stage(tmp_path, 8), ["max_unreadable=0.5"], datasets=DATASETS)
    (tmp_path / "store").mkdir()

    summary = feature_ray.run_ray(Job(stage=stage, out=tmp_path / "store", shard_size=4), tqdm(disable=True))

    assert (summary.wanted, summary.stored) == (8, 7)
    (lost,) = summary.unreadable
    assert lost.source.endswith("3.mp4")
    assert lost.reason.startswith("3 workers died")
    states = [entry.state for entry in ShardIndex(tmp_path / "store").entries()]
    assert sorted(states) == ["stored"] * 7 + ["unreadable"]
