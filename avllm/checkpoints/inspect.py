"""What a file or folder is, where its keys go, and what else is needed to run it; no tensor of it is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avllm.checkpoints import adapters, kinds, manifest
from avllm.checkpoints.kinds import AVLLM, KINDS, kind_of
from avllm.checkpoints.load import SHIPPED, base_of_adapter, load_config
from avllm.checkpoints.mapping import Mapped, Part, left_out, map_sources
from avllm.checkpoints.overlays import adapted_weights
from avllm.checkpoints.rename import Renamed, problems, unshared_state
from avllm.checkpoints.sources import Source, open_sources, read_json
from avllm.checkpoints.wrapped import open_given
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration

NEEDS_BASE = {
    "adapter": "the model that it was trained on (its folder, or --decoder; to keep the adapter apart, --base with a "
    "converted model), and its non_lora_trainables.bin if any",
    "trained_parts": "the LoRA adapter beside it (adapter_model) and the model that it was trained on",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """One source.

    Args:
        source: its name.
        kind: short name of what it is; None when nothing knows its keys.
        what: in words.
        keys: tensors in it.
        mapped: keys that fill weights of ours.
        fills: weights of ours that they fill.
        dropped: reason -> keys left out for it.
        examples: reason -> one of these keys.
        problems: keys that do not fit, each named.
    """

    source: str
    kind: str | None
    what: str
    keys: int
    mapped: int = 0
    fills: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `avllm inspect` tells.

    Args:
        path: what was looked at.
        system: the published system; None when it is open.
        parts: the sources.
        missing: file to get -> weights that it fills.
        problems: what is damaged or does not fit.
        notes: other things to know.
    """

    path: str
    system: str | None = None
    parts: list[Found] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged and all keys fit; missing files are no fault."""
        return not self.problems and not any(part.problems for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        parts = [vars(part) for part in self.parts]
        return {**vars(self), "parts": parts, "ok": self.ok, "complete": self.ok and not self.missing}

    def to_table(self) -> str:
        """As lines of text."""
        lines = [f"{self.path}: {self.system or 'of no one system that is known'}"]
        for part in self.parts:
            lines.append(f"  {part.source}: {part.what}; {part.mapped} of {part.keys} keys fill {part.fills} weights")
            lines += [
                f"    left out: {count} keys: {reason} (as {part.examples.get(reason, '?')})"
                for reason, count in part.dropped.items()
            ]
            lines += [f"    problem: {problem}" for problem in part.problems]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  still needed: {file} ({count} weights)" for file, count in self.missing.items()]
        return "\n".join(lines)


def inspect(paths: Sequence[str | Path], *, system: str | None = None, overrides: Sequence[str] = ()) -> Report:
    """Looks at files and folders that belong together.

    Args:
        paths: files or folders of published weights, or one folder that `avllm convert` wrote, whose tensors are then
            read and compared with their checksums, or an adapter of ours.
        system: what the user says it is; None to tell by content.
        overrides: `a.b=c` of the system.

    Raises:
        CheckpointError: a file is refused or cannot be read.
    """
    name = ", ".join(str(path) for path in paths)
    if len(paths) == 1 and _is_converted(Path(paths[0])):
        return _converted(Path(paths[0]))
    if len(paths) == 1 and adapters.is_ours(Path(paths[0])):
        return _adapter(Path(paths[0]))
    sources = open_given(paths)
    return describe(sources, name=name, system=system, overrides=overrides)


def describe(
    sources: Sequence[Source], *, name: str, system: str | None = None, overrides: Sequence[str] = ()
) -> Report:
    """The report on opened sources.

    Args:
        sources: files and folders that belong together.
        name: of them all.
        system: what the user says it is; None to tell by content.
        overrides: `a.b=c` of the system.
    """
    usual: list[Source] = []
    found: list[Found] = []
    notes = [f"{source.name}: {note}" for source in sources for note in source.notes]
    for source in sources:
        kind = kind_of(source)
        if kind is None:
            problem = f"its keys ({', '.join(list(source.tensors)[:3])}, ...) belong to no system that is known"
            found.append(_alone(source, None, "unknown", [problem]))
        elif kind.name in NEEDS_BASE:
            found.append(_alone(source, kind.name, kind.what, []))
            notes.append(f"still needed: {NEEDS_BASE[kind.name]}")
        elif kind.name == "decoder" and kinds.is_delta(kinds.norms_of(source)):
            found.append(_alone(source, "delta", "the differences to a language model (a delta), not weights", []))
            notes.append("still needed: the folder of the model that the delta was made from (LLaMA)")
        else:
            usual.append(source)
    if not usual:
        return Report(path=name, parts=found, notes=notes)
    try:
        mapped = map_sources(usual, system=system, overrides=overrides)
    except CheckpointError as error:
        parts = [_alone(s, kind.name, kind.what, []) for s in usual if (kind := kind_of(s)) is not None]
        return Report(path=name, parts=[*found, *parts], notes=[*notes, str(error)])
    return _report(mapped, name, found, [*notes, *([] if overrides else mapped.notes)])


def _report(mapped: Mapped, name: str, found: list[Found], notes: list[str]) -> Report:
    own = {fault for part in mapped.parts for fault in part.faults}
    others = [fault for fault in mapped.faults if fault not in own]
    return Report(
        path=name,
        system=mapped.family,
        parts=[*found, *map(_found, mapped.parts)],
        missing=mapped.missing_files(),
        problems=[mapped.without_config] if mapped.faults and mapped.without_config else others,
        notes=notes,
    )


def _found(part: Part) -> Found:
    reasons = {**part.renamed.dropped, **part.source.left_out}
    return Found(
        source=part.source.name,
        kind=part.kind.name,
        what=part.kind.what,
        keys=len(part.source.tensors),
        mapped=len(part.source.tensors) - len(part.renamed.dropped) - len(part.faults),
        fills=len(part.renamed.state),
        dropped=dict(left_out(part)),
        examples={reason: key for key, reason in reasons.items()},
        problems=part.faults,
    )


def _alone(source: Source, kind: str | None, what: str, problems: list[str]) -> Found:
    return Found(source=source.name, kind=kind, what=what, keys=len(source.tensors), problems=problems)


def _is_converted(path: Path) -> bool:
    config = path / "config.json"
    return path.is_dir() and config.is_file() and read_json(config).get("model_type") == AVLLM.name


def _converted(folder: Path) -> Report:
    """A model folder of ours: is every tensor what was written?"""
    told = manifest.read(folder) if (folder / manifest.MANIFEST).is_file() else {}
    if "sources" not in told:
        return _saved(folder)
    faults = manifest.check(folder)
    reasons = Counter(reason for dropped in told["dropped"].values() for reason in dropped.values())
    return Report(
        path=str(folder),
        system=told.get("system"),
        parts=[
            Found(
                source=folder.name,
                kind=AVLLM.name,
                what=AVLLM.what,
                keys=len(told["tensors"]),
                mapped=len(told["tensors"]),
                fills=len(told["tensors"]),
                dropped=dict(reasons),
                examples={r: key for dropped in told["dropped"].values() for key, r in dropped.items()},
            )
        ],
        problems=faults,
        notes=[_made_from(told)],
    )


def _made_from(told: Mapping[str, Any]) -> str:
    what = {kind.name: kind.what for kind in KINDS}
    parts = [f"{part['source']} ({what.get(part['kind'], part['kind'])})" for part in told["parts"]]
    return f"made from: {', '.join(parts)}"


def _adapter(folder: Path) -> Report:
    """An adapter of ours: do its weights fit the base model that it names, and are they what was written?"""
    base, settings = base_of_adapter(folder), read_json(folder / adapters.ADAPTER)
    weights = {file.name: open_sources(file)[0] for file in adapters.files_of(folder)}
    state = {name: tensor.meta() for name, tensor in adapted_weights(weights[adapters.WEIGHTS]).items()}
    state |= weights[adapters.TRAINED].meta() if adapters.TRAINED in weights else {}
    notes = [f"adapter of {base}, unmerged: rank {settings.get('r')}, alpha {settings.get('lora_alpha')}"]
    faults: list[str] = []
    system = None
    if str(base) not in SHIPPED and not Path(base).is_dir():  # nothing is downloaded to be looked at
        notes.append(f"its base model is not here ({base}); whether it fits is not known")
    else:
        config = load_config(base)
        system, expected = _system_name(config), _expected(config)
        faults = problems({n: expected[n].shape for n in state if n in expected}, Renamed(state=state))
    if (folder / manifest.MANIFEST).is_file():
        faults += manifest.check(folder)
        told = manifest.read(folder)
        notes += [_made_from(told)] if "sources" in told else []
    keys = sum(len(source.tensors) for source in weights.values())
    part = Found(
        source=folder.name,
        kind="avllm_adapter",
        what="a LoRA adapter of avllm",
        keys=keys,
        mapped=keys,
        fills=len(state),
    )
    return Report(path=str(folder), system=system, parts=[part], problems=faults, notes=notes)


def _saved(folder: Path) -> Report:
    """A model folder that training or `save_pretrained` wrote: do names and shapes fit its configuration?"""
    config = load_config(folder)
    expected = _expected(config)
    sources = open_sources(folder)
    state = {name: tensor.meta() for source in sources for name, tensor in source.tensors.items()}
    faults: list[str] = []
    notes = []
    if config.text_config.model_type == "mixtral":  # transformers stores its experts one by one
        notes.append("names and shapes are not compared for this decoder")
    else:
        faults = problems({name: tensor.shape for name, tensor in expected.items()}, Renamed(state=state))
    num_odd = sum(not fault.startswith("missing") for fault in faults)
    if (folder / manifest.MANIFEST).is_file():
        faults += manifest.check(folder)
    else:
        notes.append(f"no checksums: no {manifest.MANIFEST}, which older versions did not write")
    part = Found(
        source=folder.name,
        kind=AVLLM.name,
        what=AVLLM.what,
        keys=len(state),
        mapped=len(state) - num_odd,
        fills=sum(name in state for name in expected),
    )
    return Report(path=str(folder), system=_system_name(config), parts=[part], problems=faults, notes=notes)


def _expected(config: AvllmConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return unshared_state(AvllmForConditionalGeneration(config))[0]


def _system_name(config: AvllmConfig) -> str:
    table = config.parsed().weights
    return table.table if table is not None else f"prompt {config.system['prompt']}"
