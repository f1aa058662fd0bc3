"""The loop under stage 0's trainings: one cycle of the learning rate, log, learning curve, atomic checkpoints."""

import csv
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avllm.durable import file_whole, write_whole
from avllm.errors import NumericError

log = logging.getLogger(__name__)

# (steps done, steps in all, latest figures)
Progress = Callable[[int, int, Mapping[str, float]], None]


def fit(
    name: str,
    modules: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    *,
    out_dir: Path,
    steps: int,
    lr: float,
    warmup: int = 50,
    weight_decay: float = 0.05,
    log_every: int = 25,
    checkpoint_every: int = 200,
    progress: Progress | None = None,
) -> float:
    """Trains `modules` for `steps` steps, going on from the last checkpoint in `out_dir` if there is one.

    Writes `NAME.csv` and `NAME.png` (the learning curve) beside the checkpoint. Whatever is random in `losses` must
    follow from the number of the step, then a resumed run equals an uninterrupted one.

    Args:
        name: stem of the files.
        losses: from the number of a step to its terms; their sum is minimised.
        lr: peak of the learning rate; linear warm-up, then half a cosine down to 2 %.

    Returns:
        Seconds of training, over all resumed runs.

    Raises:
        NumericError: a loss is not finite.
    """
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True)
    checkpoint = out_dir / f"{name}.checkpoint"
    done, rows, seconds = _resume(checkpoint, modules, optimiser)
    modules.train()
    start, sums = time.perf_counter() - seconds, dict[str, float]()
    for step in range(done, steps):
        for group in optimiser.param_groups:
            group["lr"] = _cycle(step, steps, warmup) * lr
        terms = losses(step)
        _descend(optimiser, parameters, terms, name, step)
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + value.item()
        count = (step + 1) % log_every or log_every
        if count == log_every or step + 1 == steps:
            seconds = time.perf_counter() - start
            row = {"step": step + 1, "seconds": round(seconds, 1), **{k: round(v / count, 5) for k, v in sums.items()}}
            rows.append(row)
            sums.clear()
            if progress:
                progress(step + 1, steps, row)
            log.info("%s: %s", name, row)
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            state = {"step": step + 1, "rows": rows, "seconds": time.perf_counter() - start}
            state |= {"modules": modules.state_dict(), "optimiser": optimiser.state_dict()}
            with file_whole(checkpoint) as unfinished:
                torch.save(state, unfinished)
            write_curve(out_dir, name, rows)
    modules.eval()
    return seconds


def _descend(
    optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], terms: Mapping[str, Tensor], name: str, step: int
) -> None:
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise NumericError(f"{name}: loss is {loss.item()} at step {step}; expected a finite number; lower lr")
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def _cycle(step: int, steps: int, warmup: int) -> float:
    warm = min(1.0, (step + 1) / max(1, min(warmup, steps // 10)))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _resume(
    checkpoint: Path, modules: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]], float]:
    if not checkpoint.exists():
        return 0, [], 0.0
    state = torch.load(checkpoint, weights_only=True)
    modules.load_state_dict(state["modules"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["rows"], state["seconds"]


def write_curve(out_dir: Path, name: str, rows: list[dict[str, float]]) -> None:
    """`NAME.csv` with every logged row and `NAME.png` with all terms over the steps."""
    if not rows:
        return

    with file_whole(out_dir / f"{name}.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    # Slow to import, and needed only here.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key in rows[0]:
        if key not in ("step", "seconds"):
            axes.plot([row["step"] for row in rows], [max(row[key], 1e-4) for row in rows], label=key)
    axes.set(title=name, xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize=7)
    figure.tight_layout()
    with file_whole(out_dir / f"{name}.png") as unfinished:
        figure.savefig(unfinished, format="png")


def write_weights(path: Path, parts: Mapping[str, nn.Module]) -> None:
    """One safetensors file with each module's weights under its prefix."""
    weights = {
        f"{prefix}.{key}": value.detach().clone().contiguous()
        for prefix, module in parts.items()
        for key, value in module.state_dict().items()
    }
    with file_whole(path) as unfinished:
        save_file(weights, unfinished)
        unfinished.chmod(0o644)  # safetensors keeps files to their owner; these ship


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Metrics as readable JSON."""
    write_whole(path, json.dumps(metrics, indent=1) + "\n")


def start_wide(module: nn.Module) -> None:
    """Redraws linear and patch weights with the variance of Glorot: N(0, 0.02) is far too small for narrow widths."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))


def grid_positions(rows: int, columns: int, width: int, scale: float = 0.3) -> Tensor:
    """Sines and cosines of row and column, `[p d]`, to start a position table from: location is learned sooner."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    rates = torch.arange(1, width // 4 + 1) * math.pi / 4
    angles = [axis.reshape(-1, 1) * rates for axis in (x, y)]
    return scale * torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
