"""Entry points that do what none may do; the fuzzer must see each of them."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from avllm.errors import MediaError
from tests.fuzz.case import Case, Good, good_file

_kept: list[bytes] = []


def corpus(folder: Path) -> list[Good]:
    """One file, called as the kind is."""
    return [good_file(folder, folder.name, b"x" * 100, "binary")]


def calls(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the kind is called after."""
    yield "fine", lambda: None
    if case.number != 1 or case.name == "leak":
        yield "refuse", _refuse
    if case.number == 1 or case.name == "leak":
        yield case.name, _STUBS[case.name]


def _refuse() -> None:
    raise MediaError("x: damaged; make it again")


def _address() -> None:
    raise MediaError(f"cannot read {object()!r}")


def _raise() -> None:
    raise KeyError("a slip")


def _hold() -> None:
    bytearray(64 * 2**20)


def _print() -> None:
    from avllm.config import parse

    try:
        parse(Case, 3)
    except Exception:
        sys.excepthook(*sys.exc_info())


_STUBS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "hang": lambda: time.sleep(600),
    "leak": lambda: _kept.append(b"x" * 2**20),
    "memory": _hold,
    "foreign": _raise,
    "address": _address,
    "log": _print,
}
