"""The numbers of a configuration: finite, and of a size that a model can have, told before anything is built."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from avllm.errors import ConfigError

MAX_SIZE = 2**24  # of a width, a vocabulary, a context, a number of frames
MAX_MODULES = 1024  # of what is built once for each: layers, experts
MAX_FLOAT = 1e12
DTYPES = (None, "float32", "float16", "bfloat16", "float64")
# Of a branch, whose other numbers are above 0.
MODULES = ("depth", "mlp_depth", "num_global")
MAY_BE_ZERO = ("padding", "depth", "mlp_depth", "num_global", "num_extra_queries", "dropout")
MAY_BE_NEGATIVE = ("layer", "mean")
SHARES = ("dropout",)
# Of a generation_config.json; what else stands there asks for other ways to generate, some of which fetch code.
MAX_ANSWERS = 64
ANSWERS = ("num_beams", "num_return_sequences")
CHOICES = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty"),
    *("length_penalty", "diversity_penalty", "no_repeat_ngram_size", "max_new_tokens", "max_length", "min_length"),
    *("min_new_tokens", "max_time", *ANSWERS),
)
FLAGS = (
    *("do_sample", "use_cache", "early_stopping", "renormalize_logits", "output_attentions", "output_hidden_states"),
    *("output_scores", "output_logits", "return_dict_in_generate", "_from_model_config"),
)


def check_branch(branch: Any, where: str) -> None:
    """The numbers of a branch.

    Args:
        branch: a dataclass of dataclasses.
        where: its key path.

    Raises:
        ConfigError: a number is not finite, not above 0 where that has no meaning, or too large; its key is named.
    """
    for path, key, value in _numbers(branch, where):
        least = -MAX_SIZE if key in MAY_BE_NEGATIVE else 0
        most = 1 if key in SHARES else MAX_MODULES if key in (*MODULES, "layer") else MAX_SIZE
        if not (least <= value <= most and (value != 0 or _may_be_zero(key))):
            above = "above 0" if least == 0 and not _may_be_zero(key) else f"from {least}"
            raise ConfigError(f"{path}: expected a number {above} to {most}, got {_shown(value)}")


def check_decoder(decoder: Mapping[str, Any], where: str) -> None:
    """The numbers of a decoder, and the type of its weights.

    Args:
        decoder: keys and values of a configuration of `transformers`.
        where: its key path.

    Raises:
        ConfigError: see `check_branch`.
    """
    dtype = decoder.get("dtype", decoder.get("torch_dtype"))
    if str(dtype).removeprefix("torch.") not in map(str, DTYPES):
        names = ", ".join(map(str, DTYPES[1:]))
        raise ConfigError(f"{where}.dtype: got {_shown(dtype)}, expected one of: {names}")
    for path, key, value in _numbers(decoder, where):
        if isinstance(value, float):
            least, most = -MAX_FLOAT, MAX_FLOAT
        else:
            least = -1 if key.endswith("token_id") else 0
            most = MAX_MODULES if "layers" in key or "experts" in key else MAX_SIZE
        if not least <= value <= most:  # NaN is within nothing
            raise ConfigError(f"{path}: expected a number from {least} to {most}, got {_shown(value)}")


def check_generation(settings: Mapping[str, Any], where: str) -> None:
    """The settings of generation that a folder brings.

    Args:
        settings: of generation_config.json.
        where: the file.

    Raises:
        ConfigError: a value is of another type or size than it can have, or a way to generate is asked for that avllm
            has not.
    """
    for key, value in settings.items():
        if value is None or key == "transformers_version":
            continue
        if key.endswith("token_id"):
            ids = value if isinstance(value, list) else [value]
            is_right = all(type(item) is int and -1 <= item <= MAX_SIZE for item in ids)
        elif key in CHOICES:
            most = MAX_ANSWERS if key in ANSWERS else MAX_SIZE
            is_right = type(value) in (int, float) and 0 <= value <= most
        else:
            is_right = type(value) is bool if key in FLAGS else not value
        if not is_right:
            raise ConfigError(f"{where}: {key}: {_shown(value)} is not what it can be; take the entry out")


def _may_be_zero(key: str) -> bool:
    return key in MAY_BE_ZERO or key in MAY_BE_NEGATIVE


def _numbers(node: Any, where: str, key: str = "") -> Iterator[tuple[str, str, int | float]]:
    """(key path, key, value) of all numbers; those of a list have the key of the list."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        node = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _numbers(value, f"{where}.{name}", str(name))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{where}.{index}", key)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield where, key, node


def _shown(value: object) -> str:
    """A number of a million digits is not printed."""
    if isinstance(value, int) and abs(value) > 10**18:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    return repr(value)[:80]
