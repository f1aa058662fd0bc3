"""A system small enough to train in milliseconds, and a dataset of stored features; also run as a program by tests."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from avllm.data import Context, Record
from avllm.model.configuration import AvllmConfig, System
from avllm.model.modeling import AvllmForConditionalGeneration
from avllm.training import run, train
from avllm.training.sharding import shard
from avllm.training.stage import Stage

SYSTEM = """
decoder: {model_type: llama, vocab_size: 40, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2,
  num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 128, attention_dropout: 0.1,
  tie_word_embeddings: false}
prompt: vicuna
branches:
  video:
    media: {kind: frames, num_frames: 4, size: 28}
    encoder: {kind: eva_clip, image_size: 28, patch_size: 14, width: 16, depth: 2, num_heads: 2}
    connector:
      kind: temporal_qformer
      num_queries: 3
      max_frames: 8
      width: 16
      num_heads: 2
      mlp_width: 32
      frame_qformer: {num_queries: 2, width: 16, depth: 2, num_heads: 2, mlp_width: 32}
"""
TRAINABLE = [
    f"branches.video.connector.{name}" for name in ("query_tokens", "frame_embedding", "qformer", "projection")
]
SLOT = 40


class TinyFeatures:
    """Random features whose label is a function of them."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 20
        broken: int | None = None
        longer: bool = False  # prompts of several lengths
        uneven: bool = False  # answers of several lengths
        ratio: float = 1.0

        def build(self, context: Context) -> "TinyFeatures":
            return TinyFeatures(self)

    def __init__(self, config: "TinyFeatures.Config") -> None:
        self.config = config
        self.features = torch.randn(config.size, 4, 2, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.config.size

    def record(self, index: int, seed: int) -> Record:
        pause = float(os.environ.get("TINY_PAUSE", 0))
        if pause:
            import time

            time.sleep(pause)
        feature = self.features[index]
        if index == self.config.broken:
            feature = feature * float("nan")
        more = [6] * (index % 5) if self.config.longer else []
        answer = 3 + int(feature.sum() > 0) + 2 * (seed % 2)
        answers = [answer] * (1 + (index % 4) ** 2 if self.config.uneven else 1) + [2]
        return Record(
            id=f"tiny[{index}]",
            features={"video": feature},
            input_ids=torch.tensor([1, SLOT, SLOT, SLOT, *more, 5 + index % 7, *answers]),
            labels=torch.tensor([-100] * (5 + len(more)) + answers),
        )


DATASETS = {"tiny_features": TinyFeatures.Config}


def save_tiny_system(folder: Path, seed: int = 0, dropout: float = 0.1) -> Path:
    """Writes random weights."""
    torch.manual_seed(seed)
    path = folder.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SYSTEM.replace("attention_dropout: 0.1", f"attention_dropout: {dropout}"))
    AvllmForConditionalGeneration(AvllmConfig.from_system(System.from_yaml(path))).save_pretrained(folder)
    return folder


def stage_data(init: Path | list[str], output: Path, **changes) -> dict:
    """A stage as plain data."""
    return {
        "init": init if isinstance(init, list) else str(init),
        "trainable": TRAINABLE,
        "output": str(output),
        "data": [{"kind": "tiny_features"}],
        "schedule": {"steps_per_epoch": 12, "lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 3, "warmup_start_lr": 1e-4},
        "batch": 4,
        "checkpoints": {"every": 4},
        "logging": {"every": 1, "tensorboard": False},
        **changes,
    }


def write_stage(path: Path, init: Path | list[str], output: Path, **changes) -> Path:
    """Writes a stage's YAML."""
    path.write_text(yaml.safe_dump(stage_data(init, output, **changes)))
    return path


def make_stage(tmp_path: Path, **changes) -> Path:
    """A tiny system and a stage that trains it into `tmp_path/out`."""
    return write_stage(tmp_path / "stage.yaml", save_tiny_system(tmp_path / "base"), tmp_path / "out", **changes)


__all__ = ["DATASETS", "SLOT", "TRAINABLE", "Stage", "TinyFeatures", "make_stage", "save_tiny_system", "write_stage"]


def _shard_and_tell(model, device) -> None:
    whole = sum(parameter.numel() for parameter in model.parameters())
    shard(model, device)
    held = sum(parameter.to_local().numel() for parameter in model.parameters())
    print(f"holds {held / whole:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run.shard = _shard_and_tell
    try:
        for path in (argument for argument in sys.argv[1:] if argument.endswith(".yaml")):
            train(path, resume="--resume" in sys.argv, datasets=DATASETS)
    except KeyboardInterrupt as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(130)
