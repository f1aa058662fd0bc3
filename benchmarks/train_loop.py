"""One step of `avllm train` against the same in a plain torch loop: time of a short step, memory of one of stage 1.

Both arms read the same batches by the same reader and use the same optimizer; the plain one is what is left when
nothing is logged, stored, checked or resumable.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from avllm.data import Context, Record
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from avllm.training.frozen import freeze
from avllm.training.optimizer import parameter_groups
from avllm.training.run import build_trainer
from avllm.training.stage import read_stage
from avllm.training.trainer import StageTrainer, run_to_end
from benchmarks.common import Figure, in_child, interleaved, median, peak_mib, resident_mib

# The branch of sound has no part in a step.
NO_SOUND = (
    *("branches.audio.encoder.audio.depth=1", "branches.audio.encoder.audio.width=64"),
    *("branches.audio.encoder.vision.depth=1", "branches.audio.encoder.vision.width=64"),
    *("branches.audio.encoder.audio.num_heads=4", "branches.audio.encoder.vision.num_heads=4"),
    *(
        "branches.audio.connector.width=64",
        "branches.audio.connector.num_heads=4",
        "branches.audio.connector.mlp_width=64",
    ),
)
# Video-LLaMA's video branch behind stored features, so that a step is the video Q-Former and the decoder: some 27 ms.
SIZES = (
    *NO_SOUND,
    *("branches.video.encoder.width=64", "branches.video.encoder.depth=1", "branches.video.encoder.num_heads=2"),
    *("branches.video.connector.width=128", "branches.video.connector.num_heads=4"),
    *("branches.video.connector.mlp_width=512", "branches.video.connector.frame_qformer.width=128"),
    *("branches.video.connector.frame_qformer.depth=2", "branches.video.connector.frame_qformer.num_heads=4"),
    "branches.video.connector.frame_qformer.mlp_width=512",
    *("decoder.hidden_size=128", "decoder.intermediate_size=352", "decoder.num_hidden_layers=4"),
    *("decoder.num_attention_heads=4", "decoder.num_key_value_heads=4", "decoder.vocab_size=2000"),
)
# The same at middle size, where what a step holds counts for more than what an import takes.
LARGE = (
    *NO_SOUND,
    *("branches.video.encoder.width=384", "branches.video.encoder.depth=12", "branches.video.encoder.num_heads=6"),
    *("branches.video.connector.width=768", "branches.video.connector.num_heads=12"),
    *("branches.video.connector.mlp_width=3072", "branches.video.connector.frame_qformer.depth=12"),
    *("decoder.hidden_size=512", "decoder.intermediate_size=1376", "decoder.num_hidden_layers=8"),
    *("decoder.num_attention_heads=8", "decoder.num_key_value_heads=8", "decoder.vocab_size=32000"),
)
WARM = 5
STEPS = {"time": 45, "memory": 4}


class Clips:
    """Stored features, or clips that are still to be encoded, with a caption in ids."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 64
        words: int = 16
        queries: int = 32
        width: int = 128
        ratio: float = 1.0

        def build(self, context: Context) -> "Clips":
            return Clips(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        rng = torch.Generator().manual_seed(0)
        self.features = torch.randn(config.size, 8, config.queries, config.width, generator=rng)

    def __len__(self) -> int:
        return self.config.size

    def record(self, index: int, seed: int) -> Record:
        ids = torch.cat([torch.full((32,), self.slot), torch.arange(3, 3 + self.config.words)])
        labels = torch.cat([torch.full((32,), -100), ids[32:]])
        return Record(id=str(index), features={"video": self.features[index]}, input_ids=ids, labels=labels)

    slot = 0


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.times.append(time.perf_counter())


def loop_figures(rounds: int) -> dict[str, Figure]:
    """Both figures."""
    with _trainers(SIZES, "time", batch=2) as make:
        arms = {"ours": lambda: _ours(make()), "plain": lambda: _plain(make())}
        for arm in arms.values():
            arm()
        found = interleaved(arms, rounds)
    ratios = [ours / plain for ours, plain in zip(found["ours"], found["plain"], strict=True)]
    ours, plain = (1000 * median(found[name]) for name in ("ours", "plain"))
    memory = {
        name: median([in_child("benchmarks.train_loop", name)["mib"] for _ in range(min(rounds, 3))])
        for name in ("ours", "plain")
    }
    return {
        "trainer_step_time": Figure(
            value=round(median(ratios), 3),
            goal=1.12,
            better="lower",
            against="plain torch loop",
            note=f"{ours:.1f} ms against {plain:.1f} ms a step, mean of {STEPS['time'] - WARM} steps",
        ),
        "trainer_peak_memory": Figure(
            value=round(memory["ours"] / memory["plain"], 3),
            goal=1.15,
            better="lower",
            against="plain torch loop",
            note=f"peak resident memory of the process, {memory['ours']:.0f} MiB against {memory['plain']:.0f}",
        ),
    }


@contextmanager
def _trainers(sizes: tuple[str, ...], what: str, *, batch: int) -> Iterator[Callable[[], StageTrainer]]:
    """Makes trainers of the same stage, each with a model of the same weights."""
    config = AvllmConfig.from_yaml("video_llama_7b", sizes)
    Clips.slot = config.slot_ids()["video"]
    width = config.parsed().branches["video"].connector.frame_qformer.width  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        stage = {
            "init": "none",
            "output": folder,
            "trainable": [
                f"branches.video.connector.{n}" for n in ("query_tokens", "frame_embedding", "qformer", "projection")
            ],
            "data": [{"kind": "clips", "width": width}],
            "schedule": {"steps_per_epoch": STEPS[what], "lr": 1e-4},
            "batch": batch,
            "checkpoints": {"every": 0},
            "logging": {"every": 10, "tensorboard": False},
        }
        path = Path(folder) / "stage.yaml"
        path.write_text(yaml.safe_dump(stage))
        settings, _ = read_stage(path, datasets={"clips": Clips.Config})

        def make() -> StageTrainer:
            torch.manual_seed(0)
            model = AvllmForConditionalGeneration(config)
            freeze(model, settings.trainable)
            return build_trainer(settings, model, None, Path(folder))

        yield make


def _ours(trainer: StageTrainer) -> float:
    clock = _Clock()
    trainer.add_callback(clock)
    run_to_end(trainer, None)
    return (clock.times[-1] - clock.times[WARM - 1]) / (len(clock.times) - WARM) if len(clock.times) > WARM else 0.0


def _plain(trainer: StageTrainer) -> float:
    """The same batches without the trainer, which is only asked for what they are made of."""
    model, settings = trainer.model, trainer.stage
    assert model is not None
    optimizer = AdamW(parameter_groups(model, settings.optimizer), lr=settings.schedule.lr, fused=True)
    loader = DataLoader(trainer.train_dataset, batch_sampler=trainer.order, collate_fn=trainer.data_collator)  # type: ignore[arg-type]
    times, total = [], 0.0
    model.train()
    for step, batch in enumerate(loader):
        del batch["ids"], batch["unreadable"]
        for group in optimizer.param_groups:
            group["lr"] = settings.schedule.at(step)
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        times.append(time.perf_counter())
    return (times[-1] - times[WARM - 1]) / (len(times) - WARM) if len(times) > WARM else 0.0


def main() -> None:
    """A process of its own for the memory of one arm."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("arm", choices=("ours", "plain"))
    arm = {"ours": _ours, "plain": _plain}[parser.parse_args().arm]
    with _trainers(LARGE, "memory", batch=4) as make:
        trainer = make()
        before = resident_mib()
        arm(trainer)
    print(json.dumps({"mib": peak_mib(), "before": before}))


if __name__ == "__main__":
    main()
