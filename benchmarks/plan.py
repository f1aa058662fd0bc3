"""`avllm plan` against what the same workload really takes, on mid-size systems with random weights.

    python -m benchmarks.plan [--json]

Each workload runs in a process of its own. Measured is the memory of the process at its most, less what it held before
the model was built. What PyTorch's kernels take for themselves counts there and not in the plan. Freed memory goes back
to the system at once (a setting of the C library), or its holes would count, too.
"""

import argparse
import json
import os
from typing import Any

import torch

from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from avllm.model.plan import Workload, plan
from benchmarks.common import Figure, arguments, in_child, machine, peak_mib, report, resident_mib

# Video-LLaMA with a ViT of 640 x 12 and a LLaMA of 1024 x 12: 260 M parameters, about a gigabyte in float32.
MID_SIZE = (
    *("branches.video.encoder.width=640", "branches.video.encoder.depth=12", "branches.video.encoder.num_heads=10"),
    *("branches.audio.encoder.audio.depth=2", "branches.audio.encoder.vision.depth=2"),
    *("branches.audio.encoder.audio.width=256", "branches.audio.encoder.vision.width=320"),
    *("branches.audio.encoder.audio.num_heads=4", "branches.audio.encoder.vision.num_heads=4"),
    *("decoder.hidden_size=1024", "decoder.intermediate_size=2816", "decoder.num_hidden_layers=12"),
    *("decoder.num_attention_heads=16", "decoder.num_key_value_heads=16"),
)
WORKLOADS: dict[str, dict[str, Any]] = {
    "answer": {"text_tokens": 900, "new_tokens": 32, "batch": 2},
    "answer_32_frames": {"text_tokens": 200, "new_tokens": 16, "num_frames": 32, "batch": 2},
    "train_connectors": {"text_tokens": 64, "new_tokens": 128, "batch": 4, "train": "connectors"},
    "train_all": {"text_tokens": 64, "new_tokens": 128, "batch": 2, "train": "all"},
}


def main() -> None:
    parser = arguments("The plan of memory against the memory taken.")
    parser.add_argument("--run", choices=WORKLOADS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps({"mib": run(WORKLOADS[args.run])}))
        return
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    config = AvllmConfig.from_yaml("video_llama_7b", MID_SIZE)
    figures = {}
    for name, settings in WORKLOADS.items():
        planned = plan(config, Workload(dtype=torch.float32, **settings)).total / 2**20
        measured = in_child("benchmarks.plan", "--run", name)["mib"]
        figures[f"{name}_error"] = Figure(
            value=round(abs(planned / measured - 1), 3),
            goal=0.1,
            better="lower",
            against="peak resident memory",
            note=f"planned {planned:.0f} MiB, measured {measured:.0f}",
        )
    report(figures, machine("torch", "transformers"), as_json=args.json)


def run(settings: dict[str, Any]) -> float:
    """Runs one workload; MiB that it took at its most."""
    work = Workload(dtype=torch.float32, **settings)
    torch.ones(64, 64) @ torch.ones(64, 64)  # libraries that load at the first product
    before = resident_mib()
    config = AvllmConfig.from_yaml("video_llama_7b", MID_SIZE)
    model = AvllmForConditionalGeneration(config)
    media, ids = {}, []
    for name, branch in config.parsed().branches.items():
        settings_of: Any = branch.media
        count = (work.num_frames or settings_of.num_frames) if name == "video" else settings_of.num_segments
        media[name] = torch.zeros(work.batch, count, *settings_of.frame_shape)
        ids += [config.slot_ids()[name]] * branch.num_tokens(media[name].shape[1:])
    if work.train:
        _train(model, torch.tensor([ids + [5] * (work.text_tokens + work.new_tokens)] * work.batch), media, work)
    else:
        prompt = torch.tensor([ids + [5] * work.text_tokens] * work.batch)
        lengths = {"max_new_tokens": work.new_tokens, "min_new_tokens": work.new_tokens}
        model.eval().generate(prompt, media=media, do_sample=False, **lengths)
    return peak_mib() - before


def _train(
    model: AvllmForConditionalGeneration, ids: torch.Tensor, media: dict[str, torch.Tensor], work: Workload
) -> None:
    labels = ids.clone()
    labels[:, : -work.new_tokens] = -100
    for name, parameter in model.named_parameters():
        parameter.requires_grad = work.train == "all" or (name.startswith("branches.") and ".connector." in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5)
    for _ in range(2):  # the optimiser's state is there from the second step on
        loss = model.train()(input_ids=ids, labels=labels, media=media).loss
        assert loss is not None
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


if __name__ == "__main__":
    main()
