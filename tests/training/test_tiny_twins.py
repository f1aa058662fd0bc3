"""Each published stage on a tiny twin of its system: real files in its layout, its own settings, and it must learn."""

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from avllm import config
from avllm.checkpoints.load import load_model
from avllm.checkpoints.save import save_model
from avllm.config import find_file, read_yaml
from avllm.data import Collate, Medium, Prepare, Record, Turn
from avllm.media import write_audio, write_video
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor, System
from avllm.model.prompts import Medium as Shown
from avllm.model.prompts import Turn as Asked
from avllm.training import train
from avllm.training.frozen import matches
from avllm.training.progress import read_log
from tests.model.tiny import QFORMER, TINY, tiny_processor
from tests.model.tiny_av import TINY_AV, tiny_av_processor

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
VIDEOCHAT = {
    "media": {"kind": "frames", "num_frames": 4, "sampling": "half_step", "size": 16, "resize": "crop"},
    "encoder": {
        "kind": "eva_clip_temporal",
        **{"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2, "num_global": 1},
    },
    "connector": {"kind": "qformer", "num_extra_queries": 2, "frame_qformer": {**QFORMER, "num_queries": 2}},
}
STAGES = [
    *(f"video_llama_7b/{name}" for name in ("video_stage1", "video_stage2", "audio_stage1", "audio_stage2")),
    *(f"videochat_7b/{name}" for name in ("stage1", "stage2")),
    *(f"video_llava_7b/{name}" for name in ("stage1", "stage2", "lora")),
    *(f"videollama2_1_7b_16f/{name}" for name in ("stage1", "stage2", "lora", "qlora")),
    *(f"videollama2_1_7b_av/{name}" for name in ("audio_stage1", "audio_stage2", "joint")),
]
# Video-LLaMA trains its audio branch on pictures: it must tell unseen pictures apart, and learns more slowly; adapters
# begin at zero, and some stand still for 40 steps.
SLOWER = (
    *(f"video_llama_7b/{name}" for name in ("audio_stage1", "audio_stage2")),
    *("video_llava_7b/lora", "videollama2_1_7b_16f/lora", "videollama2_1_7b_16f/qlora"),
)
NUM_TRAIN, NUM_FRESH = 8, 8
NUM_DRAWS = 3
TAUGHT_STEPS = 200
FORMS = ("train", "caption", "train_caption")
ANSWERS = ("red", "sea")  # one is right for each clip, by what it shows and sounds like


def _write_clip(root, number):
    """A clip and a sound of one of two kinds, each with noise of its own."""
    rng, kind = np.random.default_rng(number), number % 2
    pixels = rng.integers(0, 90, (8, 32, 32, 3), dtype=np.uint8)
    pixels[..., 2 * kind] += 150
    wave = np.sin(np.arange(16000) / (40, 3)[kind])[None] + rng.normal(0, 0.1, (1, 16000))
    write_video(root / f"{number}.mp4", iter(pixels), 8.0, waveform=0.5 * wave.astype(np.float32))
    write_audio(root / f"{number}.wav", 0.5 * wave.astype(np.float32), 16000)


def _taught(model, processor):
    """Gives the random decoder what a language model has: in the system's prompts it says what the slots mean.

    Two directions of its space stand for the two answers. A connector has to find them.
    """
    torch.manual_seed(1)
    decoder, width = model.decoder.train(), model.config.text_config.hidden_size
    meanings, table = torch.randn(2, width), decoder.get_input_embeddings()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for step in range(TAUGHT_STEPS):
        form, letters = FORMS[step % len(FORMS)], torch.randint(97, 123, (int(torch.randint(1, 60, ())),))
        question, num_tokens = (
            "" if form == "caption" else bytes(letters.tolist()).decode(),
            int(torch.randint(2, 13, ())),
        )
        medium = Shown(kind="video", branch="video", num_tokens=num_tokens, times_s=(0.0, 0.2, 0.5, 0.6))
        turns = [Asked(question=question, media=(medium,), answer=answer) for answer in ANSWERS]
        told = [processor.encode([turn], form=form) for turn in turns]
        kinds = torch.randint(2, (16,))
        ids, labels = (torch.tensor([getattr(one, key) for one in told])[kinds] for key in ("input_ids", "labels"))
        slots = ids >= min(processor.slot_ids.values())
        inputs = table(ids.masked_fill(slots, 0))
        seen = meanings[kinds][:, None] + 0.3 * torch.randn(*inputs.shape)
        loss = decoder(inputs_embeds=torch.where(slots[..., None], seen, inputs), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.decoder.eval()
    return model


def _plain(**changes):
    torch.manual_seed(0)
    model = AvllmForConditionalGeneration(AvllmConfig.from_system(config.parse(System, {**TINY, **changes})))
    for name, parameter in model.named_parameters():  # frozen parts that have learned tell their inputs apart
        if (".frame_qformer." in name or "audio.encoder.vision." in name) and parameter.ndim == 2:
            parameter.data.mul_(8)
    return model


@pytest.fixture(scope="module", autouse=True)
def _read_once():
    """The same few clips are asked for in every step of every stage: each is read once in each of its ways.

    Where a stage draws frames at random, a clip has so many draws of them in place of a new one in each step.
    """
    read, found = AvllmProcessor.read, {}

    def read_once(self, source, kind, *, seed=0, **options):
        options |= {} if kind != "video" else {"seed": seed % NUM_DRAWS}
        key = (json.dumps(self.system, sort_keys=True), str(source), kind, repr(sorted(options.items())))
        if key not in found:
            found[key] = read(self, source, kind, **options)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AvllmProcessor, "read", read_once)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    for number in range(NUM_TRAIN + NUM_FRESH):
        _write_clip(root, number)
    answers = [ANSWERS[number % 2] for number in range(NUM_TRAIN)]
    with (root / "webvid.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["videoid", "page_dir", "name"], *([i, ".", a] for i, a in enumerate(answers))])
    pairs = [{"video": f"{i}.mp4", "QA": [{"q": "What?", "a": a}]} for i, a in enumerate(answers)]
    (root / "videochat_instruct.json").write_text(json.dumps(pairs))
    captions = [{"video": f"{i}.mp4", "caption": a} for i, a in enumerate(answers)]
    (root / "media_captions.json").write_text(json.dumps(captions))
    for kind, end in (("video", "mp4"), ("audio", "wav")):
        said = [[{"from": "human", "value": "What?"}, {"from": "gpt", "value": answer}] for answer in answers]
        entries = [{kind: f"{i}.{end}", "conversations": talk} for i, talk in enumerate(said)]
        (root / f"{kind}.json").write_text(json.dumps(entries))
    systems = {
        "video_llama_7b": _plain(),
        "videochat_7b": _plain(prompt="videochat", branches={"video": VIDEOCHAT}),
        "video_llava_7b": _plain(prompt="video_llava", branches={"video": LLAVA}),
    }
    for name, model in systems.items():
        processor = tiny_processor(model)
        save_model(_taught(model, processor), processor, root / name)
    torch.manual_seed(0)
    av = AvllmForConditionalGeneration(AvllmConfig.from_system(config.parse(System, TINY_AV)))
    processor = tiny_av_processor(av)
    _taught(av, processor)
    for name in ("videollama2_1_7b_16f", "videollama2_1_7b_av"):
        save_model(av, processor, root / name)
    return root


def _data(published, root, name):
    """The first dataset of the stage whose media are videos or sounds, on the files of this test."""
    where = {
        "webvid": {"annotations": root / "webvid.csv", "videos": root},
        "videochat_instruct": {"annotations": root / "videochat_instruct.json", "videos": root},
        "media_captions": {"annotations": root / "media_captions.json", "root": root},
        "conversations": {"annotations": root / f"{'audio' if '/audio' in name else 'video'}.json", "root": root},
    }
    data = next(item for item in published if item["kind"] in where)
    return [{**data, **{key: str(path) for key, path in where[data["kind"]].items()}}]


@torch.no_grad()
def _num_right(model, processor, stage, root, data):
    """Of clips never trained on, how many get the lower loss with the right answer than with the other one."""
    modality, form = stage.get("modality", {}), data.get("form", "train")
    for name, value in modality.items():
        model.branches[name].modality = value
    if data["kind"] in ("webvid", "media_captions"):
        form = "train_caption" if data.get("prompts") else "caption"
    sound = data["annotations"].endswith("audio.json")
    prepare, right = Prepare(processor, modality=modality), 0
    options = {key: data[key] for key in ("num_frames", "sampling") if key in data}  # as in training
    for number in range(NUM_TRAIN, NUM_TRAIN + NUM_FRESH):
        source = root / f"{number}.{'wav' if sound else 'mp4'}"
        media = [Medium(kind="audio" if sound else "video", source=source, options=options)]
        if data.get("sound") == "require":
            media.append(Medium(kind="audio", source=root / f"{number}.mp4"))
        question = "" if form == "caption" else (data.get("prompts") or ["What?"])[0]
        samples = []
        for answer in ANSWERS:
            turns = (Turn(role="user", text=question, media=tuple(media)), Turn(role="assistant", text=answer))
            samples.append(prepare(Record(id=answer, turns=turns, form=form), 0))
        batch = Collate()(samples)
        labels = batch.pop("labels")[:, 1:]
        del batch["ids"], batch["unreadable"]
        logits = model(**batch).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1) / (labels != -100).sum(1)
        right += int(losses.argmin()) == number % 2
    return right


@pytest.mark.parametrize("name", STAGES)
def test_trains_the_published_parts_and_tells_unseen_clips_apart(tmp_path, root, name):
    stage = read_yaml(find_file("train_configs", name))
    if stage.get("adapter"):
        pytest.importorskip("peft", reason="adapters need avllm[train]")
    if stage.get("quantization"):
        pytest.importorskip("bitsandbytes", reason="quantization needs avllm[quant]")
    start = root / name.split("/")[0]
    stage |= {"init": str(start), "output": str(tmp_path / "out"), "batch": 8, "accumulation": 1, "workers": 0}
    stage["precision"] = "bf16" if stage.get("precision") == "bf16" else "fp32"  # fp16 is for GPUs
    stage["data"] = _data(stage["data"], root, name)
    steps = 80 if name in SLOWER else 40
    stage["schedule"] |= {"epochs": 1, "steps_per_epoch": steps, "warmup_steps": 2, "lr": 1.0e-2, "min_lr": 1.0e-3}
    stage["optimizer"].pop("part_lr", None)
    stage["logging"] = {"every": 1, "tensorboard": False}
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(stage))

    out = train(tmp_path / "stage.yaml")

    losses = [row["loss"] for row in read_log(out / "log.csv")]
    assert sum(losses[-4:]) < sum(losses[:4])
    before = load_file(start / "model.safetensors")
    after = load_file(out / ("trained.safetensors" if stage.get("adapter") else "model.safetensors"))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert all(any(matches(key, pattern) for pattern in stage["trainable"]) for key in changed)
    for pattern in stage["trainable"]:
        assert any(matches(key, pattern) for key in changed), pattern
    right = _num_right(*load_model(out), stage, root, stage["data"][0])
    assert right >= 7  # guessing gets 7 of 8 in 1 of 28 runs
