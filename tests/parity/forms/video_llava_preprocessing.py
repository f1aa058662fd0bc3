"""The form `preprocessing` of Video-LLaVA: images, videos and the table of frame indices."""

import re
from dataclasses import replace
from pathlib import Path

from einops import rearrange
from safetensors.numpy import load_file

from avllm.media import Sampling
from tests.parity.check import Check
from tests.parity.common import read_json
from tests.parity.pictures import pixels, published, stride

TOLERANCE = 1e-5
INDICES = "frame_indices_duration_numframes"


def recognises(folder: Path) -> bool:
    """Whether the case holds this form's table of indices."""
    path = folder / "config.json"
    return path.is_file() and INDICES in read_json(path)


def run(folder: Path, check: Check) -> None:
    """One row for every tensor, and the indices."""
    case = read_json(folder / "config.json")
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    got, expected = [], []
    for key, indices in case[INDICES].items():
        total, num_frames = map(int, key.split("_"))
        got.append(list(Sampling(kind="linspace", num_frames=num_frames).indices(total, 25.0)))
        expected.append(indices)
    check.same("frame_indices", got, expected)
    shapes = [tensor.tolist() for key, tensor in outputs.items() if key.endswith(".shape")]
    settings = published("video_llava", mean=tuple(case["mean"]), std=tuple(case["std"]))
    settings = replace(settings, size=shapes[0][-1] if shapes else settings.size)
    for key, theirs in outputs.items():
        name, step = key.partition(".")[0], stride(key)
        if re.search(r"\.antialias\b", key):
            check.skip(key, "what later libraries compute; the published ones do not smooth images")
            continue
        if name.startswith("image"):
            own = replace(settings, image_resize="pad", pad_color="mean") if ".pad." in key else settings
            ours = pixels(inputs[name], "image", own)[0]
        else:
            ours = rearrange(pixels(inputs[name], "video", settings, sampling="all"), "t c h w -> c t h w")
        if key.endswith(".shape"):
            check.same(key, list(ours.shape), theirs.tolist())
        else:
            check.close(key, ours[..., ::step, ::step], theirs, atol=TOLERANCE)
