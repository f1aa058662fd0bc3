"""How an answer is written: options of `generate`, checked, and the one place that says when an answer is drawn."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.utils import GenerationMixin

from avllm import config
from avllm.errors import ConfigError
from avllm.model.options import SHARED

# Greedy and of bounded length unless the caller says otherwise, whatever a model's own generation_config.json holds.
DEFAULTS: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": 128}
DRAWING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The options whose values are looked at here; `generate` of `transformers` looks at the others."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_k: int | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, math.inf),
            ("min_p", 0.0, 1.0),
            ("top_k", 0, math.inf),
            ("num_beams", 1, math.inf),
            ("num_return_sequences", 1, math.inf),
            ("max_new_tokens", 1, math.inf),
            ("min_new_tokens", 0, math.inf),
            ("seed", 0, 2**64),
        ):
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and value != math.inf):
                between = f"from {low} to {high:g}" if high < 2 else f"from {low} on"
                raise ConfigError(f"{name}: expected a number {between}, got {value}")
        for name, high in (("top_p", 1.0), ("repetition_penalty", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= high:
                raise ConfigError(f"{name}: expected a number above 0{' and up to 1' * (high == 1)}, got {value}")


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `generate` as they hold: None is left out, what is not said is as in `DEFAULTS`.

    A temperature of 0 is greedy; a temperature above it, or another option of drawing, draws.

    Raises:
        ConfigError: an unknown option, a wrong value, or `do_sample=False` beside a temperature above 0.
    """
    given = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
        if value is not None
    }
    _require_known(given)
    names = {field.name for field in fields(Checked)}
    config.parse(Checked, {name: value for name, value in given.items() if name in names})
    drawn = [name for name in DRAWING if name in given]
    if given.get("temperature") == 0:
        given = {name: value for name, value in given.items() if name not in DRAWING} | {"do_sample": False}
    elif drawn and given.setdefault("do_sample", True) is False:
        raise ConfigError(
            f"{', '.join(drawn)}: without effect, as do_sample=False takes the likeliest word; leave one of them out"
        )
    return {**DEFAULTS, **given}


def _require_known(given: Mapping[str, Any]) -> None:
    known = _known()
    for name in given:
        if name not in known:
            near = config.nearest(name, [*known, "stop", "video", "image", "audio", "media", "audio_mode", *SHARED])
            raise ConfigError(f"{name}: unknown option{near}")


@cache
def _known() -> frozenset[str]:
    signature = inspect.signature(GenerationMixin.generate)  # type: ignore[attr-defined]  # is behind a decorator
    taken = {*vars(GenerationConfig()), *signature.parameters} - {"self", "kwargs", "inputs"}
    further = {"seed", "tokenizer", "assistant_tokenizer"}
    return frozenset(further | {name for name in taken if not name.startswith("_")})
