"""A tiny system with a processor, and the published layouts with real mp4 and jpg files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from avllm.checkpoints.save import save_model
from avllm.media import write_video
from tests.model.tiny import tiny_model, tiny_processor


def save_media_system(folder: Path) -> Path:
    """Writes random weights and the processor."""
    model = tiny_model()
    return save_model(model, tiny_processor(model), folder)


def write_layouts(root: Path) -> dict[str, dict]:
    """The four published layouts with two records each; returns their entries of a stage's `data`."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), dtype=np.uint8)
    for name in ("p/1", "p/2"):
        path = root / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, iter(pixels), 10.0)
    images = {"image": ["a", "b"], "coco": ["COCO_train2014_a", "COCO_train2014_b"]}
    for folder, names in images.items():
        (root / folder).mkdir()
        for name in names:
            Image.fromarray(pixels[0]).save(root / folder / f"{name}.jpg")
    (root / "webvid").mkdir()
    (root / "webvid" / "0.csv").write_text("videoid,page_dir,name\n1,p,A dog.\n2,p,The sea.\n")
    captions = [{"image_id": "a", "caption": "A cat."}, {"image_id": "b", "caption": "A car."}]
    (root / "filter_cap.json").write_text(json.dumps({"annotations": captions}))
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    llava = [{"id": name, "image": f"{name}.jpg", "conversations": said} for name in "ab"]
    (root / "llava.json").write_text(json.dumps(llava))
    chat = [
        {"video": f"p/{i}.mp4", "QA": [{"q": "What?", "a": "A dog."}, {"q": "Where?", "a": "There."}]} for i in "12"
    ]
    (root / "videochat.json").write_text(json.dumps(chat))
    paths = {
        "webvid": {"annotations": "webvid", "videos": "videos"},
        "image_captions": {"root": "."},
        "llava_instruct": {"annotations": "llava.json", "images": "coco"},
        "videochat_instruct": {"annotations": "videochat.json", "videos": "videos"},
    }
    return {kind: {"kind": kind, **{key: str(root / path) for key, path in of.items()}} for kind, of in paths.items()}
