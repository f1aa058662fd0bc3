"""`avllm plan` against what the same workload really takes: nano, and three mid-size systems with random weights.

    python -m benchmarks.plan [--json] [--only TEXT]

Each workload runs in a process of its own. Measured is the memory of the process at its most, less what it held just
before the model was built, once the libraries are loaded. The C library gives freed memory of 1 MiB and more back to
the system at once here. By default it keeps some of it, in holes that fit no later tensor; a few workloads are measured
so, too, and shown without a goal.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
from typing import Any

import torch

from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from avllm.model.plan import Workload, plan, trained_parameters
from benchmarks.common import Figure, arguments, in_child, machine, peak_mib, report, resident_mib

DECODER = (
    *("decoder.hidden_size=512", "decoder.intermediate_size=1408", "decoder.num_hidden_layers=6"),
    *("decoder.num_attention_heads=8", "decoder.vocab_size=16000"),
)
TOWER = ("width=256", "depth=4")
# Systems of published form at a size of 50 to 120 M parameters.
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nano": ("nano", ()),
    "qformer": (
        "video_llama_7b",
        (
            *("branches.video.encoder.width=320", "branches.video.encoder.depth=4"),
            *("branches.video.encoder.num_heads=5", "branches.video.connector.frame_qformer.depth=4"),
            *("branches.audio.encoder.audio.depth=2", "branches.audio.encoder.vision.depth=2"),
            *("branches.audio.encoder.audio.width=128", "branches.audio.encoder.vision.width=160"),
            *("branches.audio.encoder.audio.num_heads=2", "branches.audio.encoder.vision.num_heads=2"),
            *(*DECODER, "decoder.num_key_value_heads=8"),
        ),
    ),
    "stc": (
        "videollama2_7b",
        (
            *("branches.video.media.size=224", "branches.video.encoder.image_size=224"),
            *(f"branches.video.encoder.{size}" for size in TOWER),
            *(*DECODER, "decoder.num_key_value_heads=2"),
        ),
    ),
    "mlp": (
        "video_llava_7b",
        (
            *(f"branches.video.encoder.{tower}.{size}" for tower in ("image", "video") for size in TOWER),
            *(*DECODER, "decoder.num_key_value_heads=8"),
        ),
    ),
}
ANSWER = {"text_tokens": 400, "new_tokens": 12, "batch": 2}
TRAIN = {"text_tokens": 64, "new_tokens": 64, "batch": 2}
WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "nano_answer": ("nano", {"text_tokens": 40, "new_tokens": 24, "batch": 96}),
    "nano_train_all": ("nano", {"text_tokens": 40, "new_tokens": 24, "batch": 16, "train": "all"}),
    "qformer_answer": ("qformer", ANSWER),
    "qformer_answer_32_frames": ("qformer", {**ANSWER, "num_frames": 32}),
    "qformer_train_connectors": ("qformer", {**TRAIN, "train": "connectors"}),
    "qformer_train_all": ("qformer", {**TRAIN, "train": "all"}),
    "stc_answer": ("stc", ANSWER),
    "stc_train_connectors": ("stc", {**TRAIN, "train": "connectors"}),
    "mlp_answer": ("mlp", ANSWER),
    "mlp_train_all": ("mlp", {**TRAIN, "batch": 1, "train": "all"}),
}
SHOWN_WITH_THE_USUAL_ALLOCATOR = ("nano_answer", "qformer_answer", "qformer_train_connectors", "stc_train_connectors")
# Any value switches the C library's own, growing threshold off.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}


def main() -> None:
    parser = arguments("The plan of memory against the memory taken.")
    parser.add_argument("--only", default="", metavar="TEXT", help="the workloads whose name holds this")
    parser.add_argument("--run", choices=WORKLOADS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps({"mib": run(*WORKLOADS[args.run])}))
        return
    figures = {}
    for name, (system, settings) in WORKLOADS.items():
        if args.only not in name:
            continue
        planned = plan(_config(system), Workload(dtype=torch.float32, **settings)).total / 2**20
        os.environ |= GIVES_BACK
        figures[f"{name}_error"] = _figure(planned, in_child("benchmarks.plan", "--run", name)["mib"], goal=0.1)
        if name in SHOWN_WITH_THE_USUAL_ALLOCATOR:
            for key in GIVES_BACK:
                del os.environ[key]
            measured = in_child("benchmarks.plan", "--run", name)["mib"]
            figures[f"{name}_usual_allocator_error"] = _figure(planned, measured, goal=None)
    report(figures, machine("torch", "transformers"), as_json=args.json)


def _figure(planned: float, measured: float, goal: float | None) -> Figure:
    return Figure(
        value=round(abs(planned / measured - 1), 3),
        goal=goal,
        better="lower",
        against="peak resident memory",
        note=f"planned {planned:.0f} MiB, measured {measured:.0f}",
    )


def run(system: str, settings: dict[str, Any]) -> float:
    """Runs one workload; MiB that it took at its most."""
    torch.set_num_threads(1)
    config, work = _config(system), Workload(dtype=torch.float32, **settings)
    _work(config, Workload(dtype=torch.float32, text_tokens=4, new_tokens=2, train=work.train))  # loads the libraries
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    before = resident_mib()
    _work(config, work)
    return peak_mib() - before


def _config(system: str) -> AvllmConfig:
    name, overrides = SYSTEMS[system]
    return AvllmConfig.from_yaml(name, overrides)


def _work(config: AvllmConfig, work: Workload) -> None:
    model = AvllmForConditionalGeneration(config)
    media, ids = {}, []
    for name, branch in config.parsed().branches.items():
        settings: Any = branch.media
        count = (work.num_frames or settings.num_frames) if name == "video" else settings.num_segments
        media[name] = torch.zeros(work.batch, count, *settings.frame_shape)
        ids += [config.slot_ids()[name]] * branch.num_tokens(media[name].shape[1:])
    if work.train:
        _train(model, torch.tensor([ids + [5] * (work.text_tokens + work.new_tokens)] * work.batch), media, work)
    else:
        prompt = torch.tensor([ids + [5] * work.text_tokens] * work.batch)
        lengths = {"max_new_tokens": work.new_tokens, "min_new_tokens": work.new_tokens}
        mask = _padded(prompt, "left")
        model.eval().generate(prompt, attention_mask=mask, media=media, do_sample=False, **lengths)


def _train(
    model: AvllmForConditionalGeneration, ids: torch.Tensor, media: dict[str, torch.Tensor], work: Workload
) -> None:
    labels = ids.clone()
    labels[:, : -work.new_tokens] = -100
    mask = _padded(ids, "right")
    # As `avllm train` does it.
    optimiser = torch.optim.AdamW(trained_parameters(model, work), lr=1e-5, fused=True)
    for _ in range(2):  # the optimiser's state is there from the second step on
        loss = model.train()(input_ids=ids, attention_mask=mask, labels=labels, media=media).loss
        assert loss is not None
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def _padded(ids: torch.Tensor, side: str) -> torch.Tensor:
    """A mask for rows of which all but the first are a token shorter, as rows of a batch differ in length."""
    mask = torch.ones_like(ids)
    mask[1:, 0 if side == "left" else -1] = 0
    return mask


if __name__ == "__main__":
    main()
