"""Weights of a Video-LLaVA that our encoder leaves out: a case must hold them all the same, in the right shapes."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from avllm.checkpoints import rename
from avllm.checkpoints.video_llava import tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from tests.parity.check import Check


def check_not_run(check: Check, weights: Mapping[str, Tensor], system: System, kind: str) -> None:
    """One row: the blocks behind the chosen layer of each tower, and the norm behind them.

    Args:
        check: takes the row.
        weights: of the case, under published names.
        system: of the case.
        kind: of its name tables.
    """
    video = system.branches["video"]
    towers = {name: replace(getattr(video.encoder, name), layer=-1) for name in ("image", "video")}
    whole = replace(video, encoder=replace(video.encoder, **towers))
    full = replace(system, branches={"video": whole})
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(AvllmConfig.from_system(full))
    expected = {name: tensor.shape for name, tensor in rename.unshared_state(model)[0].items()}
    renamed = rename.rename(weights, tables(full)[kind], source="weights.safetensors")
    faults = rename.problems(expected, renamed)
    for name in [name for name in weights if ".pre_layrnorm." in name]:
        behind = name.replace("pre_layrnorm", "post_layernorm")
        if behind not in weights:
            faults.append(f"missing {behind}")
        elif weights[behind].shape != weights[name].shape:
            faults.append(f"wrong shape {behind}: {list(weights[behind].shape)}")
    check.same("weights that are not run", faults, [])
