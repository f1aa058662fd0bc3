"""The form `preprocess` of VideoChat: sampling, messages about times, pixels of the demo and of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from avllm.media import Fit, Limits, Sampling, crop_and_resize, fit_picture, time_message, to_pixels
from avllm.model.configuration import Frames
from avllm.model.reading import normalise
from tests.parity.check import Check
from tests.parity.common import read_json
from tests.parity.pictures import close_pixels, close_within_steps, pixels, published, stride


def recognises(folder: Path) -> bool:
    """Whether the case holds this form's samplings."""
    path = folder / "sampling.json"
    return path.is_file() and "demo_get_index" in read_json(path)


def run(folder: Path, check: Check) -> None:
    """Checks sampling.json exactly, and the tensors."""
    case = read_json(folder / "config.json")
    check_indices(read_json(folder / "sampling.json"), check)
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    whole = [tensor.shape[-1] for key, tensor in outputs.items() if "uint8" in key]
    case["size"] = whole[0] if whole else published("videochat").size
    for key, theirs in outputs.items():
        if "_antialias" in key:
            check.skip(key, "what later libraries compute; the published ones do not smooth")
            continue
        settings = Frames(mean=tuple(case["demo_mean"]), std=tuple(case["demo_std"]))
        if key.startswith("train"):
            settings = Frames(mean=tuple(case["train_mean"]), std=tuple(case["train_std"]))
            frames = training_frames(case, inputs["video_frames"])
        else:
            frames = demo_frames(case, inputs, is_image="image" in key)
        if "uint8" in key:
            ours = np.moveaxis(frames, -1, 1)
            close_pixels(check, key, ours[0] if theirs.ndim == 3 else ours[: len(theirs)], theirs)
            continue
        ours, step = normalise(frames, settings), stride(key)
        ours = (ours[0] if theirs.ndim == 3 else ours)[..., ::step, ::step]
        close_within_steps(check, key, ours, theirs, settings.std, steps=1)
    for is_image in (False, True):
        check_reading(case, inputs, check, is_image=is_image)


def check_indices(stored: dict[str, Any], check: Check) -> None:
    """The demo's frames and message, and the three samplings of training."""

    def picked(sampling: Sampling, row: dict[str, Any]) -> list[int]:
        return list(sampling.indices(row["num_frames"], row.get("fps") or row.get("input_fps") or 25.0))

    rows = [*stored["demo_get_index"], *stored["timestamp_messages"]]
    got = [picked(Sampling(kind="half_step", num_frames=row["num_segments"]), row) for row in rows]
    check.same("demo_get_index", got, [row["indices"] for row in rows])
    rows = stored["timestamp_messages"]
    messages = [time_message(row["indices"], row["fps"]) for row in rows]
    check.same("demo_message", [text.strip() for text in messages], [row["demo_message"] for row in rows])
    check.same("train_message", [f" {text}" for text in messages], [row["train_message"] for row in rows])
    rows = stored["train_get_frame_indices"]
    got = [picked(Sampling(kind="interval_middle", num_frames=row["num_sample"]), row) for row in rows]
    check.same("train.middle", got, [row["middle"] for row in rows])
    check_random(rows, check)
    rows = stored["train_fps_sampling"]
    samplings = [
        Sampling(
            kind="fps_time",
            fps=float(row["sample"].removeprefix("fps")),
            max_frames=row["max_num_frames"] if row["max_num_frames"] > 0 else None,
            keep="first",
        )
        for row in rows
    ]
    got = [picked(sampling, row) for sampling, row in zip(samplings, rows, strict=True)]
    check.same("train.fps", got, [row["indices"] for row in rows])
    check.skip("caption_pre_text", "caption cleaning that all published configurations leave off")


def check_random(rows: list[dict[str, Any]], check: Check) -> None:
    """Random frames: as drawn with the seed where each interval has a choice, else within the intervals, in order."""
    exact, inside = [], []
    for row in rows:
        sampling = Sampling(kind="interval_random", num_frames=row["num_sample"], seed=row["rand_seed"])
        got = list(sampling.indices(row["num_frames"], 25.0))
        ranges = row["rand_half_open_ranges"]
        inside += [a <= i < max(b, a + 1) for i, (a, b) in zip(got, ranges, strict=False)]
        inside.append(got[len(ranges) :] == [got[len(ranges) - 1]] * (row["num_sample"] - len(ranges)))
        if not row["rand_uses_fallback_permutation"]:
            exact.append((got, row["rand_example"]))
    check.same("train.rand", [got for got, _ in exact], [theirs for _, theirs in exact])
    check.same("train.rand.ranges", all(inside), True)


def demo_frames(case: dict[str, Any], inputs: dict[str, np.ndarray], *, is_image: bool) -> np.ndarray:
    """The demo's picture before normalisation, [t h w 3]."""
    settings = published("videochat", num_frames=case["demo_num_segments"], size=case["size"])
    options = settings.fit_options("image" if is_image else "video")
    frames = inputs["image"][None] if is_image else inputs["video_frames"][case["demo_frame_indices"]]
    return np.stack([fit_picture(frame, Fit(**options), Limits()) for frame in frames])


def check_reading(case: dict[str, Any], inputs: dict[str, np.ndarray], check: Check, *, is_image: bool) -> None:
    """That the processor's reading gives the same frames."""
    settings = published("videochat", num_frames=case["demo_num_segments"], size=case["size"])
    frames = torch.from_numpy(demo_frames(case, inputs, is_image=is_image))
    kind = "image" if is_image else "video"
    got = pixels(inputs["image" if is_image else "video_frames"], kind, settings)
    check.close(f"reading.{kind}", got, normalise(frames, settings))


def training_frames(case: dict[str, Any], frames: np.ndarray) -> np.ndarray:
    """The case's cut out of every frame, enlarged and mirrored, as pixels."""
    crop, side = case["crop"], case["size"]
    box = (crop["top"], crop["left"], crop["height"], crop["width"])
    resized = to_pixels(crop_and_resize(frames, box, (side, side)) + np.float32(0.5))  # rounds
    return resized[:, :, ::-1].copy() if crop["then_flip"] else resized
