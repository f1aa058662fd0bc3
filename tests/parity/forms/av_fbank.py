"""The form `av_fbank` of VideoLLaMA 2.1-AV: the filter bank of files of sound and of the sound of videos."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from avllm.media import Audio, FbankConfig, SegmentConfig, fbank_of, log_mel
from avllm.media.mel import segment_ranges
from tests.parity.check import Check
from tests.parity.common import Row, read_json

FP32, MEANS, NOISE = 5e-4, 5e-3, 0.5
NOISE_BELOW = -8.0  # rounding of the resampler, in log-mel


def recognises(folder: Path) -> bool:
    """Whether the case tells a filter bank and clips of videos."""
    path = folder / "config.json"
    return path.is_file() and {"fbank", "target_seconds"} <= set(read_json(path))


def run(folder: Path, check: Check) -> None:
    """One row for every tensor, and one for the table of clips."""
    case = read_json(folder / "config.json")
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    raw = case["fbank"]
    # Raw log-mel: no normalization.
    config = FbankConfig(
        seconds=case["target_seconds"],
        sample_rate=raw["sample_frequency"],
        num_mel_bins=raw["num_mel_bins"],
        mean=0.0,
        std=1.0,
    )
    pictures = {name: picture(name, inputs, config) for name in {key.split(".")[0] for key in inputs}}
    for key, theirs in outputs.items():
        name, _, what = key.rpartition(".")
        if name in pictures:
            is_resampled = rate_of(name, inputs, config) != config.sample_rate
            compare_file(key, what, pictures[name], theirs, check, has_noise=is_resampled)
        elif key.startswith("fbank_"):
            own = key.replace("fbank_", "wave_")
            rows = pictures[own if own in pictures else "wave_16k"]
            is_rounded = "bf16" in key
            compare(key, rounded(rows) if is_rounded else rows, theirs, check, is_rounded=is_rounded)
        else:
            check.same(key, "not computed by the adapter", "a stored tensor")
    for name, table in case.items():
        found = re.fullmatch(r"clip_timepoints_(?P<seconds>[\d.]+)s_(?P<count>\d+)clips", name)
        if found is not None:
            compare_clips(name, float(found["seconds"]), int(found["count"]), table, config, check)


def picture(name: str, inputs: dict[str, np.ndarray], config: FbankConfig) -> np.ndarray:
    """Log-mel [n f] of an input: a waveform as it is, a file or a video as the reading of media has it."""
    if name in inputs:
        return log_mel(inputs[name] * 2.0**15, config.sample_rate, config.num_mel_bins, window="povey")
    samples = np.atleast_2d((inputs[f"{name}.pcm_int16"] / 2.0**15).astype(np.float32).T)
    audio = Audio(waveform=samples, sample_rate=rate_of(name, inputs, config))
    return fbank_of(audio, config, is_video=name.startswith("video"))[0, 0].T


def rate_of(name: str, inputs: dict[str, np.ndarray], config: FbankConfig) -> int:
    """Hz of an input; those that do not say are at the rate of the pictures."""
    return int(inputs.get(f"{name}.sr", np.array(config.sample_rate)))


def rounded(values: np.ndarray) -> np.ndarray:
    """Through bfloat16, in which the published preprocessing hands them out."""
    return torch.from_numpy(np.ascontiguousarray(values)).bfloat16().float().numpy()


def compare_file(key: str, what: str, rows: np.ndarray, theirs: np.ndarray, check: Check, *, has_noise: bool) -> None:
    """A part of the picture of a file."""
    found = re.fullmatch(r"(?P<part>shape|last|first|every|frame_mean_every)(?P<count>\d*)", what)
    if found is None:
        check.same(key, "not computed by the adapter", "a stored tensor")
        return
    ours, count = rounded(rows), int(found["count"] or 1)
    match found["part"]:
        case "shape":
            check.same(key, [1, *ours.shape], theirs.tolist())
        case "frame_mean_every":
            check.close(key, ours[::count].mean(axis=1), theirs, atol=MEANS)
        case part:
            kept = {"last": ours[-1], "first": ours[:count], "every": ours[::count]}[part]
            compare(key, kept, theirs, check, is_rounded=True, has_noise=has_noise)


def compare(
    key: str, ours: np.ndarray, theirs: np.ndarray, check: Check, *, is_rounded: bool, has_noise: bool = False
) -> None:
    """Within the tolerance that the case states: of rounded values one step of bfloat16, at least 1/16."""
    if not is_rounded or ours.shape != theirs.shape:
        check.close(key, ours, theirs, atol=FP32)
        return
    allowed = np.maximum(2.0 ** (np.floor(np.log2(np.abs(theirs) + 1e-9)) - 7), 0.0625)
    if has_noise:
        allowed = np.where(theirs < NOISE_BELOW, NOISE, allowed)
    error = np.abs(ours - theirs)
    ok = bool((error <= allowed).all())
    check.rows.append(Row(key, float(error.max()), "one step of bfloat16, at least 0.0625", ok))


def compare_clips(
    name: str, clip_seconds: float, count: int, table: dict[str, Any], config: FbankConfig, check: Check
) -> None:
    """Begin and end of the clips of videos of many lengths, as exact as whole samples are."""
    settings = SegmentConfig(num_segments=count, segment_seconds=clip_seconds, sample_rate=config.sample_rate)
    for seconds, times in table.items():
        spans = segment_ranges(round(float(seconds) * config.sample_rate), settings)
        ours = np.array(spans) / config.sample_rate
        check.close(f"{name}.{seconds}", ours, np.array(times), atol=1.5 / config.sample_rate)
