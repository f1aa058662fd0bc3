"""A published LoRA as an adapter folder of ours: beside a converted base model, not added to its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avllm.checkpoints import adapters, manifest
from avllm.checkpoints.convert import plan_weight, told_of_parts
from avllm.checkpoints.decoders import TIED, decoder_config
from avllm.checkpoints.families import FAMILIES
from avllm.checkpoints.kinds import LLAVA_LIKE, VIDEO_LLAVA
from avllm.checkpoints.load import base_name, find_model, load_config
from avllm.checkpoints.mapping import Mapped, Part, known, map_part, named
from avllm.checkpoints.overlays import (
    LORA,
    adapted_weights,
    kept_in_full,
    lora_pairs,
    told_beside,
    trained_beside,
)
from avllm.checkpoints.reading import LazyTensor, WeightFile, open_file
from avllm.checkpoints.rename import Convert, matches, unshared_state
from avllm.checkpoints.rename import Part as Joined
from avllm.checkpoints.shards import Planned, checked, digest
from avllm.checkpoints.sources import Source
from avllm.checkpoints.videollama2 import DECODERS
from avllm.checkpoints.wrapped import open_given
from avllm.durable import written_whole
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System

if TYPE_CHECKING:
    from peft import LoraConfig

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def convert_adapter(
    paths: Sequence[str | Path], out: str | Path, *, base: str, dtype: torch.dtype | None = None
) -> str:
    """Writes an adapter folder as `avllm train` does; it appears whole or not at all.

    Args:
        paths: files and folders of one published LoRA: its weights, adapter_config.json, non_lora_trainables.bin.
        out: the new folder.
        base: folder, hub id or name of the converted model that it was trained on, which the adapter will name.
        dtype: of the stored weights; None keeps that of each source.

    Returns:
        A summary.

    Raises:
        CheckpointError: the sources are no plain LoRA, do not fit the base, or the folder exists; what is wrong is
            named.
    """
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"--out {out}: exists already; expected a new folder")
    given = open_given(paths)
    adapter, trained = _apart(given)
    config, system, family = _base_of(base)
    _require_same_model(told_beside(adapter, trained), system, family, base)
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(config)
    mapped = _mapped(adapter, trained, model, system, family)
    faults = [*_not_adaptable(mapped.parts[0], model), *mapped.faults]
    if faults:
        sources = ", ".join(part.source.name for part in mapped.parts)
        raise CheckpointError(f"{sources} on --base {base}: {len(faults)} weights do not fit: {named(faults)}")
    with written_whole(out) as folder:
        _write(folder, adapter, mapped, base_name(base), dtype)
        tensors = {n: t for file in adapters.files_of(folder) for n, t in open_file(file).tensors.items()}
        sums = {name: digest(tensor.read()) for name, tensor in tensors.items()}
        manifest.write(folder, manifest.build(mapped, given, sums, folder))
    lines = [f"wrote {out}: an adapter of {family} on {base}", *told_of_parts(mapped)]
    return "\n".join([*lines, f"try: avllm ask CLIP QUESTION --model {out}"])


def _apart(given: Sequence[Source]) -> tuple[Source, Source | None]:
    kinds = [(source, known(source)) for source in given]
    lora = [source for source, kind in kinds if kind.name == "adapter"]
    trained = [source for source, kind in kinds if kind.name == "trained_parts"]
    other = next(((source, kind) for source, kind in kinds if source not in [*lora, *trained]), None)
    if other is not None:
        raise CheckpointError(
            f"{other[0].path}: is {other[1].what}; with --base, expected the files of an adapter alone"
        )
    if len(lora) != 1 or len(trained) > 1:
        raise CheckpointError(
            f"got {len(lora)} adapters and {len(trained)} files of parts trained beside one (non_lora_trainables.bin); "
            f"expected one adapter"
        )
    return lora[0], trained[0] if trained else None


def _base_of(base: str) -> tuple[AvllmConfig, System, str]:
    if adapters.is_adapter(find_model(base)):
        raise CheckpointError(f"--base {base}: is an adapter; make it a whole model first: avllm merge")
    config = load_config(base)
    system = config.parsed()
    if system.weights is None or system.weights.table not in FAMILIES:
        raise CheckpointError(f"--base {base}: expected a converted model of: {', '.join(FAMILIES)}; this is none")
    text = config.text_config
    return config, replace(system, decoder=decoder_config(text.model_type, text.to_dict())), system.weights.table


def _require_same_model(told: Mapping[str, Any], system: System, family: str, base: str) -> None:
    """What the configuration beside an adapter tells of its model must hold for the base, as shapes may be equal."""
    if not told:
        return
    kind, decoders = told["model_type"], {"llava": "llama"} if family == VIDEO_LLAVA else DECODERS
    odd = [] if family in LLAVA_LIKE and kind in decoders else [f"model_type {kind!r} is none of {family}"]
    if not odd:
        wanted = {"model_type": decoders[kind], **{name: told[name] for name in SIZES if name in told}}
        own = {name: system.decoder.get(name, value) for name, value in wanted.items()}
        odd = [f"{name} {value!r}, the base has {own[name]!r}" for name, value in wanted.items() if value != own[name]]
    if not odd and "mm_projector_type" in told:
        module = import_module(f"avllm.checkpoints.{FAMILIES[family].module}")
        if module.connector_from(told) != system.branches["video"].connector:
            odd = [f"mm_projector_type {told['mm_projector_type']!r}, the base has another one"]
    if odd:
        raise CheckpointError(f"--base {base}: the adapter's config.json is of another model: {'; '.join(odd)}")


def _mapped(
    adapter: Source, trained: Source | None, model: AvllmForConditionalGeneration, system: System, family: str
) -> Mapped:
    """The adapted weights, without data, and the trained ones, by the name tables of whole checkpoints."""
    tables, whole = FAMILIES[family].tables(system), unshared_state(model)[0]
    sources, whole_beside = [(adapter, adapted_weights(adapter))], kept_in_full(adapter)
    sources += [(adapter, whole_beside)] if whole_beside else []
    sources += [(trained, trained_beside(trained))] if trained is not None else []
    parts = [map_part(_with(source, tensors), known(source), tables, whole) for source, tensors in sources]
    assert isinstance(model.config, AvllmConfig)
    filled = {name for part in parts for name in part.renamed.state}
    # A part that was trained in full must be there in full: the base's own would go with it, half and half.
    connectors = tuple(f"{name.partition('.connector.')[0]}.connector." for name in filled if ".connector." in name)
    expected = {name: tensor for name, tensor in whole.items() if name in filled or name.startswith(connectors)}
    return Mapped(family=family, system=system, parts=parts, tables=tables, expected=expected, config=model.config)


def _with(source: Source, tensors: dict[str, LazyTensor]) -> Source:
    return replace(source, files=(WeightFile(path=source.path, tensors=tensors, left_out=source.left_out),))


def _not_adaptable(part: Part, model: nn.Module) -> list[str]:
    """Adapted weights that are no linear layer of their own in our model."""
    table = part.table or {}
    joined = {pattern: target for pattern, target in table.items() if isinstance(target, Joined | Convert)}
    odd = [name for name in part.source.tensors if matches(name, joined)]
    odd += [key for key, reason in part.renamed.dropped.items() if reason == TIED.reason]
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    odd += [names[0] for ours, names in part.renamed.origin.items() if ours not in linear and names[0] not in odd]
    why = "is adapted, and no linear layer of its own in our model; leave out --base and merge it"
    return [f"{name} {why}" for name in odd]


def _write(
    folder: Path,
    adapter: Source,
    mapped: Mapped,
    base: str,
    dtype: torch.dtype | None,
) -> None:
    modules = {keys[0]: ours.removesuffix(".weight") for ours, keys in mapped.parts[0].renamed.origin.items()}
    state: dict[str, Tensor] = {}
    for key, tensor in adapter.tensors.items():
        match = LORA.fullmatch(key)
        module = None if match is None else modules.get(f"{match['module']}.weight")
        if match is not None and module is not None:  # else it was dropped, or stands below in full
            item = Planned(
                name=f"{adapters.PEFT}{module}.lora_{match['part']}.weight",
                shape=tensor.shape,
                dtype=dtype or tensor.dtype,
                make=tensor.read,
                origin=f"{adapter.name}: {key}",
            )
            state[item.name] = checked(item)
    trained = {
        name: checked(plan_weight(part, name, dtype)) for part in mapped.parts[1:] for name in part.renamed.state
    }
    adapters.fill(folder, _settings(adapter, list(modules.values())), state, base=base, trained=trained)


def _settings(adapter: Source, modules: list[str]) -> "LoraConfig":
    from peft import LoraConfig

    settings, ranks = adapter.adapter, sorted({down.shape[0] for down, _ in lora_pairs(adapter).values()})
    if len(ranks) > 1:
        raise CheckpointError(f"{adapter.name}: has ranks {ranks}; expected one, leave out --base to merge it")
    return LoraConfig(
        r=ranks[0],
        lora_alpha=settings["lora_alpha"],
        use_rslora=bool(settings.get("use_rslora")),
        target_modules=modules,
        bias="none",
    )
