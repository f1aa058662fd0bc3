"""Sources onto our model by their names and shapes alone: what fills what, what is dropped, missing or left over."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from avllm.checkpoints.families import FAMILIES, Parts, family_of
from avllm.checkpoints.kinds import Kind, kind_of
from avllm.checkpoints.rename import (
    Drop,
    Renamed,
    Table,
    matches,
    problems,
    published_names,
    rename,
    unshared_state,
)
from avllm.checkpoints.sources import Source
from avllm.errors import CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System

MAX_NAMED = 12
# Kinds that step back where the checkpoint itself holds the same weights, as it was trained with its own.
STEP_BACK = ("languagebind_image", "languagebind_video", "vision_tower", "beats")
OWN_IS_USED = "the checkpoint holds this weight itself"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source on our model.

    Args:
        source: the source.
        kind: what it is.
        table: its name table; None when no table knows its keys.
        renamed: its weights under our names, without data.
        faults: what is wrong with its keys, each line naming them.
    """

    source: Source
    kind: Kind
    table: Table | None
    renamed: Renamed
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """All sources on our model.

    Args:
        family: published system.
        system: ours.
        parts: the sources.
        expected: our name -> tensor without data, all that must be filled.
        config: of the whole model.
    """

    family: str
    system: System
    parts: list[Part]
    expected: dict[str, Tensor]
    config: AvllmConfig

    @property
    def missing_files(self) -> dict[str, int]:
        """What to get besides -> how many of our weights it fills; parts of which nothing was given."""
        filled = {name for part in self.parts for name in part.renamed.state}
        groups: dict[str, list[bool]] = {}
        for name in self.expected:
            groups.setdefault(_file_for(self.family, name), []).append(name in filled)
        return {file: len(known) for file, known in groups.items() if not any(known)}

    def faults(self) -> list[str]:
        """Everything that keeps the sources from filling the model; each line names the published key."""
        whole = Renamed(tables=tuple(part.table for part in self.parts if part.table is not None))
        found = [fault for part in self.parts for fault in part.faults]
        for part in self.parts:
            for name in part.renamed.state.keys() & whole.state.keys():
                found.append(f"{part.source.name}: {' + '.join(part.renamed.origin[name])} came from another file too")
            whole.state |= part.renamed.state
            whole.origin |= part.renamed.origin
            whole.dropped |= part.renamed.dropped
        absent = self.missing_files
        needed = {
            n: t.shape for n, t in self.expected.items() if n in whole.state or _file_for(self.family, n) not in absent
        }
        return [*found, *problems(needed, whole)]


def map_sources(sources: Sequence[Source], *, system: str | None = None) -> Mapped:
    """Puts every key of the sources on our model.

    Args:
        sources: opened files and folders.
        system: what the user asked for; None to tell by content.

    Raises:
        CheckpointError: a source is nothing that is known, or the sources do not tell the system.
    """
    parts: Parts = [(source, known(source)) for source in sources]
    family, names = family_of(parts, system)
    built = FAMILIES[family].system(parts, names)
    tables = FAMILIES[family].tables(built)
    config = AvllmConfig.from_system(built)
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(config)
    expected = unshared_state(model)[0]
    mapped = [map_part(source, kind, tables, expected) for source, kind in parts]
    _step_back(mapped)
    return Mapped(family=family, system=built, parts=mapped, expected=expected, config=config)


def known(source: Source) -> Kind:
    """The kind of a source.

    Raises:
        CheckpointError: its keys belong to nothing that is known.
    """
    kind = kind_of(source)
    if kind is None:
        some = ", ".join(list(source.tensors)[:3]) or "no tensors"
        raise CheckpointError(f"{source.path}: its keys ({some}, ...) belong to no published system that is known")
    return kind


def map_part(source: Source, kind: Kind, tables: Mapping[str, Table], expected: Mapping[str, Tensor]) -> Part:
    """One source by the table that knows most of its keys."""
    weights = source.meta()
    table = choose(weights, tables, expected)
    if table is None:
        return Part(
            source=source, kind=kind, table=None, renamed=Renamed(), faults=[f"{source.name}: no name table knows it"]
        )
    unknown = [name for name in weights if not matches(name, table)]
    faults = [f"left over {name} in {source.name}: the name table does not know it" for name in unknown]
    for name in unknown:
        del weights[name]
    try:
        renamed = rename(weights, table, source=source.name)
    except CheckpointError as error:  # a part of a joined weight is missing, two keys for one weight
        renamed = Renamed(tables=(table,))
        faults.append(str(error))
    return Part(source=source, kind=kind, table=table, renamed=renamed, faults=faults)


def choose(weights: Mapping[str, Tensor], tables: Mapping[str, Table], expected: Mapping[str, Tensor]) -> Table | None:
    """The table that maps most of the keys; of two, the one that leaves less of the model's weights unfilled."""
    scores = {}
    for name, table in tables.items():
        kept = {pattern: target for pattern, target in table.items() if not isinstance(target, Drop)}
        scores[name] = sum(matches(key, kept) for key in weights)
    best = max(scores.values(), default=0)
    if not best:
        return None
    first = [name for name, score in scores.items() if score == best]
    if len(first) > 1:
        first.sort(key=lambda name: sum(bool(published_names(ours, tables[name])) for ours in expected))
    return tables[first[0]]


def left_out(part: Part) -> Counter[str]:
    """Reason -> how many keys of the source are left out for it."""
    return Counter({**part.renamed.dropped, **part.source.left_out}.values())


def named(lines: Sequence[str]) -> str:
    """The first lines, and how many more there are."""
    more = f"; and {len(lines) - MAX_NAMED} more" if len(lines) > MAX_NAMED else ""
    return "; ".join(lines[:MAX_NAMED]) + more


def _step_back(parts: list[Part]) -> None:
    own = {name for part in parts if part.kind.name not in STEP_BACK for name in part.renamed.state}
    for part in parts:
        if part.kind.name in STEP_BACK:
            for name in own & part.renamed.state.keys():
                del part.renamed.state[name]
                part.renamed.dropped |= dict.fromkeys(part.renamed.origin.pop(name), OWN_IS_USED)


def _file_for(family: str, name: str) -> str:
    files = FAMILIES[family].files
    return next(file for prefix, file in files.items() if name.startswith(prefix))
