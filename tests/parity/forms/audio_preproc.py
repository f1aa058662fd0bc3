"""The form `audio_preproc`: wav files through our door, resampler, log-mel and segments."""

import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from avllm.media import Audio, SegmentConfig, audio_segments, log_mel, open_audio
from avllm.media.mel import segment_ranges
from tests.parity.check import Check
from tests.parity.common import Row

NORMALIZED, RAW, STATISTICS, WAVEFORM = 5e-4, 2e-3, 1e-5, 1e-5
TIMINGS = {"sampler_0_1_5": "pytorchvideo-0.1.5", "sampler_git": "git"}
MEL = re.compile(
    r"mel(?P<count>\d*)(?P<variant>_gitsampler|_clean)?(?P<what>_sub|_clip_mean|_clip_std|_full|_first_clip_full)"
)


def run(folder: Path) -> list[Row]:
    """Checks every stored tensor, the sample ranges of each file, and the table of ranges."""
    check = Check()
    case = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = segment_config(case)
    outputs = load_file(folder / "outputs.safetensors")
    sounds = {path.stem: open_audio(path, sample_rate=case["sample_rate"]) for path in (folder / "wav").glob("*.wav")}
    case["raw_file"] = raw_file(folder, sounds)
    for name, facts in case["files"].items():
        check_file(name, sounds[name], facts, config, check)
    for key, expected in outputs.items():
        check_tensor(key, expected, sounds, case, config, check)
    table = folder / "clip_table.json"
    if table.exists():
        check_table(json.loads(table.read_text(encoding="utf-8")), config, check)
    return check.rows


def raw_file(folder: Path, names: Collection[str]) -> str:
    """The file whose raw log-mel is stored: only the README names it; the first one if that file is not there."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    found = re.search(r"`fbank_raw_half_second`[^`]*? of (\w+)", text)
    return found[1] if found is not None and found[1] in names else min(names)


def segment_config(case: dict[str, Any]) -> SegmentConfig:
    """The case's settings as ours."""
    return SegmentConfig(
        num_segments=case["clips_per_video"],
        segment_seconds=float(case["clip_duration"]),
        sample_rate=case["sample_rate"],
        num_mel_bins=case["num_mel_bins"],
        num_frames=case["target_length"],
        mean=case["mean"],
        std=case["std"],
    )


def check_file(name: str, audio: Audio, facts: dict[str, Any], config: SegmentConfig, check: Check) -> None:
    """Counts after resampling, and the ranges that the segments take."""
    shape = (facts["channels"], facts["samples_at_16k"])
    check.same(f"{name}.shape", list(audio.waveform.shape), list(shape))
    for key, value in facts.items():
        found = re.fullmatch(r"timepoints(\d+)_samples(_gitsampler)?", key)
        if found:
            own = replace(config, num_segments=int(found[1]), timing="git" if found[2] else config.timing)
            check.same(f"{name}.{key}", [list(span) for span in segment_ranges(shape[1], own)], value)


def check_tensor(
    key: str, expected: np.ndarray, sounds: dict[str, Audio], case: dict[str, Any], config: SegmentConfig, check: Check
) -> None:
    """One stored tensor: a resampled channel, raw log-mel, or (part of) normalized segments."""
    if key == "fbank_raw_half_second":
        waveform = sounds[case["raw_file"]].waveform[0]
        half = (waveform - waveform.mean())[: case["sample_rate"] // 2]
        check.close(key, log_mel(half, case["sample_rate"], case["num_mel_bins"]), expected, rtol=0, atol=RAW)
        return
    name, _, what = key.partition(".")
    channel = re.fullmatch(r"resampled_ch(\d+)", what)
    if channel:
        check.close(key, sounds[name].waveform[int(channel[1])], expected, rtol=0, atol=WAVEFORM)
        return
    found = MEL.fullmatch(what)
    if found is None:
        check.same(key, "a tensor that this form does not know", what)
        return
    is_first, counts = found["what"] == "_first_clip_full", case["other_clip_count"]
    num_segments = int(found["count"] or (counts if is_first else config.num_segments))
    timing = "git" if found["variant"] == "_gitsampler" else config.timing
    own = replace(config, num_segments=num_segments, timing=timing)
    segments = audio_segments(sounds[name], own) if found["variant"] == "_clean" else as_published(sounds[name], own)
    flat = segments.reshape(len(segments), -1).astype(np.float64)
    if found["what"] == "_clip_mean":
        check.close(key, flat.mean(axis=1)[None], expected, rtol=0, atol=STATISTICS)
    elif found["what"] == "_clip_std":
        check.close(key, flat.std(axis=1, ddof=1)[None], expected, rtol=0, atol=STATISTICS)
    else:
        bins, frames = (int(step) for step in re.findall(r"::(\d+)", case["subsample"])[:2])
        got = segments[None][..., ::bins, ::frames] if found["what"] == "_sub" else segments[None]
        check.close(key, got[:, : expected.shape[1]], expected, rtol=0, atol=NORMALIZED)


def as_published(audio: Audio, config: SegmentConfig) -> np.ndarray:
    """Segments with the published fault, for the tensors that hold it: the mean is subtracted in place.

    Overlapping segments then see a waveform that earlier ones have shifted. Everything else is ours.
    """
    waveform = audio.waveform.copy()
    result = np.zeros((config.num_segments, 1, config.num_mel_bins, config.num_frames), np.float32)
    for picture, (begin, end) in zip(result, segment_ranges(waveform.shape[1], config), strict=True):
        part = waveform[:, begin:end]
        part -= part.mean()
        rows = log_mel(part[0], config.sample_rate, config.num_mel_bins)[: config.num_frames]
        picture[0, :, : len(rows)] = rows.T
    return (result - np.float32(config.mean)) / np.float32(config.std)


def check_table(table: dict[str, Any], config: SegmentConfig, check: Check) -> None:
    """Sample ranges for many lengths and counts."""
    for key, timing in TIMINGS.items():
        got, expected = [], []
        for row in table["rows"]:
            own = replace(config, num_segments=row["clips"], timing=timing)
            got.append([list(span) for span in segment_ranges(row["samples_at_16k"], own)])
            expected.append(row[key])
        check.same(f"clip_table.{key}", got, expected)
