"""The form `sampling`: frame indices, the sentence about times, pixels to model input, captions cleaned."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from avllm.data.captions import clean_caption
from avllm.media import Sampling, crop_and_resize, open_image, time_message, to_pixels
from avllm.model.configuration import Frames
from avllm.model.processing import AvllmProcessor
from tests.parity.check import Check
from tests.parity.common import Row
from tests.parity.pictures import close_within_steps

EVALUATION, CROP = 1e-6, 1e-3


def run(folder: Path) -> list[Row]:
    """Checks sampling.json exactly, and the tensors."""
    check = Check()
    case = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_indices(json.loads((folder / "sampling.json").read_text(encoding="utf-8")), check)
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    check_frames(case, inputs, outputs, check)
    check_crop(case, inputs, outputs, check)
    for key in (key for key in outputs if key.startswith("image_eval")):
        image = open_image(inputs["image_uint8"], size=outputs[key].shape[1:])
        close_within_steps(check, key, normalise(case, image.frames)[0], outputs[key], tuple(case["std"]), steps=1)
    for row in case.get("caption_processor", []):
        got = clean_caption(row["raw"], max_words=row["max_words"])
        check.same(f"caption {row['raw'][:12]!r}", got, row["out"])
    compared = {row.name for row in check.rows}
    for key in outputs.keys() - compared:
        check.same(key, "not computed by the adapter", "a stored tensor")
    return check.rows


def check_indices(stored: dict[str, Any], check: Check) -> None:
    """Uniform with its message, head and tail, and the sizes for which the original returns too many."""
    rows = stored["uniform"]
    picked = [Sampling(num_frames=r["n_frms"]).indices(r["total_frames"], r["fps"]) for r in rows]
    check.same("uniform.indices", [list(p) for p in picked], [r["indices"][: r["n_frms"]] for r in rows])
    messages = [time_message(p, r["fps"]) for p, r in zip(picked, rows, strict=True)]
    whole = [place for place, r in enumerate(rows) if len(r["indices"]) <= r["n_frms"]]
    check.same("uniform.message", [messages[i] for i in whole], [rows[i]["message"] for i in whole])
    rows = stored["headtail"]
    samplings = [Sampling(kind="head_tail", num_frames=r["n_frms"], seed=r["seed"]) for r in rows]
    got = [list(s.indices(r["total_frames"], 25.0)) for s, r in zip(samplings, rows, strict=True)]
    check.same("headtail.indices", got, [r["indices"] for r in rows])
    # The original gives one index more than asked here; the right number is n, and none past the end.
    rows = stored["uniform_overflow_examples"]
    got = [Sampling(num_frames=n).indices(total, 25.0) for n, total, *_ in rows]
    check.same("uniform.count", [len(p) for p in got], [n for n, *_ in rows])
    check.same(
        "uniform.past_end", [p[-1] < total for p, (_, total, *_) in zip(got, rows, strict=True)], [True] * len(rows)
    )


def check_frames(case: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any], check: Check) -> None:
    """Frames as an encoder takes them; stored as (c, t, h, w)."""
    got = normalise(case, inputs["frames_uint8"]).swapaxes(0, 1)
    check.close("video_eval", got, outputs["video_eval"], rtol=0, atol=EVALUATION)
    floats = np.moveaxis(inputs["frames_float"], 0, -1)
    got = normalise(case, floats.astype(np.uint8)).swapaxes(0, 1)
    check.close("video_eval_from_float", got, outputs["video_eval_from_float"], rtol=0, atol=EVALUATION)


def check_crop(case: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any], check: Check) -> None:
    """The crop of the training recipes, with a given place."""
    crop = case["train_crop"]
    cut = crop_and_resize(inputs["frames_uint8"], (crop["i"], crop["j"], crop["h"], crop["w"]), tuple(crop["size"]))
    expected = outputs["video_train_crop_float"]
    check.close("video_train_crop_float", np.moveaxis(cut, -1, 0), expected, rtol=0, atol=CROP)
    # Overshoot wraps in the original, by platform; where there is none, a value next to a whole number may fall to
    # either side of it, which is one step of 1/255.
    inside = (expected > 0) & (expected < 255)
    got = normalise(case, to_pixels(cut)).swapaxes(0, 1)
    step = 1 / 255 / min(case["std"]) + EVALUATION
    check.close("video_train", got[inside], outputs["video_train"][inside], rtol=0, atol=step)


def normalise(case: dict[str, Any], frames: np.ndarray) -> np.ndarray:
    """The processor's own normalisation under the case's mean and deviation: [t c h w]."""
    settings = Frames(mean=tuple(case["mean"]), std=tuple(case["std"]))
    processor: Any = SimpleNamespace(_branch=lambda name: SimpleNamespace(media=settings))
    return AvllmProcessor.normalise(processor, torch.from_numpy(frames.copy())).numpy()
