"""The form `model_weights`: six published files together fill the whole model, and nothing is left over."""

from collections import Counter
from pathlib import Path

import torch

from avllm.checkpoints.rename import join, problems, rename
from avllm.checkpoints.video_llama import tables
from avllm.model import AvllmConfig, AvllmForConditionalGeneration
from tests.parity.common import Row, read_json, read_tensors
from tests.parity.model_case import FILES, system_of


def run(path: Path) -> list[Row]:
    """One row per file, one per reason for leaving keys out, one per weight that does not fit."""
    settings = read_json(path / "config.json")
    settings = {"frames": 1, "audio_clips": settings["audio_position_embedding_size"], **settings}
    system = system_of(settings, path, "vicuna")
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(AvllmConfig.from_system(system))
    known = tables(system)
    rows, renamed = [], {}
    for name, file in FILES.items():
        item = renamed[name] = rename(read_tensors(path / file), known[name], source=file)
        rows.append(Row(file, None, "", True, f"{len(item.state)} weights, {len(item.dropped)} left out"))
        counts = Counter(item.dropped.values())
        rows += [Row(f"{file}: left out", None, "", True, f"{count}: {reason}") for reason, count in counts.items()]
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = problems(expected, join(*renamed.values()))
    rows.append(Row("whole model", None, "equal shapes", not found, f"{len(expected)} tensors to fill"))
    return rows + [Row("problem", None, "equal shapes", False, problem) for problem in found]
