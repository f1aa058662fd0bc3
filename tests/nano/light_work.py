"""What processes of a build are given to do in tests, in a module that is quick to import: each of them imports it."""

import os
import time
from pathlib import Path


def succeed(path: Path) -> None:
    path.write_text("done")


def fail() -> None:
    raise ValueError("on purpose")


def never_end(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)
