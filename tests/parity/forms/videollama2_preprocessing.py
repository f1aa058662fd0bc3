"""The form `preprocessing` of VideoLLaMA 2: frames, images and folders through both image processors."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

from avllm.media import Fit, Limits, Sampling, fit_picture
from avllm.model.configuration import Frames
from tests.parity.check import Check
from tests.parity.common import read_json
from tests.parity.pictures import close_within_steps, of_processor, pixels

QUIRKS = ("cut_long_videos", "window_starts_early")
DIRECTORY = re.compile(r"dir(?:\.s(?P<start>[\d.]+)_e(?P<end>[\d.]+))?\.(?:fps|uniform(?P<count>\d+))")
MEDIUM = re.compile(r"(?P<kind>short_video|video|image)(?P<index>\d+)")


def recognises(folder: Path) -> bool:
    """Whether the case names this form's processors."""
    path = folder / "config.json"
    return path.is_file() and "clip_processor" in read_json(path)


def run(folder: Path, check: Check) -> None:
    """One row for every tensor."""
    case = read_json(folder / "config.json")
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    for key, theirs in outputs.items():
        if key == "photo_grid":
            check.skip(key, "frames side by side in one picture, which no published model was trained on")
        elif key.startswith("expand2square"):
            processor = key.rpartition(".")[2].removesuffix("_mean")
            check_padding(key, case[f"{processor}_processor"], inputs, theirs, check)
        else:
            source, processor, aspect = key.rsplit(".", 2)
            settings = of_processor("videollama2", case[f"{processor}_processor"])
            if aspect == "pad":
                settings = replace(settings, resize="pad", pad_color="mean")
            ours, expected = frames_of(source, settings, inputs, theirs)
            close_within_steps(check, key, ours, expected, settings.std)


def frames_of(
    source: str, settings: Frames, inputs: dict[str, np.ndarray], theirs: np.ndarray
) -> tuple[torch.Tensor, np.ndarray]:
    """Ours and what they shall be."""
    folder, medium = DIRECTORY.fullmatch(source), MEDIUM.fullmatch(source)
    if folder:
        return from_folder(folder, settings, inputs["dir_frames"]), theirs
    if medium is None:
        raise ValueError(f"{source}: a source that this form does not know")
    frames = inputs[f"frames{medium['index']}"]
    if medium["kind"] == "image":
        return pixels(frames[0], "image", settings), theirs
    if medium["kind"] == "video":
        return pixels(frames, "video", settings, sampling="all"), theirs
    # The published code fills short videos with black frames (and swaps height and width of some); ours repeats frames.
    count = len(theirs)
    indices = Sampling(kind="middle", num_frames=count).indices(len(frames), settings.source_fps)
    return pixels(frames, "video", settings, num_frames=count), theirs[list(indices)]


def from_folder(found: re.Match[str], settings: Frames, frames: np.ndarray) -> torch.Tensor:
    """The frames of a folder of PNG files."""
    options: dict[str, Any] = {"num_frames": int(found["count"])} if found["count"] else {"sampling": "fps", "fps": 1.0}
    if found["start"] is not None:
        options |= {"start_s": float(found["start"]), "end_s": float(found["end"])}
    with tempfile.TemporaryDirectory() as name:
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(Path(name) / f"{number:05d}.png")
        return pixels(Path(name), "video", settings, quirks=QUIRKS, **options)


def check_padding(
    key: str, processor: dict[str, Any], inputs: dict[str, np.ndarray], theirs: np.ndarray, check: Check
) -> None:
    """The square that a picture is laid on."""
    found = re.match(r"expand2square(\d+)", key)
    picture = inputs[f"frames{found[1] if found else 0}"][0]
    color = tuple(int(value * 255) for value in processor["image_mean"])
    side = max(picture.shape[:2])
    how = Fit(size=(side, side), resize="pad", resample="bicubic", pad_color=(color[0], color[1], color[2]))
    check.same(key, torch.from_numpy(fit_picture(picture, how, Limits()).copy()), torch.from_numpy(theirs))
