"""The two stages of VideoChat on a tiny system, from real files, with the published settings of what is trained."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from avllm.chat.assistant import Assistant
from avllm.checkpoints.load import load_model
from avllm.checkpoints.save import save_model
from avllm.config import find_file, read_yaml
from avllm.training import train
from tests.model.tiny import QFORMER, tiny_model, tiny_processor
from tests.training.media_system import write_layouts

BRANCH = {
    "media": {"kind": "frames", "num_frames": 4, "sampling": "half_step", "size": 16, "resize": "crop"},
    "encoder": {
        "kind": "eva_clip_temporal",
        **{"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2, "num_global": 1},
    },
    "connector": {"kind": "qformer", "num_extra_queries": 2, "frame_qformer": {**QFORMER, "num_queries": 2}},
}
TRAINED = ("gmhra", "input_norm", "extra_query_tokens", "projection")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    write_layouts(root)
    captions = [{"video": "videos/p/1.mp4", "caption": "A dog."}, {"image": "image/a.jpg", "caption": "A cat."}]
    (root / "captions.json").write_text(json.dumps(captions))
    pairs = [{"q": "What?", "a": "A cat."}, {"q": "Where?", "a": "Here."}]
    instructions = [{"video": "videos/p/2.mp4", "QA": pairs}, {"image": "image/b.jpg", "QA": pairs[:1]}]
    (root / "instructions.json").write_text(json.dumps(instructions))
    model = tiny_model(prompt="videochat", branches={"video": BRANCH})
    save_model(model, tiny_processor(model), root / "base")
    return root


def data_of(stage, root):
    if stage == "stage1":
        prompts = ["Describe it."]
        return {
            "kind": "media_captions",
            "annotations": str(root / "captions.json"),
            "root": str(root),
            "prompts": prompts,
        }
    return {
        "kind": "videochat_instruct",
        "annotations": str(root / "instructions.json"),
        "videos": str(root),
        "images": str(root),
        "sampling": "interval_random",
    }


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_trains_what_is_published_and_answers(tmp_path, root, stage):
    published = read_yaml(find_file("train_configs", f"videochat_7b/{stage}"))
    settings = {
        "init": str(root / "base"),
        "output": str(tmp_path / "out"),
        "trainable": published["trainable"],
        "data": [data_of(stage, root)],
        "batch": 2,
        "max_text_tokens": published["max_text_tokens"],
        "schedule": {**published["schedule"], "epochs": 1, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 1.0e-2},
        "logging": {"every": 1, "tensorboard": False},
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(settings))

    out = train(path)

    before, after = load_file(root / "base" / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(any(part in name for part in TRAINED) for name in changed)
    for part in TRAINED:
        assert any(part in name for name in changed), part
    assert Assistant(*load_model(out)).chat().ask("What?", video=root / "videos/p/1.mp4", max_new_tokens=4) is not None
