"""The rename engine: published weights onto our names, whole or not at all.

A table maps published names to ours, first match wins:

    {
        "blocks.{n}.{rest}": Drop("not run", when=lambda match: int(match["n"]) >= 39),
        "blocks.{i}.attn.qkv.weight": "blocks.{i}.attention.qkv.weight",
        "layers.{i}.q_proj.{w}": Part("layers.{i}.qkv.{w}", 0, of=3),      # joined along axis 0 with parts 1 and 2
        "layers.{i}.experts.5.down.weight": Part("layers.{i}.down", 5, of=8, stack=8),          # one of eight experts
        "patch_embed.weight": Convert("patches.weight", add_time_axis),     # a pure function of the tensor
    }

`{i}`, `{j}` and `{n}` stand for a number, `{w}` for `weight` or `bias`, `{rest}` for anything, `{x:a|b}` for `a` or
`b`, any other name for what is between two dots. The same table read backwards names the published key of a weight of
ours that is missing.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn

from avllm.checkpoints.templates import compiled, filled, literal_start
from avllm.errors import CheckpointError

MAX_NAMED = 12


@dataclass(frozen=True)
class Drop:
    """A published weight that is left out on purpose.

    Args:
        reason: why; shown by every report.
        when: the rule holds only if this is true of the match; otherwise later rules are tried.
    """

    reason: str
    when: Callable[[Mapping[str, str]], bool] = lambda match: True


@dataclass(frozen=True)
class Part:
    """One of several published weights that are joined along axis 0 into one of ours.

    Args:
        target: our name.
        index: place among the parts, from 0.
        of: number of parts.
        stack: length of a new axis 0 of ours, over which the parts, all of one shape, are dealt in order; 0 adds none.
            Four parts [r c] with stack 2 give [2 2r c].
    """

    target: str
    index: int
    of: int
    stack: int = 0


@dataclass(frozen=True)
class Convert:
    """A published weight that becomes ours by a pure function, for example a reshape.

    Args:
        target: our name.
        function: published tensor -> our tensor; must also work on the meta device.
    """

    target: str
    function: Callable[[Tensor], Tensor]


Target = str | Drop | Part | Convert
Table = Mapping[str, Target]


@dataclass
class Renamed:
    """Weights under our names, with where each came from.

    Args:
        state: our name -> tensor.
        origin: our name -> published names it was made of.
        dropped: published name -> reason.
        tables: the tables used, to name the published key of what is missing.
        source: what the weights were read from, for errors.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    source: str = "weights"


def rename(weights: Mapping[str, Tensor], table: Table, *, source: str = "weights") -> Renamed:
    """Renames every published weight by the table or drops it with the table's reason.

    Args:
        weights: published name -> tensor, on any device, meta included. Tensors are shared, not copied.
        table: published -> ours.
        source: file name, for errors.

    Raises:
        CheckpointError: a key no rule matches, two keys with one name of ours, or a part that is missing.
    """
    result = Renamed(tables=(table,), source=source)
    parts: dict[str, dict[int, tuple[str, Tensor]]] = {}
    kinds: dict[str, Part] = {}
    unknown = []
    for name, tensor in weights.items():
        target = _target(name, table)
        if target is None:
            unknown.append(name)
        elif isinstance(target, Drop):
            result.dropped[name] = target.reason
        elif isinstance(target, Part):
            kinds[target.target] = target
            parts.setdefault(target.target, {})[target.index] = (name, tensor)
        else:
            ours, tensor = _converted(name, target, tensor, source)
            if ours in result.state:
                raise CheckpointError(
                    f"{source}: {name} and {result.origin[ours][0]} are both {ours}; expected one of them"
                )
            result.state[ours], result.origin[ours] = tensor, (name,)
    if unknown:
        raise CheckpointError(f"{source}: the name table does not know {_named(unknown)}; expected no other keys")
    for ours, found in parts.items():
        _join(found, kinds[ours], result)
    return result


def join(*renamed: Renamed) -> Renamed:
    """The weights of several files as one set.

    Raises:
        CheckpointError: two files hold the same weight of ours.
    """
    result = Renamed(source=", ".join(item.source for item in renamed))
    for item in renamed:
        twice = sorted(set(item.state) & set(result.state))
        if twice:
            raise CheckpointError(f"{item.source}: {_named(twice)} came from another file already; leave one out")
        result.state |= item.state
        result.origin |= item.origin
        result.dropped |= item.dropped
        result.tables += item.tables
    return result


def under(prefix: str, table: Table) -> dict[str, Target]:
    """The table with `prefix` put before each of our names."""
    moved: dict[str, Target] = {}
    for pattern, target in table.items():
        if isinstance(target, str):
            moved[pattern] = prefix + target
        elif isinstance(target, Part | Convert):
            moved[pattern] = replace(target, target=prefix + target.target)
        else:
            moved[pattern] = target
    return moved


def before(prefix: str, table: Table) -> dict[str, Target]:
    """The table with `prefix` put before each published name."""
    return {prefix + pattern: target for pattern, target in table.items()}


def published_names(ours: str, table: Table) -> tuple[str, ...]:
    """The published names of one weight of ours by this table; empty when the table does not make it."""
    names = []
    for rule in _rules(_ById(table)):
        if rule.template is None or not ours.startswith(rule.ours_start) or (names and not rule.is_part):
            continue  # after parts, a more general rule is another spelling of the same weight
        match = rule.template.fullmatch(ours)
        if match is None or not rule.regex.groupindex.keys() <= match.groupdict().keys():
            continue
        name = filled(rule.pattern, match.groupdict())
        found = _target(name, table)  # an earlier rule may take that name away
        if isinstance(found, str | Part | Convert) and (found if isinstance(found, str) else found.target) == ours:
            names.append(name)
            if not rule.is_part:
                break  # and so is one after this
    return tuple(names)


def matches(name: str, table: Table) -> bool:
    """Whether a rule of the table holds for this published name."""
    return _target(name, table) is not None


def problems(expected: Mapping[str, torch.Size], renamed: Renamed) -> list[str]:
    """What keeps the weights from filling modules of the expected shapes; each line names the published key.

    Args:
        expected: our name -> shape, all that must be filled.
        renamed: the weights.
    """
    found = []
    missing = [name for name in expected if name not in renamed.state]
    for name in missing:
        published = [key for table in renamed.tables for key in published_names(name, table)]
        # A key of this name that one file leaves out may be wanted of another.
        absent = [key for key in published if key not in renamed.dropped] or published
        found.append(f"missing {' + '.join(absent) or 'a published key'} (ours: {name})")
    for name, tensor in renamed.state.items():
        keys = " + ".join(renamed.origin.get(name, (name,)))
        if name not in expected:
            found.append(f"left over {keys} (would be {name}, which this configuration does not have)")
        elif tuple(tensor.shape) != tuple(expected[name]):
            shapes = f"expected {list(expected[name])}, got {list(tensor.shape)}"
            found.append(f"wrong shape {keys}: {shapes} (ours: {name})")
    return found


def load(module: nn.Module, renamed: Renamed) -> None:
    """Fills every parameter and persistent buffer of the module, or changes nothing.

    Modules on the meta device take the tensors themselves; others copy and convert to their own dtype. A parameter
    that several modules share is filled once, under its first name.

    Raises:
        CheckpointError: a weight is missing, left over or of another shape; each key is named.
    """
    current, shared = unshared_state(module)
    found = problems({name: tensor.shape for name, tensor in current.items()}, renamed)
    if found:
        raise CheckpointError(
            f"{renamed.source}: {len(found)} weights do not fit: {_named(found, '; ')}; "
            f"check that the file and the configuration belong together"
        )
    state = renamed.state | {name: renamed.state[first] for name, first in shared.items()}
    module.load_state_dict(state, assign=any(tensor.is_meta for tensor in current.values()))
    for name, first in shared.items():  # assigning makes two parameters of one
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, module.get_parameter(first))


def unshared_state(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state of a module without what is there twice, such as a head tied to the embedding.

    Returns:
        name -> tensor, each tensor once, and further name -> the name it has there.
    """
    names: dict[int, str] = {}
    state, shared = {}, {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        first = names.setdefault(id(tensor), name)
        if first == name:
            state[name] = tensor.detach()
        else:
            shared[name] = first
    return state, shared


def _target(name: str, table: Table) -> Target | None:
    for rule in _rules(_ById(table)):
        match = rule.regex.fullmatch(name) if name.startswith(rule.start) else None
        if match is None:
            continue
        groups, target = match.groupdict(), rule.target
        if isinstance(target, Drop):
            if target.when(groups):
                return target
        elif isinstance(target, Part | Convert):
            return replace(target, target=filled(target.target, groups))
        else:
            return filled(target, groups)
    return None


@dataclass(frozen=True)
class _Rule:
    """An entry of a table, ready to be asked about thousands of names: most fail at how they start."""

    pattern: str
    target: Target
    regex: re.Pattern[str]
    template: re.Pattern[str] | None  # of our name; a Drop has none
    start: str
    ours_start: str
    is_part: bool


@dataclass(frozen=True, eq=False)
class _ById:
    """A table as a key: the same one, not an equal one. Tables are never changed once they are made."""

    table: Table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.table is other.table


@lru_cache(maxsize=64)
def _rules(key: _ById) -> tuple[_Rule, ...]:
    found = []
    for pattern, target in key.table.items():
        ours = target if isinstance(target, str) else None if isinstance(target, Drop) else target.target
        template, is_part = None if ours is None else compiled(ours), isinstance(target, Part)
        starts = (literal_start(pattern), literal_start(ours or ""))
        found.append(_Rule(pattern, target, compiled(pattern), template, *starts, is_part))
    return tuple(found)


def _converted(name: str, target: str | Convert, tensor: Tensor, source: str) -> tuple[str, Tensor]:
    if isinstance(target, str):
        return target, tensor
    try:
        return target.target, target.function(tensor)
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{source}: {name} of shape {list(tensor.shape)} cannot be converted: {error}") from error


def _join(found: Mapping[int, tuple[str, Tensor]], part: Part, result: Renamed) -> None:
    ours = part.target
    if sorted(found) != list(range(part.of)):
        names = [name for name, _ in found.values()]
        absent = [n for n in published_names(ours, result.tables[0]) if n not in names]
        raise CheckpointError(f"{result.source}: missing {_named(absent)} beside {_named(names)} (ours: {ours})")
    names, tensors = zip(*(found[index] for index in range(part.of)), strict=True)
    # Joined along rows, parts may differ in their number; dealt over a new axis, they may not.
    shapes = {tuple(tensor.shape[0 if part.stack else 1 :]) for tensor in tensors}
    if len(shapes) > 1:
        told = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in zip(names, tensors, strict=True))
        raise CheckpointError(f"{result.source}: the parts of {ours} differ in shape: {told}")
    joined = torch.cat(tensors)
    if part.stack:
        joined = rearrange(joined, "(e r) ... -> e r ...", e=part.stack)
    result.state[ours], result.origin[ours] = joined, names


def _named(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    more = f"{between}and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return between.join(names[:MAX_NAMED]) + more
