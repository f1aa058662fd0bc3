"""What features of many clips would cost: storage, core-hours of decoding, GPU-hours, and what an epoch reads.

    python -m benchmarks.scale [--json] [--clips 10000000] [--tflops 790] [--efficiency 0.4]

Arithmetic and sizes are counted on the published systems without weights (meta device). Decoding is measured here, in
seconds of one core: 8 frames of a clip of 20 s, 640 x 360, 30 frames/s, H.264. The speed of a GPU is an argument, not a
measurement.
"""

import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from avllm.media import Sampling, open_video, write_video
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, Branch
from avllm.training import freeze
from benchmarks.common import Figure, arguments, interleaved, machine, median, report
from benchmarks.decode import FPS, SIDE, moving
from benchmarks.features import TRAINED

SYSTEMS = ("video_llama_7b", "videochat_7b", "video_llava_7b", "videollama2_1_7b_16f")
CLIP_SECONDS, TEXT_TOKENS = 20, 32


def main() -> None:
    parser = arguments("What features of many clips would cost.")
    parser.add_argument("--clips", type=float, default=1e7, help="how many (default: 10 million)")
    parser.add_argument("--tflops", type=float, default=790.0, help="of a GPU, bf16 (default: 790, an H200)")
    parser.add_argument("--efficiency", type=float, default=0.4, help="share of them that is reached (default: 0.4)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    decode_s = decode_seconds(args.rounds)
    hours = args.clips / 3600
    figures = {
        "decode_s_per_clip": Figure(value=decode_s, better="lower", note="processor time, measured here"),
        "decode_core_hours": Figure(value=decode_s * hours, better="lower", note=f"for {args.clips:.0f} clips"),
    }
    for name in SYSTEMS:
        tflop, kib = clip_cost(name)
        gpu_s = tflop / (args.tflops * args.efficiency)
        note = f"{kib * args.clips / 2**30:.1f} TiB for {args.clips:.0f} clips in fp16"
        figures[f"{name}_kib_per_clip"] = Figure(value=kib, better="lower", note=note)
        note = f"{gpu_s * hours:.0f} GPU-hours at {args.efficiency:.0%} of {args.tflops:.0f} TFLOP/s"
        figures[f"{name}_tflop_per_clip"] = Figure(value=tflop, better="lower", note=note)
        figures[f"{name}_cores_per_gpu"] = Figure(
            value=decode_s / gpu_s, note="cores that decode as fast as it encodes"
        )
    whole, stored = step_cost("video_llama_7b")
    note = f"stage 1: {whole:.2f} TFLOP a sample from frames, {stored:.2f} from features"
    figures["video_llama_7b_step_gain"] = Figure(value=whole / stored, against="the same step from frames", note=note)
    report(figures, machine("torch", "transformers", "av"), as_json=args.json)


def decode_seconds(rounds: int) -> float:
    """Processor seconds, over all threads, that opening and sampling a clip takes."""

    def decode() -> float:
        started = time.process_time()
        open_video(path, Sampling(num_frames=8), size=(SIDE, SIDE))
        return time.process_time() - started

    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", moving(CLIP_SECONDS * FPS), FPS, gop=250, threads=2)
        return median(interleaved({"decode": decode}, rounds + 1)["decode"][1:])


def clip_cost(name: str) -> tuple[float, float]:
    """TFLOP of the frozen part of the video branch for one clip, and KiB of its features in fp16."""
    config = AvllmConfig.from_yaml(name)
    about = config.parsed().branches["video"]
    with torch.device("meta"):
        branch = Branch(about, out_width=config.text_config.hidden_size).eval().requires_grad_(False)
        frames = torch.empty(1, about.media.num_frames, *about.media.frame_shape)
        with FlopCounterMode(display=False) as counter:
            features = branch.features(frames)
    return counter.get_total_flops() / 1e12, features.numel() * 2 / 2**10


def step_cost(name: str) -> tuple[float, float]:
    """TFLOP of a step of stage 1 for one sample of the text's length, from frames and from features."""
    config = AvllmConfig.from_yaml(name)
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(config)
        freeze(model, TRAINED)
        branch, about = model.branches["video"], config.parsed().branches["video"]
        features = branch.features(torch.empty(1, about.media.num_frames, *about.media.frame_shape))
        with FlopCounterMode(display=False) as counter:
            text = torch.empty(1, TEXT_TOKENS, config.text_config.hidden_size)
            embeds = torch.cat([branch.tokens(features), text], dim=1)
            length = embeds.shape[1]
            mask = torch.zeros(1, 1, length, length)  # made here: transformers reads values, meta has none
            model.decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits.sum().backward()
    stored = counter.get_total_flops() / 1e12
    return stored + clip_cost(name)[0], stored


if __name__ == "__main__":
    main()
