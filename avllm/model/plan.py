"""What a system will need, told before anything is loaded: the real code runs on tensors that hold no data."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from avllm.errors import AvllmError, ConfigError, OutOfMemory
from avllm.model.cache import CACHE
from avllm.model.configuration import AvllmConfig
from avllm.model.memory import LiveBytes
from avllm.model.modeling import AvllmForConditionalGeneration

Trained = Literal["connectors", "all"]
# Bytes per weight of a quantised linear layer: 8 bits and a float32 per row of thousands; 4 bits and the doubly
# quantised scales of blocks of 64 (QLoRA, arXiv:2305.14314, section 3: 0.127 bits a weight).
QUANTISED = {"int8": 1.0, "nf4": (4 + 0.127) / 8}
ADAM_STATES = 2
# SDPA for rows of one length. Left to itself, transformers makes a mask for every tensor without values.
_UNMASKED = "avllm_sdpa_unmasked"
AttentionInterface.register(_UNMASKED, sdpa_attention_forward)
# What the allocator of the CPU writes into its RuntimeError.
_FAILED_ON_CPU = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is run.

    Args:
        dtype: of weights and activations.
        num_frames: frames of each video; the system's setting if None.
        batch: conversations side by side, each with one medium per branch; several are taken to be padded.
        text_tokens: of each prompt, besides its media.
        new_tokens: of each answer.
        quantization: of the decoder's linear layers.
        train: what is trained, with AdamW; None answers questions.
    """

    dtype: torch.dtype = torch.bfloat16
    num_frames: int | None = None
    batch: int = 1
    text_tokens: int = 64
    new_tokens: int = 128
    quantization: Literal["int8", "nf4"] | None = None
    train: Trained | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes that a workload takes.

    Args:
        parameters: of the whole model.
        weights: bytes of them.
        media_tokens: branch -> slots of one medium.
        kv_cache: keys and values of prompts and answers at their longest; 0 in training.
        activations: peak over weights, cache and training state.
        training_state: gradients and optimiser.
    """

    parameters: int
    weights: int
    media_tokens: dict[str, int]
    kv_cache: int
    activations: int
    training_state: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.weights + self.kv_cache + self.activations + self.training_state

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "total": self.total}

    def to_table(self) -> str:
        """Lines for people."""
        media = ", ".join(f"{name} {count}" for name, count in self.media_tokens.items())
        rows = {
            "parameters": f"{self.parameters / 1e6:,.1f} M",
            "tokens of one medium": media or "-",
            "weights": gib(self.weights),
            "keys and values": gib(self.kv_cache),
            "activations": gib(self.activations),
            "gradients, optimiser": gib(self.training_state),
            "at the peak": gib(self.total),
        }
        return "\n".join(f"{name:<22}{value:>14}" for name, value in rows.items())


def plan(config: AvllmConfig, work: Workload = Workload()) -> Plan:
    """Predicts the memory of a workload, without weights.

    Args:
        config: of the system.
        work: what will be run.

    Raises:
        ConfigError: a quantised model cannot be trained in full, or the system cannot do it (too many frames).
    """
    if work.quantization and work.train == "all":
        raise ConfigError("quantization: weights in 8 or 4 bits cannot be trained; train connectors, or leave it out")
    before = torch.get_default_dtype()
    torch.set_default_dtype(work.dtype)
    try:
        # Nothing a thread elsewhere makes may be counted, and nothing here takes memory.
        with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
            with no_init_weights():  # some random draws look at values, of which there are none
                model = AvllmForConditionalGeneration(config)
            model.decoder.tie_weights()
            if work.batch == 1:
                model.decoder.config._attn_implementation = _UNMASKED
            trained_parameters(model, work)
            weights, saved = _weights(model, work)
            live.restart()
            measure = _train if work.train else _answer
            result = measure(model, config, work, live)
    except AvllmError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    finally:
        torch.set_default_dtype(before)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Plan(parameters=parameters, weights=weights - saved, **result)


def trained_parameters(model: nn.Module, work: Workload) -> list[nn.Parameter]:
    """Freezes what a workload does not train; what it does is kept in float32, as `avllm train` keeps it."""
    trained = []
    for name, parameter in model.named_parameters():
        is_connector = name.startswith("branches.") and ".connector." in name
        parameter.requires_grad = work.train == "all" or (work.train == "connectors" and is_connector)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            trained.append(parameter)
    return trained


def _weights(model: nn.Module, work: Workload) -> tuple[int, int]:
    """Bytes of the weights, and how many of them quantization saves."""
    kept = [*model.parameters(), *model.buffers()]
    whole = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    if work.quantization is None:
        return whole, 0
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = [m for m in model.decoder.modules() if isinstance(m, nn.Linear) and m is not head]  # type: ignore[union-attr]
    count = sum(layer.weight.numel() for layer in layers)
    return whole, int(count * (work.dtype.itemsize - QUANTISED[work.quantization]))


def _media(model: AvllmForConditionalGeneration, config: AvllmConfig, work: Workload) -> dict[str, Tensor]:
    """One medium per branch and conversation, without values."""
    media = {}
    for name, branch in config.parsed().branches.items():
        settings: Any = branch.media
        count = work.num_frames if name == "video" and work.num_frames else None
        count = count or getattr(settings, "num_frames" if name == "video" else "num_segments", 1)
        media[name] = torch.empty(work.batch, count, *settings.frame_shape, dtype=model.dtype)
    return media


def _prompt(model: AvllmForConditionalGeneration, media: Mapping[str, Tensor], text: int, batch: int) -> Tensor:
    words = torch.zeros(batch, text, dtype=torch.long)
    tokens = [model.branches[name](clips) for name, clips in media.items()]
    return torch.cat([*tokens, model.get_input_embeddings()(words)], dim=1)


def _mask(work: Workload, length: int) -> dict[str, Tensor]:
    return {} if work.batch == 1 else {"attention_mask": torch.ones(work.batch, length, dtype=torch.long)}


def _answer(
    model: AvllmForConditionalGeneration, config: AvllmConfig, work: Workload, live: LiveBytes
) -> dict[str, Any]:
    model.eval()
    base = live.now
    with torch.no_grad():
        media = _media(model, config, work)
        slots = {name: branch.num_tokens(media[name].shape[1:]) for name, branch in config.parsed().branches.items()}
        embeds = _prompt(model, media, work.text_tokens, work.batch)
        model.decoder(inputs_embeds=embeds, use_cache=True, logits_to_keep=1, **_mask(work, embeds.shape[1]))
        prefill = live.restart() - base
        # The last step, with a cache of all tokens before it.
        before = embeds.new_zeros(work.batch, embeds.shape[1] + work.new_tokens - 1, embeds.shape[-1])
        cache = model.decoder(inputs_embeds=before, use_cache=True, logits_to_keep=1)[CACHE]
        del before
        live.restart()
        mask = _mask(work, cache.get_seq_length() + 1)
        model.decoder(inputs_embeds=embeds[:, :1], use_cache=True, **{CACHE: cache}, **mask)
        step = live.restart() - base
    kv_cache = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    activations = max(0, max(prefill, step) - kv_cache)
    return {"media_tokens": slots, "kv_cache": kv_cache, "activations": activations, "training_state": 0}


def _train(
    model: AvllmForConditionalGeneration, config: AvllmConfig, work: Workload, live: LiveBytes
) -> dict[str, Any]:
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = sum(parameter.numel() * parameter.element_size() for parameter in trained) * (1 + ADAM_STATES)
    base = live.now
    media = _media(model, config, work)
    slots = {name: branch.num_tokens(media[name].shape[1:]) for name, branch in config.parsed().branches.items()}
    answer = torch.zeros(work.batch * work.new_tokens, dtype=torch.long)
    with torch.autocast("cpu", work.dtype, enabled=work.dtype != torch.float32):
        embeds = _prompt(model, media, work.text_tokens + work.new_tokens, work.batch)
        inputs = {"inputs_embeds": embeds, "use_cache": False, **_mask(work, embeds.shape[1])}
        logits = model.decoder(**inputs, logits_to_keep=work.new_tokens).logits
    F.cross_entropy(logits.flatten(0, 1).float(), answer).backward()
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    activations = max(0, live.restart() - base - gradients)
    return {"media_tokens": slots, "kv_cache": 0, "activations": activations, "training_state": state}


def smaller(config: AvllmConfig, work: Workload, available: int) -> list[tuple[str, Plan]]:
    """Changes of a workload that would fit into `available` bytes, the mildest first, each with its plan."""
    frames = getattr(config.parsed().branches.get("video"), "media", None)
    now = work.num_frames or getattr(frames, "num_frames", 1)
    changes: dict[str, dict[str, Any]] = {}
    if work.batch > 1:
        changes["batch=1"] = {"batch": 1}
    if work.dtype == torch.float32:
        changes["dtype=bf16"] = {"dtype": torch.bfloat16}
    if now > 4:
        changes["frames=4"] = {"num_frames": 4}
    if work.train == "all":
        changes["train=connectors"] = {"train": "connectors"}
    if work.train != "all" and work.quantization is None:
        changes["quantization=int8"] = {"quantization": "int8"}
    if work.train != "all" and work.quantization != "nf4":
        changes["quantization=nf4"] = {"quantization": "nf4"}
    found, merged = [], dict[str, Any]()
    for name, change in changes.items():
        one = plan(config, replace(work, **change))
        if one.total <= available:
            found.append((name, one))
        merged |= change
    if not found and len(changes) > 1:
        together = plan(config, replace(work, **merged))
        if together.total <= available:
            found.append((" ".join(name for name in changes if name != "quantization=int8"), together))
    return found


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = next(line for line in lines if line.startswith("MemAvailable"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30


@contextmanager
def out_of_memory_named(config: AvllmConfig, work: Callable[[], Workload], device: torch.device) -> Iterator[None]:
    """Turns a failed allocation inside the block into an error that names settings which would fit.

    Raises:
        OutOfMemory: an allocation failed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_memory = not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError)
        if not is_memory and not any(words in str(error) for words in _FAILED_ON_CPU):
            raise
        asked = work()
        needed = plan(config, asked)
        free = available_bytes(device) + needed.weights  # the weights are loaded already
        fits = "; ".join(f"{name} ({gib(one.total)})" for name, one in smaller(config, asked, free))
        raise OutOfMemory(
            f"out of memory on {device}: this needs about {gib(needed.total)}, there are {gib(free)}; "
            + (f"these would fit: {fits}" if fits else "no setting makes it fit; use a larger device or several")
        ) from error


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
