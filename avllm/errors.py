"""The errors that a user can cause. Each message says what was expected, what came, and what to do.

And the one that no user can cause: a fault of avllm or of a library, which is never told as one of the user's file.
"""

import logging
import platform
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import TypeVar

Result = TypeVar("Result")
logger = logging.getLogger(__name__)
ABSENT = "absent"
LONGEST_MESSAGE = 2000  # characters: a name or a text of megabytes is not told in whole
# Which releases a report of a fault needs to be understood.
NAMED = ("torch", "transformers", "av", "pillow")


class AvllmError(ValueError):
    """Base of every error that avllm raises on purpose; the command line prints it as one line."""


class MediaError(AvllmError):
    """A medium cannot be read: broken, empty, of an unknown kind, or over a limit."""


class NoAudioStream(MediaError):
    """The file is sound but holds no audio track: the one case that is normal."""


class ConfigError(AvllmError):
    """A YAML or an override is wrong; the message names the full key path."""


class CheckpointError(AvllmError):
    """Weights are missing, left over, of another shape, or not what they claim to be; the key is named."""


class DataError(AvllmError):
    """A record of a data set is wrong; the message names file, line and key."""


class DiskError(AvllmError):
    """A file or folder cannot be written: no space, no rights, or something else is there; the message names it."""


class InUse(AvllmError):
    """Another process writes to the same place; the message says which one, and since when."""


class NumericError(AvllmError):
    """A loss or a logit is not finite."""


class OutOfMemory(AvllmError):
    """A device has too little memory; the message names settings that would fit."""


class InternalError(RuntimeError):
    """A fault of avllm or of a library that it calls, met in another process; the message names it and the versions."""

    @classmethod
    def of(cls, error: Exception) -> "InternalError":
        """The error as it travels to the process that asked; where it was met goes with it as a note."""
        internal = cls(in_one_line(error))
        internal.add_note("".join(traceback.format_exception(error)))
        return internal


def is_fault(error: BaseException) -> bool:
    """Whether something went wrong; what is none is an order to stop. A panic of a library in Rust is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def attempted(call: Callable[[], Result]) -> Result | AvllmError:
    """What a call gives, or what is wrong with it, whatever it raises."""
    try:
        return call()
    except BaseException as error:
        if not is_fault(error):
            raise
        return named_fault(error)


def named_fault(error: BaseException) -> AvllmError:
    """An exception as an error that a row can tell: one of ours as it is, any other as what it is, a fault of code.

    It holds no frames any more, whose tensors would stay in memory beside the next question's.
    """
    found = error
    if not isinstance(found, AvllmError):
        logger.debug("an unexpected exception", exc_info=error)
        found = AvllmError(in_one_line(error))
    found.__traceback__ = found.__cause__ = found.__context__ = None
    return found


def in_one_line(error: BaseException) -> str:
    """What happened, by the exception's name, and the versions that matter, for an error that nobody foresaw."""
    if isinstance(error, InternalError):
        return str(error)
    what, root = _named(error), error
    while root.__cause__ is not None:
        root = root.__cause__
    what += f", as of {_named(root)}" if root is not error else ""
    releases = [f"avllm {version('avllm')}", f"Python {platform.python_version()}"]
    return f"{what} ({', '.join([*releases, *(f'{name} {version(name)}' for name in NAMED)])})"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {own_message(error)}".removesuffix(": ")


def own_message(error: BaseException) -> str:
    """The message in one line, without the traceback that DataLoader and Ray write into it in another process."""
    lines = str(error).splitlines()
    frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "') and ", line " in line]
    if frames:
        rest = [line for line in lines[frames[-1] + 1 :] if line.strip() and not line.startswith((" ", "\t"))]
        _, _, message = "\n".join(rest).partition(": ")
        lines = (message or "\n".join(rest)).splitlines()
    text = " ".join(" ".join(lines).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 4]} ..."


def version(package: str) -> str:
    """Of an installed package, without importing it; `ABSENT` if there is none."""
    if package == "avllm":  # also where it runs from its sources
        return sys.modules[package].__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT


def was_raised_in(error: BaseException, package: str) -> bool:
    """Whether code of a package raised it, itself or in what it called; a wrong call of the package by us does not."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return True
        trace = trace.tb_next
    return False
