"""Sources onto our model by their names and shapes alone: what fills what, what is dropped, missing or left over."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from avllm.checkpoints.families import FAMILIES, Parts, equal_in_keys, family_of
from avllm.checkpoints.kinds import WHOLE, Kind, kind_of
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
from avllm.config import apply_overrides, parse, to_plain
from avllm.errors import AvllmError, CheckpointError
from avllm.model import AvllmConfig, AvllmForConditionalGeneration, System
from avllm.model.modeling import ODD_SIZES
from avllm.yamlfile import cut

MAX_NAMED = 12
# Kinds that step back where the checkpoint itself holds the same weights, as it was trained with its own.
STEP_BACK = ("languagebind_image", "languagebind_video", "vision_tower", "beats")
# Files of the systems themselves: what training makes between published encoders and a published language model.
TRAINED = ("vl", "al", "videochat", "mm_projector", "mm_projector_a")
OWN_IS_USED = "the checkpoint holds this part itself"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source on our model.

    Args:
        source: the source.
        kind: what it is.
        table_name: of its name table; empty when no table knows its keys.
        table: its name table.
        renamed: its weights under our names, without data.
        faults: what is wrong with its keys, each line naming them.
    """

    source: Source
    kind: Kind
    table_name: str
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
        tables: its name tables.
        expected: our name -> tensor without data, all that must be filled.
        config: of the whole model.
        start: whether the sources are what a training begins with.
    """

    family: str
    system: System
    parts: list[Part]
    tables: dict[str, Table]
    expected: dict[str, Tensor]
    config: AvllmConfig
    start: bool = False

    def missing_files(self, but: Collection[str] = ()) -> dict[str, int]:
        """What to get besides -> how many of our weights it fills: files of which nothing was given.

        Args:
            but: our weights that need no file.
        """
        files, makers = (
            FAMILIES[self.family].files,
            [maker for name, maker in self._absent.items() if name not in set(but)],
        )
        return dict(Counter(files.get(maker, f"the other files of {self.family}") for maker in makers))

    @property
    def untrained(self) -> list[str]:
        """Our weights that only the checkpoint of the system itself would hold, of which nothing was given."""
        return [name for name, maker in self._absent.items() if maker in TRAINED]

    @property
    def without_config(self) -> str | None:
        """What to say of a whole model whose folder has lost its configuration, so that published sizes were taken."""
        lost = next((part.source for part in self.parts if part.kind.name in WHOLE and not part.source.config), None)
        return lost and (
            f"{lost.path}: config.json is missing beside the weights, which are not of the published sizes of "
            f"{self.family}; download it into the folder, or describe the sizes with --system FILE.yaml"
        )

    @property
    def notes(self) -> list[str]:
        """What the keys leave open, how it was taken, and how to have it otherwise."""
        return equal_in_keys(self.system, [(part.source, part.kind) for part in self.parts])

    @cached_property
    def _absent(self) -> dict[str, str]:
        """Our weights that belong to a file of which nothing was given -> its table."""
        filled = {name for part in self.parts for name in part.renamed.state}
        given = {part.table_name for part in self.parts}
        files, absent = FAMILIES[self.family].files, {}
        connectors = {name.partition(".connector.")[0] for name in filled if ".connector." in name}
        for name in self.expected:
            if name not in filled:
                makers = [table for table in self.tables if published_names(name, self.tables[table])]
                # A checkpoint that gets a further branch could hold the connector of it; it has none of it.
                branch, _, part = name.partition(".connector.")
                if not given & set(makers) or (self.start and part and branch not in connectors):
                    absent[name] = next((table for table in files if table in makers), "")
        return absent

    @cached_property
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
        needed = {name: tensor.shape for name, tensor in self.expected.items() if name not in self._absent}
        return [*found, *problems(needed, whole)]


def map_sources(
    sources: Sequence[Source], *, system: str | None = None, overrides: Sequence[str] = (), start: bool = False
) -> Mapped:
    """Puts every key of the sources on our model.

    Args:
        sources: opened files and folders.
        system: what the user asked for; None to tell by content.
        overrides: `a.b=c` of the system.
        start: whether they are what a training begins with.

    Raises:
        CheckpointError: a source is nothing that is known, or the sources do not tell the system.
        ConfigError: an override that no such system has.
    """
    parts: Parts = [(source, known(source)) for source in sources]
    family, names = family_of(parts, system)
    with _odd_settings(family, sources):
        systems = FAMILIES[family].systems(parts, names)
    systems = [overridden(built, overrides) for built in systems]
    candidates = [_map(family, built, parts, start=start) for built in systems]
    return min(candidates, key=lambda mapped: len(mapped.faults))


def overridden(system: System, overrides: Sequence[str]) -> System:
    """The system with every `a.b=c` applied."""
    return parse(System, apply_overrides(to_plain(system), overrides)) if overrides else system


@contextmanager
def _odd_settings(family: str, sources: Sequence[Source]) -> Iterator[None]:
    """Whatever odd values in the settings beside published weights raise, as one error that names the file."""
    try:
        yield
    except AvllmError:
        raise
    except (*ODD_SIZES, StrictDataclassError) as error:
        files = [str(source.path) for source in sources if source.config]
        told = cut(" ".join(str(error).split()))
        raise CheckpointError(
            f"{', '.join(files)}: its config.json describes no {family} ({type(error).__name__}: {told})"
        ) from error


def _map(family: str, system: System, parts: Parts, *, start: bool) -> Mapped:
    with _odd_settings(family, [source for source, _ in parts]):
        tables = FAMILIES[family].tables(system, start=start)
        config = AvllmConfig.from_system(system)
    with torch.device("meta"):
        model = AvllmForConditionalGeneration(config)
    expected = unshared_state(model)[0]
    mapped = [map_part(source, kind, tables, expected) for source, kind in parts]
    _step_back(mapped)
    return Mapped(
        family=family, system=system, parts=mapped, tables=tables, expected=expected, config=config, start=start
    )


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
    name = choose(weights, tables, expected)
    if name is None:
        fault = f"{source.name}: no name table of this system knows its keys"
        return Part(source=source, kind=kind, table_name="", table=None, renamed=Renamed(), faults=[fault])
    table = tables[name]
    unknown = [key for key in weights if not matches(key, table)]
    faults = [f"left over {key} in {source.name}: the name table does not know it" for key in unknown]
    for key in unknown:
        del weights[key]
    try:
        renamed = rename(weights, table, source=source.name)
    except CheckpointError as error:  # a part of a joined weight is missing, two keys for one weight
        renamed = Renamed(tables=(table,))
        faults.append(str(error))
    return Part(source=source, kind=kind, table_name=name, table=table, renamed=renamed, faults=faults)


def choose(weights: Mapping[str, Tensor], tables: Mapping[str, Table], expected: Mapping[str, Tensor]) -> str | None:
    """The table that knows most of the keys; of two, the one that leaves less of the model's weights unfilled."""
    scores = {}
    for name, table in tables.items():
        kept = {pattern: target for pattern, target in table.items() if not isinstance(target, Drop)}
        if any(matches(key, kept) for key in weights):
            scores[name] = sum(matches(key, table) for key in weights)
    best = [name for name, score in scores.items() if score == max(scores.values())]
    if len(best) > 1:
        best.sort(key=lambda name: sum(bool(published_names(ours, tables[name])) for ours in expected))
    return best[0] if best else None


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
        if part.kind.name in STEP_BACK and own & part.renamed.state.keys():  # all of it: a hole must not be filled
            for names in part.renamed.origin.values():
                part.renamed.dropped |= dict.fromkeys(names, OWN_IS_USED)
            part.renamed.state.clear()
            part.renamed.origin.clear()
