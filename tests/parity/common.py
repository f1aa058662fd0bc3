"""What the adapters share: reading a case, comparing tensors, capturing what a module gave."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Args:
        name: of the tensor or the check.
        max_abs_error: None when nothing was subtracted.
        tolerance: in words.
        ok: whether it holds; a thing not covered is ok and says why in `note`.
        note: `not covered: reason`, or what went wrong.
    """

    name: str
    max_abs_error: float | None
    tolerance: str
    ok: bool
    note: str = ""


@dataclass(frozen=True)
class Tolerance:
    """|ours - theirs| <= atol + rtol * |theirs|; integers are compared exactly."""

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"atol {self.atol:g}" + (f", rtol {self.rtol:g}" if self.rtol else "")


def read_json(path: Path) -> Any:
    """The JSON of a case."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a case."""
    return load_file(path)


def readme_tolerance(folder: Path, default: Tolerance) -> Tolerance:
    """The tolerance that the case's README states after the word; `default` when it states none."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    number = r"\s*=?\s*([0-9][0-9.]*(?:e-?[0-9]+)?)"
    found = re.search(rf"tolerance[^\n]*?rtol{number}[^\n]*?atol{number}", text, re.IGNORECASE)
    return Tolerance(float(found[1]), float(found[2])) if found else default


def compare(name: str, ours: Tensor | None, theirs: Tensor, tolerance: Tolerance) -> Row:
    """One row for one tensor."""
    if ours is None:
        return Row(name, None, str(tolerance), False, "not computed by the adapter")
    if ours.shape != theirs.shape:
        return Row(name, None, str(tolerance), False, f"shape {list(ours.shape)}, expected {list(theirs.shape)}")
    if not theirs.is_floating_point():
        error = (ours.long() - theirs.long()).abs().max().item() if theirs.numel() else 0
        return Row(name, float(error), "exact", error == 0)
    difference = (ours.double() - theirs.double()).abs()
    ok = bool((difference <= tolerance.atol + tolerance.rtol * theirs.double().abs()).all())  # NaN is not <=
    return Row(name, difference.max().item() if theirs.numel() else 0.0, str(tolerance), ok)


def compare_all(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    tolerance: Tolerance,
    *,
    not_covered: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row for every tensor of the case, those that were not computed included.

    Args:
        ours: computed.
        theirs: recorded.
        tolerance: for all of them.
        not_covered: regular expression over names -> reason.
    """
    rows = []
    for name, tensor in theirs.items():
        reason = next((r for p, r in (not_covered or {}).items() if re.fullmatch(p, name)), None)
        if name not in ours and reason is not None:
            rows.append(Row(name, None, "", True, f"not covered: {reason}"))
        else:
            rows.append(compare(name, ours.get(name), tensor, tolerance))
    return rows


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Fills a dict with the output of each module, by the given names, while the block runs."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: outputs.__setitem__(name, output.detach())

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def ready(module: nn.Module) -> nn.Module:
    """The module in eval mode, fp32, without gradients."""
    return module.eval().requires_grad_(False).to(torch.float32)
