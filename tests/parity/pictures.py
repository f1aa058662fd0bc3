"""Pictures of a case through the package's own reading, under the settings of the published systems."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avllm import media
from avllm.model.configuration import Frames
from avllm.model.reading import read_image, read_video
from tests.parity.check import Check
from tests.parity.common import Row

PUBLISHED = {
    "videochat": Frames(
        sampling="half_step", resize="crop", resample="bicubic", crop_offset="round", image_resize="squash"
    ),
    "videollama2": Frames(sampling="middle", max_frames=32, source_fps=3, resize="crop", resample="bicubic"),
    "video_llava": Frames(
        sampling="linspace",
        resize="crop",
        resample="float_bilinear",
        image_resample="float_bicubic",
        crop_offset="round",
    ),
    "video_llava_hf": Frames(sampling="uniform", resize="crop", resample="bicubic"),
}


def published(system: str, **changes: Any) -> Frames:
    """Settings of a system at other sizes."""
    return replace(PUBLISHED[system], **changes)


def pixels(
    source: np.ndarray | Tensor | Path,
    kind: Literal["image", "video"],
    settings: Frames,
    *,
    sampling: str | None = None,
    quirks: tuple[str, ...] = (),
    **options: Any,
) -> Tensor:
    """What the encoder of a system takes, [t c h w].

    Args:
        source: RGB u8 [h w 3] or [t h w 3], or a folder.
        kind: what to read it as.
        settings: of the video branch.
        sampling: in place of the system's; "all" takes the frames as they are.
        quirks: published faults that the case holds.
        options: other fields of `avllm.media.Sampling`.
    """
    opened: Any = source.numpy() if isinstance(source, Tensor) else source
    if kind == "image":
        return read_image(media, settings, opened, options, branch="video").values
    options["sampling"] = sampling
    return read_video(media, settings, opened, options, branch="video", quirks=quirks).values


def of_processor(system: str, processor: Mapping[str, Any]) -> Frames:
    """Settings of an image processor of `transformers`, as its JSON states them."""
    size, crop = processor["size"], processor.get("crop_size", {})
    side = size.get("shortest_edge") or size["height"]
    if processor.get("resample") != 3 or any(value != side for value in (*size.values(), *crop.values())):
        raise ValueError(f"expected bicubic resampling to one square size, got {size}, {crop}")
    return published(
        system,
        size=side,
        resize="crop" if "shortest_edge" in size else "squash",
        mean=tuple(processor["image_mean"]),
        std=tuple(processor["image_std"]),
    )


def stride(name: str) -> int:
    """Which pixels a tensor holds: `every4` and `stride7` in its name; 1 if all."""
    found = re.search(r"(?:every|stride)(\d+)", name)
    return int(found[1]) if found else 1


def close_pixels(check: Check, name: str, ours: Any, theirs: Any) -> None:
    """Bytes that differ by 1 at most, and in fewer than one of 200: rounding differs between versions of Pillow."""
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
    if ours.shape != theirs.shape:
        check.same(name, list(ours.shape), list(theirs.shape))
        return
    difference = (ours.int() - theirs.int()).abs()
    most, share = float(difference.max()), float((difference > 0).double().mean())
    check.rows.append(Row(name, most, "1 in 0.5 %", most <= 1 and share < 0.005))


def close_within_steps(
    check: Check, name: str, ours: Any, theirs: Any, std: tuple[float, ...], *, steps: int = 2
) -> None:
    """Normalised pixels that differ by a few steps of 1/255 at most, and by a quarter of that on average.

    Two steps are between resizers that round at other points; one is between builds of Pillow.
    """
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
    if ours.shape != theirs.shape:
        check.same(name, list(ours.shape), list(theirs.shape))
        return
    step, difference = steps / 255 / min(std), (ours - theirs).abs()
    most, mean = float(difference.max()), float(difference.mean())
    ok = most <= step + 1e-5 and mean <= step / 4
    check.rows.append(Row(name, most, f"{step:.2g}, on average {step / 4:.2g}", ok))
