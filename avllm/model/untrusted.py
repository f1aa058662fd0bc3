"""What a model folder may not ask for: code, kernels, other places. It is refused before `transformers` reads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avllm.errors import CheckpointError, ConfigError
from avllm.model.sizes import check_generation

# The settings that `transformers` and `peft` look for in a folder.
SETTINGS = (
    *("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "audio_tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json", "adapter_config.json"),
)
INDEX = "model.safetensors.index.json"
MAX_BYTES = 64_000_000
CODE = "code to run"
PLACE = "files of another place"
KERNEL = "a kernel to fetch"
# Keys that are refused wherever they stand, with what they ask for.
REFUSED = {
    **dict.fromkeys(("auto_map", "auto_mapping", "custom_generate", "custom_pipelines", "trust_remote_code"), CODE),
    **dict.fromkeys(("megatron_config", "arrow_config", "eva_config", "corda_config", "loftq_config"), CODE),
    **dict.fromkeys(("use_kernels", "kernel_config", "allow_all_kernels"), KERNEL),
    **dict.fromkeys(("audio_tokenizer", "transformers_weights", "configuration_files", "gguf_file"), PLACE),
    **dict.fromkeys(("vocab_file", "tokenizer_file", "merges_file", "spm_file", "added_tokens_file"), PLACE),
}
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
OWN = (None, "eager", "sdpa", "grouped_mm", "batched_mm")  # what comes with `transformers`; the faster one is taken
ADAPTER, BITSANDBYTES = "adapter_config.json", "bitsandbytes"


def require_no_code(trust_remote_code: object) -> None:
    """That a caller does not ask for the code of a model folder either.

    Raises:
        ConfigError: it is set.
    """
    if trust_remote_code:
        raise ConfigError("trust_remote_code: avllm never runs code of a model folder; leave it out")


def check_folder(folder: Path) -> None:
    """That nothing in a model folder asks for code, for kernels or for files of another place.

    Raises:
        CheckpointError: something does; file and key are named.
    """
    for name in SETTINGS:
        settings = read_settings(folder / name)
        if name == ADAPTER and settings is not None and (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder}: holds config.json and {name}, a whole model and an adapter; expected one of them"
            )
        check_settings(settings, str(folder / name))
        if name == "generation_config.json" and isinstance(settings, Mapping):
            try:
                check_generation(settings, str(folder / name))
            except ConfigError as error:
                raise CheckpointError(str(error)) from error
    _check_index(folder)


def check_settings(settings: Any, where: str) -> None:
    """The same of the content of one settings file, at any depth.

    Args:
        settings: what its JSON holds.
        where: the file, for errors.

    Raises:
        CheckpointError: see `check_folder`.
    """
    for key, value in _entries(settings):
        asks = REFUSED.get(key)
        if key.removeprefix("_").removesuffix("_internal") in IMPLEMENTATIONS and value not in OWN:
            raise CheckpointError(
                f"{where}: {key} asks for {KERNEL} ({_short(value)}); refused, take the entry out (which one runs is "
                f"for you to say: attn_implementation=... in Python)"
            )
        if key == "quantization_config" and value is not None:
            method = value.get("quant_method") if isinstance(value, Mapping) else value
            if method != BITSANDBYTES:
                raise CheckpointError(
                    f"{where}: {key} is of {_short(method)}; expected {BITSANDBYTES}, others fetch kernels"
                )
        if asks is not None and value:
            raise CheckpointError(f"{where}: {key} asks for {asks} ({_short(value)}); refused, take the entry out")


def _check_index(folder: Path) -> None:
    """That an index of shards names safetensors files of its own folder alone; those may be links of the user's."""
    index = read_settings(folder / INDEX)
    names = index.get("weight_map") if isinstance(index, Mapping) else None
    for name in dict.fromkeys(map(str, names.values())) if isinstance(names, Mapping) else ():
        if Path(name).name != name or name.startswith(".") or "\\" in name or "\0" in name:
            raise CheckpointError(f"{folder / INDEX}: {_short(name)} is no file of this folder; refused")
        if not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / INDEX}: {_short(name)} is no safetensors file; refused (avllm convert makes one of it)"
            )
        if not (folder / name).is_file() and not (folder / "model.safetensors").is_file():
            raise CheckpointError(f"{folder}: {name} is missing; {INDEX} names it; download it again")


def read_settings(path: Path) -> Any:
    """What a JSON file holds; None when it is not there or damaged, which those tell who need it."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError:
        return None
    if size > MAX_BYTES:
        raise CheckpointError(f"{path}: {size} bytes; at most {MAX_BYTES} are read")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    left = [settings]
    while left:
        node = left.pop()
        if isinstance(node, Mapping):
            yield from ((str(key), value) for key, value in node.items())
            left += node.values()
        elif isinstance(node, list):
            left += node


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
