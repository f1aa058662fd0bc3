import os
import signal
import subprocess
import sys

import psutil
import pytest

from avllm.data.feature_shards import ShardIndex
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
