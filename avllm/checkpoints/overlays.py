"""Weights made of two published sets: a delta added to its base, an adapter merged into its base."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

from torch import Tensor

from avllm.checkpoints.adapters import PEFT
from avllm.checkpoints.reading import LazyTensor, WeightFile
from avllm.checkpoints.sources import Source
from avllm.errors import CheckpointError

LORA = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight")
# How peft names a module that it trains in full (`modules_to_save`), and what of it or beside it is no weight of that.
IN_FULL = re.compile(r"\.modules_to_save(\.\w+)?(?=\.)")
UNTRAINED = ".original_module."
NO_LORA = re.compile(
    r".*\.(lora_\w+|base_layer|ia3_l|hada_\w+|lokr_\w+|boft_\w+|oft_\w+|trainable_tokens_\w+|prompt_\w+)(\..*)?"
)
# The port of Video-LLaVA since transformers 4.52 -> before, so that an adapter of one goes on a model of the other.
OLDER = (
    (r"model\.language_model\.(?=(layers|norm|embed_tokens)\.)", "language_model.model."),
    (r"model\.(?=(image_tower|video_tower|multi_modal_projector)\.)", ""),
    (r"(?=lm_head\.)", "language_model."),
    (r"((?:image|video)_tower)\.vision_model\.", r"\1."),
)
ROTARY = re.compile(r".*rotary_emb\.inv_freq")


def add_delta(delta: Source, base: Source) -> Source:
    """The model that a delta was made of: every tensor of the delta added to the base's.

    Rows that only the delta has (new tokens of the vocabulary) are the delta's, as the base is filled up with zeros.

    Source: apply_delta.py of FastChat (Vicuna), which adds in the same way.

    Raises:
        CheckpointError: a tensor is in one of them alone, or the shapes do not go together.
    """
    ours, theirs = _without_rotary(delta.tensors), _without_rotary(base.tensors)
    odd = sorted(ours.keys() ^ theirs.keys())
    if odd:
        where = delta.name if odd[0] in ours else base.name
        raise CheckpointError(f"{odd[0]} is in {where} alone ({len(odd)} such weights); expected a delta and its base")
    tensors = {}
    for name, tensor in ours.items():
        grown = tensor.shape[:1] >= theirs[name].shape[:1] and tensor.shape[1:] == theirs[name].shape[1:]
        if tensor.shape != theirs[name].shape and not (grown and ("embed_tokens" in name or "lm_head" in name)):
            raise CheckpointError(
                f"{name}: the delta {delta.name} has shape {list(tensor.shape)}, the base {base.name} has "
                f"{list(theirs[name].shape)}; they do not belong together"
            )
        tensors[name] = replace(tensor, read=partial(_sum, tensor, theirs[name]))
    return _derived(delta, base, tensors=tensors)


def merge_adapter(adapter: Source, base: Source, trained: Source | None = None) -> Source:
    """The base with a LoRA adapter added to its weights and the parts that were trained in full in their place.

    Source: LoRA (arXiv:2106.09685), section 4.1: W + B A * alpha / r.

    Raises:
        CheckpointError: the adapter names a weight that the base lacks, or is of a kind that cannot be added.
    """
    tensors, spelled = dict(base.tensors), {_older(name): name for name in base.tensors}
    tensors |= {spelled.get(_older(name), name): tensor for name, tensor in kept_in_full(adapter).items()}
    for module, (down, up) in lora_pairs(adapter).items():
        name = spelled.get(_older(f"{module}.weight"))
        if name is None:
            raise CheckpointError(f"{adapter.name}: {module} is adapted, {base.name} has no such weight")
        weight, rank = tensors[name], down.shape[0]
        if (up.shape[0], down.shape[1]) != weight.shape:
            raise CheckpointError(
                f"{adapter.name}: {module} has A {list(down.shape)} and B {list(up.shape)}, the weight of {base.name} "
                f"is {list(weight.shape)}; expected [r, in], [out, r] and [out, in]"
            )
        tensors[name] = replace(weight, read=partial(_merged, weight, down, up, _scale(adapter.adapter, rank)))
    if trained is not None:
        tensors |= trained_beside(trained)
    parts = [adapter, base] + ([trained] if trained is not None else [])
    return replace(_derived(*parts, tensors=tensors), config={**base.config, **told_beside(adapter, trained)})


def kept_in_full(adapter: Source) -> dict[str, LazyTensor]:
    """What an adapter's file holds of modules that were trained in full (`modules_to_save`), by their published names.

    Raises:
        CheckpointError: a key of another kind of adapter.
    """
    found: dict[str, LazyTensor] = {}
    for name, tensor in adapter.tensors.items():
        if LORA.fullmatch(name) is not None or UNTRAINED in name:
            continue
        if NO_LORA.fullmatch(name) is not None or not name.startswith(PEFT):
            raise CheckpointError(f"{adapter.name}: {name} is no part of a plain LoRA of linear layers")
        found[IN_FULL.sub("", name.removeprefix(PEFT))] = tensor
    return found


def _older(name: str) -> str:
    for pattern, before in OLDER:
        name = re.sub(f"^{pattern}", before, name)
    return name


def adapted_weights(adapter: Source) -> dict[str, LazyTensor]:
    """The weights that an adapter is added to, by their published names: shapes, not to be read."""
    pairs = lora_pairs(adapter)
    return {f"{name}.weight": replace(up, shape=(up.shape[0], down.shape[1])) for name, (down, up) in pairs.items()}


def trained_beside(trained: Source) -> dict[str, LazyTensor]:
    """What was trained in full beside an adapter, by the names that a whole checkpoint has."""
    return {name.removeprefix(PEFT): tensor for name, tensor in trained.tensors.items()}


def told_beside(adapter: Source, trained: Source | None) -> dict[str, Any]:
    """The settings that the training wrote beside the adapter (projector, towers)."""
    config = adapter.config or (trained.config if trained is not None else {})
    return config if config.get("model_type") else {}


def lora_pairs(adapter: Source) -> dict[str, tuple[LazyTensor, LazyTensor]]:
    """Adapted module, by its published name -> its A [r in] and B [out r].

    Raises:
        CheckpointError: a key that is no part of a plain LoRA, half a pair, or another rank than the settings have.
    """
    settings = adapter.adapter
    if not settings:
        raise CheckpointError(f"{adapter.path}: adapter_config.json, which holds its scale, is missing beside it")
    if settings.get("use_dora") or settings.get("fan_in_fan_out") or settings.get("alpha_pattern"):
        raise CheckpointError(f"{adapter.name}: expected plain LoRA; this one has DoRA or patterns of alpha")
    found: dict[str, dict[str, LazyTensor]] = {}
    kept_in_full(adapter)  # names what is neither this nor a pair
    for name, tensor in adapter.tensors.items():
        match = LORA.fullmatch(name)
        if match is None:
            continue
        if len(tensor.shape) != 2:
            raise CheckpointError(f"{adapter.name}: {name} is no part of a plain LoRA of linear layers")
        found.setdefault(match["module"], {})[match["part"]] = tensor
    half = next((module for module, parts in found.items() if set(parts) != {"A", "B"}), None)
    if half is not None:
        raise CheckpointError(f"{adapter.name}: {half} has only lora_{''.join(found[half])}; expected A and B")
    for module, parts in found.items():
        down, up = parts["A"].shape, parts["B"].shape
        if down[0] != up[1]:
            raise CheckpointError(
                f"{adapter.name}: {module} has A {list(down)} and B {list(up)}; expected [r, in] and [out, r]"
            )
        _scale(settings, down[0])
    return {module: (parts["A"], parts["B"]) for module, parts in found.items()}


def _scale(settings: Mapping[str, Any], rank: int) -> float:
    alpha = settings.get("lora_alpha")
    if not isinstance(alpha, int | float) or settings.get("r") not in (rank, None):
        raise CheckpointError(
            f"adapter_config.json: lora_alpha {alpha!r} and r {settings.get('r')!r}; the weights have r {rank}"
        )
    return alpha / sqrt(rank) if settings.get("use_rslora") else alpha / rank


def _merged(weight: LazyTensor, down: LazyTensor, up: LazyTensor, scale: float) -> Tensor:
    update = up.read().float() @ down.read().float()
    return update.mul_(scale).add_(weight.read()).to(weight.dtype)


def _sum(delta: LazyTensor, base: LazyTensor) -> Tensor:
    total, added = delta.read().float(), base.read()
    total[: added.shape[0] if added.dim() else None] += added
    return total.to(base.dtype)


def _without_rotary(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    return {name: tensor for name, tensor in tensors.items() if not ROTARY.fullmatch(name)}


def _derived(*parts: Source, tensors: dict[str, LazyTensor]) -> Source:
    """A set whose tensors are computed from others, with the first one's tokenizer."""
    first = parts[0]

    def release() -> None:
        for part in parts:
            for file in part.files:
                file.release()

    files = (WeightFile(path=first.path, tensors=tensors, release=release),)
    tokenizer = next((part.tokenizer for part in parts if part.tokenizer is not None), None)
    notes = tuple(f"{part.name}: {note}" for part in parts for note in part.notes)
    return replace(first, files=files, tokenizer=tokenizer, notes=notes)
