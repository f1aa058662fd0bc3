"""Opens a model folder: weights, configuration and processor, whole or not at all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from avllm.checkpoints import adapters, manifest
from avllm.checkpoints.hub import fetch, may_be_on_hub, no_such_folder
from avllm.checkpoints.reading import open_file
from avllm.checkpoints.replaced import require_replaceable
from avllm.checkpoints.sources import read_json
from avllm.config import PACKAGE
from avllm.errors import CheckpointError, ConfigError
from avllm.extras import require
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, AvllmProcessor
from avllm.model.untrusted import check_folder, require_no_code

# Systems whose weights ship inside the package.
SHIPPED = {"nano": PACKAGE / "nano" / "weights"}
Quantization = Literal["int8", "nf4"]
# What the libraries raise on files and settings that are damaged; an error of memory is another thing.
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError),
    *(TypeError, ValueError),
)
DTYPES = {
    **{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16},
    **{"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16},
}


def find_model(name: str | Path, *, what: str = "model") -> Path:
    """The folder of a model.

    Args:
        name: a shipped system, a folder, or the id of a repository on the Hugging Face hub (OWNER/NAME), which is
            fetched where there is no such folder.
        what: the option or file that names it, for messages.

    Raises:
        CheckpointError: there is no such folder, or it holds no model; what is missing is named.
    """
    folder = SHIPPED.get(str(name), Path(name))
    if not folder.is_dir() and str(name) in SHIPPED:
        raise CheckpointError(f"{what} {name}: its weights are not installed ({folder})")
    if not folder.is_dir() and may_be_on_hub(str(name)):
        folder = fetch(str(name), what=what)
    if not folder.is_dir():
        expected = f"a model folder, a hub id (OWNER/NAME) or: {', '.join(SHIPPED)}"
        raise CheckpointError(f"{what} {name}: {no_such_folder(str(name))}; expected {expected}")
    if adapters.is_adapter(folder):
        return folder
    missing = [
        file
        for file in ("config.json", "processor_config.json", "tokenizer_config.json")
        if not (folder / file).is_file()
    ]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(
            f"model folder {folder}: {', '.join(missing)} is missing; published weights are made into a model folder "
            f"by avllm convert, and avllm inspect tells what a folder is"
        )
    return folder


def dtype_of(name: "str | torch.dtype") -> torch.dtype:
    """The type of weights that a name means: fp32, bf16, fp16, or those of torch.

    Raises:
        ConfigError: another name.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ConfigError(f"dtype: got {name!r}, expected one of: {', '.join(DTYPES)}")
    return DTYPES[name]


def quantization_config(kind: Quantization, compute_dtype: torch.dtype) -> Any:
    """What `from_pretrained` needs to load the decoder's linear layers in 8 or 4 bits; branches and head stay whole.

    Source: LLM.int8() (arXiv:2208.07339) and NF4 of QLoRA (arXiv:2305.14314), by bitsandbytes.

    Raises:
        ConfigError: another kind, or bitsandbytes is not installed.
    """
    from transformers.utils.import_utils import is_bitsandbytes_available
    from transformers.utils.quantization_config import BitsAndBytesConfig

    if kind not in ("int8", "nf4"):
        raise ConfigError(f"quantization: got {kind!r}, expected int8 or nf4")
    if not is_bitsandbytes_available():
        raise ConfigError("quantization needs bitsandbytes; install it with: pip install 'avllm[quant]'")
    whole = ["branches", "lm_head"]
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=whole,
    )


def load_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: Quantization | None = None,
    **options: Any,
) -> tuple[AvllmForConditionalGeneration, AvllmProcessor]:
    """Loads a model and its processor, ready to answer.

    Args:
        name: a shipped system, a folder (of a model, or of an adapter, which is put into its base model), or a hub id.
        device: where it runs; CUDA when there is a device, else the CPU.
        dtype: of the weights in memory, whatever they are stored in; float32 on a CPU, bfloat16 on a GPU by default.
        quantization: int8 or nf4 for the decoder's linear layers.
        options: what `from_pretrained` takes besides (`device_map="auto"`, ...).

    Raises:
        CheckpointError: files or weights are missing, left over or damaged.
        ConfigError: a setting that cannot be had.
    """
    folder = find_model(name)
    check_folder(folder)
    if adapters.is_adapter(folder):
        require("train", "peft", purpose=f"the adapter {folder.name}")
        base = base_folder(folder)
        model, processor = load_model(base, device=device, dtype=dtype, quantization=quantization, **options)
        adapters.attach(model, folder)
        return model, processor
    if device is None and "device_map" not in options:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    require_no_code(options.pop("trust_remote_code", False))
    on_cpu = device is not None and torch.device(device).type == "cpu"
    dtype = dtype_of(dtype) if dtype is not None else torch.float32 if on_cpu else torch.bfloat16
    if on_cpu and dtype == torch.float16:
        raise ConfigError("dtype: float16 is a hundred times slower than float32 on a CPU; use float32 or bfloat16")
    if quantization is not None:
        if adapters.is_quantized(load_config(folder)):
            raise ConfigError(f"quantization: the weights in {folder} are quantised already; leave it out")
        options["quantization_config"] = quantization_config(quantization, dtype)
    model, processor = open_weights(folder, dtype=dtype, **options), open_processor(folder)
    assert isinstance(model.config, AvllmConfig)
    _require_same_system(model.config, processor, folder)
    if device is not None and quantization is None:
        model.to(device=torch.device(device))  # type: ignore[call-overload]
    return model.eval(), processor


def open_weights(folder: Path, **options: Any) -> AvllmForConditionalGeneration:
    """The model of a folder, whole, with the weights that were written.

    Args:
        folder: of a model.
        options: what `from_pretrained` takes.

    Raises:
        CheckpointError: it is damaged, odd or asks for what a folder may not ask for; what is wrong is named.
    """
    with _damage_told(folder):
        model = AvllmForConditionalGeneration.from_pretrained(folder, trust_remote_code=False, **options)
    assert isinstance(model, AvllmForConditionalGeneration)
    if not manifest.require_as_written(folder):
        _require_finite(model, folder)
    return model


def open_processor(folder: Path) -> AvllmProcessor:
    """The processor of a folder, without its weights.

    Raises:
        CheckpointError: see `open_weights`.
    """
    with _damage_told(folder):
        return AvllmProcessor.from_pretrained(folder, trust_remote_code=False)


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """Whatever a damaged folder makes the libraries raise, as one error that names the file."""
    try:
        with _quiet():
            yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not _is_damage(error):
            raise
        for file in sorted(folder.iterdir()):  # one of them may say what is wrong
            if file.suffix in (".safetensors", ".json"):
                open_file(file) if file.suffix == ".safetensors" else read_json(file)
        kind = "" if isinstance(error, OSError | RuntimeError | ValueError) else f"{type(error).__name__}: "
        raise CheckpointError(f"model folder {folder}: {kind}{' '.join(str(error).split())}") from error


def _is_damage(error: BaseException) -> bool:
    """Whether a library raised it at a file; the Rust of tokenizers raises plain exceptions, and panics."""
    return isinstance(error, DAMAGE) or type(error) is Exception or type(error).__name__ == "PanicException"


def _require_finite(model: torch.nn.Module, folder: Path) -> None:
    """Of a folder without checksums this much can be told."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.device.type != "meta" and tensor.numel():
            low, high = tensor.aminmax()
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise CheckpointError(
                    f"model folder {folder}: {name} holds values that are not finite; its copy or its disk is damaged, "
                    f"or its training diverged"
                )


def _require_same_system(config: AvllmConfig, processor: AvllmProcessor, folder: Path) -> None:
    parsed = config.parsed()
    here = (parsed.branches, parsed.prompt, parsed.published_quirks, config.text_config.vocab_size)
    there = (processor.branches, processor.system.get("prompt"), processor.published_quirks, processor.vocab_size)
    names = ("branches", "prompt", "published_quirks", "vocab_size")
    odd = [name for name, one, other in zip(names, here, there, strict=True) if one != other]
    if odd:
        raise CheckpointError(
            f"model folder {folder}: config.json and processor_config.json differ in {', '.join(odd)}; convert or save "
            f"it again"
        )


def merge_adapter(folder: str | Path, out: str | Path, *, dtype: str | torch.dtype | None = None) -> Path:
    """Writes the base model of an adapter with the adapter added to its weights.

    Args:
        folder: of the adapter.
        out: folder of the merged model; it appears whole or not at all.
        dtype: of the stored weights; they are added in float32. By default the base model's.

    Raises:
        CheckpointError: the folder holds no adapter, it does not fit its base model, or that is quantised.
    """
    from avllm.checkpoints.save import save_model

    found = find_model(folder)
    if not adapters.is_adapter(found):
        raise CheckpointError(f"{folder}: expected an adapter ({adapters.ADAPTER}), this is a whole model already")
    require("train", "peft", purpose=f"the adapter {found.name}")
    base = base_folder(found)
    require_replaceable(Path(out), found, base)
    check_folder(found)
    config = load_config(base)
    if adapters.is_quantized(config):
        raise CheckpointError(
            f"{folder}: its base model {base} holds quantised weights, to which an adapter cannot be added without "
            f"rounding it away; name the unquantised model as base_model_name_or_path in {found / adapters.ADAPTER}"
        )
    stored = config.dtype
    model, processor = load_model(base, device="cpu", dtype=torch.float32)
    merged = adapters.merge(model, found)
    target = dtype_of(dtype) if dtype is not None else stored if isinstance(stored, torch.dtype) else torch.float32
    return save_model(merged.to(target), processor, out)  # type: ignore[arg-type]


def base_name(start: str) -> str:
    """How an adapter names its base: a folder by its full path, so that it is found from everywhere."""
    return start if start in SHIPPED or not Path(start).is_dir() else str(Path(start).resolve())


def base_of_adapter(folder: Path) -> str | Path:
    """The base model of an adapter; a relative folder is looked for beside the adapter too."""
    base = adapters.base_of(folder)
    beside = folder.parent / base
    return beside if base not in SHIPPED and not Path(base).is_dir() and beside.is_dir() else base


def base_folder(folder: Path) -> Path:
    """The folder of an adapter's base model; fetched from the hub where it can only be there."""
    base, where = base_of_adapter(folder), folder / adapters.ADAPTER
    if base not in SHIPPED and not Path(base).is_dir() and not may_be_on_hub(str(base)):
        raise CheckpointError(
            f"adapter {folder}: its base model {base} is not here; put it there, or write where it is as "
            f"base_model_name_or_path in {where}"
        )
    found = find_model(base, what=f"the base model that {where} names,")
    if adapters.is_adapter(found):
        raise CheckpointError(f"adapter {folder}: its base model {base} is an adapter too; make it whole: avllm merge")
    return found


def load_config(name: str | Path) -> AvllmConfig:
    """The configuration of a model folder, without its weights."""
    folder = find_model(name)
    try:
        return AvllmConfig.from_dict(read_json(folder / "config.json"))
    except ConfigError as error:
        raise CheckpointError(f"model folder {folder}: {error}") from error


def find_config(name: str | Path, overrides: tuple[str, ...] = ()) -> AvllmConfig:
    """The configuration of a model folder, or of a system by its YAML.

    Raises:
        ConfigError: overrides (`a.b=c`) of a model folder, whose weights have the sizes that they have.
    """
    is_model = Path(name).is_dir() or (str(name) in SHIPPED and not overrides)
    if is_model and overrides:
        raise ConfigError(f"{overrides[0]}: overrides go with a YAML, {name} is a model folder")
    return load_config(name) if is_model else AvllmConfig.from_yaml(name, overrides)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and notices of `transformers` on a terminal that waits for an answer."""
    from transformers.utils import logging as hf_logging

    had_bar, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if had_bar:
            hf_logging.enable_progress_bar()
