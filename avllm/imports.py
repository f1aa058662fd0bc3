"""Imports of large packages, without pauses of Python's cyclic garbage collector.

While torch and transformers are imported a million objects come to life and none dies; the collector looks through all
of them again and again, and once more when the process ends: more than a third of the time of a short command
(benchmarks/ask.py).
"""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def collector_paused() -> Iterator[None]:
    """Inside the block no garbage is looked for."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def models_listed_once() -> Iterator[None]:
    """Inside the block an import of transformers reads the sources of its models once, not twice.

    It asks for their list twice, folder by folder, through a cache of 128 entries; there are more folders than that, so
    that nothing is found again (findings/transformers_import_reads_models_twice.sh, 5.20 to 5.24).
    """
    bounded = functools.lru_cache

    def cached(maxsize: Any = 128, typed: bool = False) -> Callable[..., Any]:
        if getattr(maxsize, "__name__", "") == "create_import_structure_from_path":
            return bounded(maxsize=None)(maxsize)
        return bounded(maxsize, typed)

    functools.lru_cache = cached
    try:
        yield
    finally:
        functools.lru_cache = bounded
