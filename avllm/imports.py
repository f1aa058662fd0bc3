"""Imports of large packages, without pauses of Python's cyclic garbage collector.

While torch and transformers are imported a million objects come to life and none dies; the collector looks through all
of them again and again, and once more when the process ends: more than a third of the time of a short command
(benchmarks/ask.py).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
