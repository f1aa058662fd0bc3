"""Strict YAML into frozen dataclasses, with dotted overrides. Every error names the full key path.

The types live with what they configure; this module only fills them. A field may be `bool`, `int`, `float`,
`str`, a `Literal`, `X | None`, `tuple[T, ...]`, `tuple[A, B]`, `dict[str, T]`, another dataclass, or a `Choice`.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from avllm.errors import ConfigError, DataError
from avllm.textfile import read_text
from avllm.yamlfile import MAX_SHOWN, cut, plain_yaml

T = TypeVar("T")
PACKAGE = Path(__file__).parent
MAX_YAML_BYTES = 4_000_000


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field whose `kind` key selects the dataclass: `Annotated[object, Choice(ENCODERS)]`.

    Args:
        table: kind -> frozen dataclass.
    """

    table: Mapping[str, type]


def parse(cls: type[T], data: object, where: str = "") -> T:
    """Fills the dataclass `cls` from plain data.

    Args:
        cls: a dataclass; its field types are obeyed strictly (an int is taken for a float, nothing else is converted).
        data: what `yaml.safe_load` returned.
        where: key path of `data`, for errors.

    Raises:
        ConfigError: unknown or missing key, wrong type, a value outside a Literal. The full key path is named.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'top level'}: expected keys and values, got {_show(data)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in data:
        if key not in fields:
            raise ConfigError(f"{_join(where, key)}: unknown key{_suggest(str(key), fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(where, name)}: missing, expected {_name(hints[name])}")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:  # a check in __post_init__
        raise ConfigError(f"{where + ': ' if where else ''}{error}") from error


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Reads a YAML file, applies `a.b=c` overrides, and fills `cls`."""
    return parse(cls, apply_overrides(read_yaml(path), overrides))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads one YAML mapping of plain values; nothing in it is run.

    Raises:
        ConfigError: it cannot be read, is too large, or has aliases, keys that are no texts, or a key twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; a YAML of at most {MAX_YAML_BYTES} is read")
        data = plain_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except ConfigError:
        raise
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values at the top level, got {_show(data)}")
    return data


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of `data` with every `a.b=c` applied; c is read as YAML, list items are named by number.

    Raises:
        ConfigError: an override without `=`, or a path that runs through a plain value.
    """
    result = _copy(data)
    for override in overrides:
        path, sign, text = override.partition("=")
        if not sign or not path.strip():
            raise ConfigError(f"override {cut(override)!r}: expected KEY.PATH=VALUE, for example schedule.lr=1.0e-4")
        *parents, last = path.strip().split(".")
        node: Any = result
        for depth, key in enumerate(parents):
            node = _step(node, key, ".".join(parents[: depth + 1]))
        try:
            value = plain_yaml(text)
        except ValueError as error:
            raise ConfigError(f"override {cut(override)!r}: the value is {error}") from error
        if isinstance(node, list):
            node[_index(node, last, path)] = value
        else:
            node[last] = value
    return result


def to_plain(value: Any) -> Any:
    """Turns nested dataclasses back into the plain data that `parse` reads (tuples become lists)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        kinds = typing.get_type_hints(type(value), include_extras=True)
        for name, hint in kinds.items():
            choice = _choice(hint)
            if choice is not None and plain.get(name) is not None:
                kind = next(k for k, c in choice.table.items() if c is type(getattr(value, name)))
                plain[name] = {"kind": kind, **plain[name]}
        return plain
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def find_file(folder: Literal["configs", "train_configs", "eval_configs"], name: str | Path) -> Path:
    """Finds a YAML: as a path, below the checkout's `folder`, or in the copy inside the installed package.

    Args:
        folder: which of the shipped folders.
        name: a path, or a name such as `nano` or `nano/video_stage1` with or without `.yaml`.

    Raises:
        ConfigError: it is in none of them; the names that exist are listed.
    """
    relative = Path(str(name).removeprefix(f"{folder}/"))
    bases = [PACKAGE.parent / folder, PACKAGE / folder]
    candidates = [Path(name), *(base / relative for base in bases)]
    for candidate in candidates:
        for path in (candidate, candidate.with_name(candidate.name + ".yaml")):
            if path.is_file():
                return path
    known = sorted({str(p.relative_to(b).with_suffix("")) for b in bases if b.is_dir() for p in b.rglob("*.yaml")})
    raise ConfigError(f"{name}: no such YAML; {folder}/ holds: {', '.join(known) or 'nothing'}")


def _value(hint: Any, value: Any, where: str) -> Any:
    choice = _choice(hint)
    if choice is not None:
        if value is None and _allows_none(hint):
            return None
        return _chosen(choice, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(args[0], value, where)
    if origin is Literal:
        if isinstance(value, bool) and value not in args and ("off", "on")[value] in args:
            return ("off", "on")[value]  # YAML 1.1 reads the bare words as false and true
        if value in args and not (isinstance(value, bool) and True not in args and False not in args):
            return value
        raise ConfigError(f"{where}: got {_show(value)}, allowed are: {', '.join(map(str, args))}")
    if origin in (typing.Union, types.UnionType):
        return _union(args, value, where)
    if origin is tuple:
        return _tuple(args, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected keys and values, got {_show(value)}")
        return {_value(args[0], k, _join(where, k)): _value(args[1], v, _join(where, k)) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, where)  # type: ignore[arg-type]
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint in (Any, object):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where}: expected a float, got a number too large for one") from error
    if hint is float and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            pass
        else:
            text = f"{number:.1e}" if "e" in value.lower() else str(number)
            raise ConfigError(f"{where}: expected a float, got the text {cut(value)!r}; write {text}")
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: expected {_name(hint)}, got {_show(value)}")


def _union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    rest = [arg for arg in args if arg is not type(None)]
    if len(rest) == 1:
        return _value(rest[0], value, where)
    for arg in rest:
        try:
            return _value(arg, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}: expected {' or '.join(map(_name, rest))}, got {_show(value)}")


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {_show(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{where}: expected a list of {len(args)}, got {len(value)} items")
    return tuple(_value(arg, item, f"{where}.{i}") for i, (arg, item) in enumerate(zip(args, value, strict=True)))


def _chosen(choice: Choice, value: Any, where: str) -> Any:
    known = ", ".join(sorted(choice.table))
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected keys and values with a kind ({known}), got {_show(value)}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in choice.table:
        shown = "missing" if kind is None else f"{cut(str(kind))!r} is unknown"
        raise ConfigError(f"{where}.kind: {shown}, known are: {known}")
    return parse(choice.table[kind], {k: v for k, v in value.items() if k != "kind"}, where)


def _choice(hint: Any) -> Choice | None:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((c for c in map(_choice, typing.get_args(hint)) if c is not None), None)
    if typing.get_origin(hint) is typing.Annotated:
        return next((m for m in hint.__metadata__ if isinstance(m, Choice)), None)
    return None


def _allows_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _step(node: Any, key: str, path: str) -> Any:
    at: Any = _index(node, key, path) if isinstance(node, list) else key
    if (node[at] if isinstance(node, list) else node.get(at)) is None:
        node[at] = {}
    if not isinstance(node[at], dict | list):
        raise ConfigError(f"override: {path} is the value {cut(repr(node[at]))}, it has no keys below it")
    return node[at]


def _index(node: list[Any], key: str, path: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10) or int(key) >= len(node):
        raise ConfigError(f"override: {path}: expected an item number below {len(node)}, got {key!r}")
    return int(key)


def check_choice(where: str, value: object, known: Sequence[str]) -> None:
    """Raises ConfigError when a value is none of those that are known, and names the nearest."""
    if value not in known:
        raise ConfigError(f"{where}: {value!r} is unknown{_suggest(str(value), dict.fromkeys(known))}")


def _copy(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(item) for item in data] if isinstance(data, list) else data


def _join(where: str, key: object) -> str:
    return f"{where}.{cut(str(key))}" if where else cut(str(key))


def nearest(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'this'?`, or nothing where no name is like it."""
    near = difflib.get_close_matches(key[:MAX_SHOWN], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _suggest(key: str, known: Mapping[str, Any]) -> str:
    near = nearest(key, known)
    return f"{near}{'' if near else ';'} known are: " + ", ".join(known)


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {cut(value)!r}"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > 10**18:
        return "a number of more than 18 digits"
    return f"{value!r}"


def _name(hint: Any) -> str:
    names = {bool: "true or false", int: "an int", float: "a float", str: "a text"}
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if _choice(hint) is not None or dataclasses.is_dataclass(hint):
        return "keys and values"
    return names.get(hint, str(hint).replace("typing.", ""))
