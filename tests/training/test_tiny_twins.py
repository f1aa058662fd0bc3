"""Each stage of Video-LLaVA and VideoLLaMA 2 on a tiny twin of its system: real files, published settings."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from avllm import config
from avllm.checkpoints.load import load_model
from avllm.checkpoints.save import save_model
from avllm.config import find_file, read_yaml
from avllm.media import write_audio, write_video
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from avllm.training import train
from avllm.training.frozen import matches
from avllm.training.progress import read_log
from tests.model.tiny import TINY, tiny_processor
from tests.model.tiny_av import tiny_av_model, tiny_av_processor

TOWER = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2, "mlp_width": 24}
LLAVA = {
    "media": {"kind": "frames", "num_frames": 4, "sampling": "linspace", "size": 16, "resize": "crop"},
    "encoder": {
        "kind": "languagebind",
        "image": {**TOWER, "layer": -2, "feature": "patch"},
        "video": {**TOWER, "layer": -2, "feature": "cls_patch"},
        "num_frames": 4,
    },
    "connector": {"kind": "mlp", "depth": 2},
}
STAGES = [
    "video_llava_7b/stage1",
    "video_llava_7b/stage2",
    "video_llava_7b/lora",
    "videollama2_1_7b_16f/stage1",
    "videollama2_1_7b_16f/stage2",
    "videollama2_1_7b_16f/lora",
    "videollama2_1_7b_16f/qlora",
    "videollama2_1_7b_av/audio_stage1",
    "videollama2_1_7b_av/audio_stage2",
    "videollama2_1_7b_av/joint",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    wave = np.sin(np.arange(16000) / 9).astype(np.float32)[None]
    write_video(root / "a.mp4", iter(pixels), 8.0, waveform=wave)
    Image.fromarray(pixels[0]).save(root / "b.png")
    write_audio(root / "c.wav", wave, 16000)
    torch.manual_seed(0)
    system = config.parse(System, {**TINY, "prompt": "video_llava", "branches": {"video": LLAVA}})
    llava = AvllmForConditionalGeneration(AvllmConfig.from_system(system))
    save_model(llava, tiny_processor(llava), root / "video_llava_7b")
    av = tiny_av_model()
    for name in ("videollama2_1_7b_16f", "videollama2_1_7b_av"):
        save_model(av, tiny_av_processor(av), root / name)
    return root


def _data(name, root):
    said = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}]
    media = [{"audio": "c.wav"}] if "/audio" in name else [{"video": "a.mp4"}, {"image": "b.png"}]
    if name.endswith("joint"):
        media = media[:1]
    (root / "my.json").write_text(json.dumps([{**medium, "conversations": said} for medium in media]))
    return str(root / "my.json")


@pytest.mark.parametrize("name", STAGES)
def test_trains_the_published_parts_and_learns(tmp_path, root, name):
    stage = read_yaml(find_file("train_configs", name))
    if stage.get("adapter"):
        pytest.importorskip("peft", reason="adapters need avllm[train]")
    if stage.get("quantization"):
        pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
    start = root / name.split("/")[0]
    stage |= {"init": str(start), "output": str(tmp_path / "out"), "batch": 2, "accumulation": 1, "workers": 0}
    stage["data"] = [{**stage["data"][0], "annotations": _data(name, root), "root": str(root)}]
    stage["schedule"] |= {"epochs": 1, "steps_per_epoch": 6, "warmup_steps": 1, "lr": 1.0e-2}
    stage["optimizer"].pop("part_lr", None)
    stage["logging"] = {"every": 1, "tensorboard": False}
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(stage))

    out = train(tmp_path / "stage.yaml")

    losses = [row["loss"] for row in read_log(out / "log.csv")]
    assert losses[-1] < losses[0]
    before = load_file(start / "model.safetensors")
    after = load_file(out / ("trained.safetensors" if stage.get("adapter") else "model.safetensors"))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed
    assert all(any(matches(key, pattern) for pattern in stage["trainable"]) for key in changed)
    for pattern in stage["trainable"]:
        assert any(matches(key, pattern) for key in changed), pattern
    load_model(out)
