"""The commands that are killed: what they need, how they are called and called again, and what they must leave."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

NUM_QUESTIONS, NUM_CLIPS = 24, 12
PARTS = ("query_tokens", "frame_embedding", "qformer", "projection")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line that writes.

    Args:
        prepare: makes what it reads, once, in a folder.
        argv: from that folder and the folder it writes to, and whether it was begun before, to its words.
        old: puts there what was there before the first call, and is to be replaced.
        module: what is run; has `main`.
        is_shared: several processes may write one output, and both end well.
        is_new: it refuses an output that is there, whole as it may be.
    """

    prepare: Callable[[Path], None]
    argv: Callable[[Path, Path, bool], list[str]]
    old: Callable[[Path, Path], None] | None = None
    module: str = "avllm"
    is_shared: bool = False
    is_new: bool = False


def _prepare_convert(root: Path) -> None:
    from tests.checkpoints.published import MISTRAL, videollama2_layout

    videollama2_layout(root, {**MISTRAL, "vocab_size": 30_000})  # some megabytes, so that writing takes a while


def _convert(root: Path, work: Path, again: bool) -> list[str]:
    return ["convert", str(root / "VideoLLaMA2-7B"), "--out", str(work / "model")]


def _prepare_merge(root: Path) -> None:
    """Two adapters of one base; what the first makes is replaced by what the second makes."""
    import torch
    from peft import LoraConfig, get_peft_model

    from avllm.checkpoints import adapters
    from avllm.checkpoints.load import load_model, merge_adapter
    from tests.training.media_system import save_media_system

    base = save_media_system(root / "base")
    for version in (0, 1):
        model, _ = load_model(base)
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"decoder\..*q_proj"))
        norm = "decoder.model.norm.weight"
        trained = {norm: torch.full_like(model.state_dict()[norm], version)}
        adapters.save_adapter(adapted, root / f"adapter{version}", base=base, trained=trained)
    merge_adapter(root / "adapter0", root / "old")


def _merge(root: Path, work: Path, again: bool) -> list[str]:
    return ["merge", str(root / "adapter1"), "--out", str(work / "model")]


def _old_model(root: Path, work: Path) -> None:
    shutil.copytree(root / "old", work / "model")


def _prepare_media(root: Path) -> None:
    """A tiny system, a clip under several names, and a stage."""
    from tests.training.many_clips import write_stage

    write_stage(root, NUM_CLIPS)


def _prepare_run(root: Path) -> None:
    _prepare_media(root)
    asked = [
        {"id": number, "video": f"videos/p/{number % NUM_CLIPS}.mp4", "question": f"What moves, {number}?"}
        for number in range(NUM_QUESTIONS)
    ]
    asked[5]["video"] = "gone.mp4"
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


def _run(root: Path, work: Path, again: bool) -> list[str]:
    words = ["run", str(root / "questions.jsonl"), str(work / "answers.jsonl"), "--media-root", str(root)]
    return [*words, "--model", str(root / "base"), "--batch", "2", "--max-new-tokens", "8", *_resume(again)]


def _features(root: Path, work: Path, again: bool) -> list[str]:
    return ["features", str(root / "stage.yaml"), "--out", str(work / "store"), "--shard-size", "2"]


def _prepare_train(root: Path) -> None:
    _prepare_media(root)
    stage = yaml.safe_load((root / "stage.yaml").read_text())
    stage |= {"batch": 2, "checkpoints": {"every": 2, "keep": 2}, "logging": {"every": 1, "tensorboard": False}}
    stage["schedule"] = {"steps_per_epoch": 8, "lr": 1.0e-3}
    (root / "stage.yaml").write_text(yaml.safe_dump(stage))


def _train(root: Path, work: Path, again: bool) -> list[str]:
    return ["train", str(root / "stage.yaml"), f"output={work}/out", *_resume(again)]


def _prepare_eval(root: Path) -> None:
    """A benchmark of rows about the clips."""
    _prepare_media(root)
    options = ["left", "right"]
    asked = [
        {"video_name": f"{number % NUM_CLIPS}", "question": f"Which way, {number}?", "question_id": number}
        for number in range(NUM_QUESTIONS)
    ]
    answers = [{"answer": options[number % 2], "question_id": number} for number in range(NUM_QUESTIONS)]
    (root / "test_q.json").write_text(json.dumps(asked))
    (root / "test_a.json").write_text(json.dumps(answers))
    plain = yaml.safe_load((Path(__file__).parents[2] / "eval_configs" / "msvd_qa.yaml").read_text())
    plain["data"]["folder"] = str(root)
    plain |= {"model": str(root / "base"), "batch": 2, "max_new_tokens": 8}
    for number in range(NUM_CLIPS):
        target = root / "videos" / f"{number}.avi"
        target.hardlink_to(root / f"videos/p/{number}.mp4")
    (root / "bench.yaml").write_text(yaml.safe_dump(plain))


def _eval(root: Path, work: Path, again: bool) -> list[str]:
    return ["eval", str(root / "bench.yaml"), f"out={work}/out", *_resume(again)]


def _nano(root: Path, work: Path, again: bool) -> list[str]:
    return ["nano", "build", "--quick", "--out", str(work / "nano"), *_resume(again)]


def _resume(again: bool) -> list[str]:
    return ["--resume"] if again else []


COMMANDS: dict[str, Command] = {
    "convert": Command(prepare=_prepare_convert, argv=_convert, is_new=True),
    "run": Command(prepare=_prepare_run, argv=_run),
    "features": Command(prepare=_prepare_media, argv=_features, is_shared=True),
    "eval": Command(prepare=_prepare_eval, argv=_eval),
    "train": Command(prepare=_prepare_train, argv=_train),
    "merge": Command(prepare=_prepare_merge, argv=_merge, old=_old_model),
    "nano": Command(prepare=lambda root: None, argv=_nano, module="tests.kill.short_nano"),
}
