"""VideoChat put together of its three published files: where each weight comes from, and what the media become."""

from collections import Counter
from pathlib import Path

import torch

from avllm.checkpoints.rename import Table, join, load, published_names, rename
from avllm.checkpoints.videochat import system_from, tables
from avllm.model.modeling import Branch
from tests.parity.check import Check
from tests.parity.common import Row, read_json, read_tensors, ready

FILES = {
    "eva_vit_g": "eva_vit_g.safetensors",
    "blip2": "blip2_pretrained_flant5xxl.safetensors",
    "videochat": "videochat.safetensors",
}
TOLERANCE = 3e-5


def run(folder: Path, check: Check) -> None:
    """Loads the files, names what is left out and why, and encodes the clips of the case."""
    case = read_json(folder / "config.json")
    system = system_from(case)
    known = tables(system)
    files = {kind: rename(read_tensors(folder / name), known[kind], source=name) for kind, name in FILES.items()}
    for kind, renamed in files.items():
        for reason, count in Counter(renamed.dropped.values()).items():
            check.rows.append(Row(f"{kind}: left out", None, "", True, f"{count}: {reason}"))
    branch = ready(Branch(system.branches["video"], out_width=system.decoder["hidden_size"]))
    whole = torch.nn.ModuleDict({"branches": torch.nn.ModuleDict({"video": branch})})
    load(whole, join(*files.values()))
    check_sources(case, files, known["model"], check)
    outputs = read_tensors(folder / "outputs.safetensors")
    for name, frames in read_tensors(folder / "inputs.safetensors").items():
        with torch.no_grad():
            tokens = branch(frames)
        check.close(f"{name}.inputs_llama", tokens, outputs[f"{name}.inputs_llama"], atol=TOLERANCE)
        # Every media token is attended to: the mask follows from the number of slots.
        count = system.branches["video"].num_tokens(frames.shape[1:])
        check.same(f"{name}.atts_llama", torch.ones(len(frames), count).long(), outputs[f"{name}.atts_llama"])


def check_sources(case: dict, files: dict, table: Table, check: Check) -> None:
    """Which file filled each weight of the original model."""
    filled = {name: kind for kind, renamed in files.items() for name in renamed.state}
    found = {published_names(name, table)[0]: kind for name, kind in filled.items()}
    left_out = {name for renamed in files.values() for name in renamed.dropped} - found.keys()
    stored = {name: kind for name, kind in case["key_source"].items() if name not in left_out}
    check.same("key_source", found, stored)
