"""A stage with many clips, and waiting for what processes make of them."""

import os
import time
from pathlib import Path

import numpy as np
import yaml

from avllm.data.feature_shards import SHARDS
from avllm.media import write_video
from tests.training.media_system import save_media_system

PARTS = ("query_tokens", "frame_embedding", "qformer", "projection")


def write_stage(folder: Path, count: int) -> Path:
    """A stage on one clip under many names."""
    (folder / "videos/p").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", iter(pixels), 10.0)
    for number in range(count):
        os.link(folder / "clip.mp4", folder / f"videos/p/{number}.mp4")
    rows = "".join(f"{number},p,A dog.\n" for number in range(count))
    (folder / "many.csv").write_text("videoid,page_dir,name\n" + rows)
    data = {"kind": "webvid", "annotations": str(folder / "many.csv"), "videos": str(folder / "videos")}
    stage = {
        "init": str(save_media_system(folder / "base")),
        "output": str(folder / "out"),
        "trainable": [f"branches.video.connector.{part}" for part in PARTS],
        "data": [data],
        "schedule": {"steps_per_epoch": 3, "lr": 1e-3},
    }
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(stage))
    return path


def wait_for_shards(out: Path, count: int) -> list[Path]:
    """The shards that are there once there are so many."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        found = list((out / SHARDS).glob("*.safetensors"))
        if len(found) >= count:
            return found
        time.sleep(0.005)
    raise AssertionError(f"not {count} shards in time")
