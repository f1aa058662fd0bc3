"""What a visitor is told of an error, and what the log is: neither holds what is no business of its reader."""

import logging
import re
import traceback
from collections.abc import Iterable

from avllm.errors import AvllmError, CheckpointError, DiskError, NumericError, OutOfMemory

INSIDE = "Something went wrong inside, and not with your file; the log of the demo says what. Try again."
NO_MEMORY = (
    "the demo has too little memory free for this answer; set fewer frames, fewer beams or a shorter answer "
    "in More settings, or try again in a minute"
)
_ADDRESS = re.compile(r"<[\w. ]+ (?:object )?at 0x[0-9a-fA-F]+>|\b0x[0-9a-fA-F]{4,}\b")
# A path from its root on, in the notation of either system, with or without quotes around it.
_STEP = r"[^\s\\/:*?\"'<>|()]"
_PATH = re.compile(rf"(?<![\w:/])(?:file:)?(?:[A-Za-z]:[\\/]|\\\\|/)(?:{_STEP}+[\\/]+)+({_STEP}*)")
_PRIVATE_IP = re.compile(
    r"\b(?:10\.\d+|127\.\d+|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+(?::\d+)?\b"
    r"|\[?\b(?:fe80|f[cd][0-9a-f]{2})(?::[0-9a-f]*)+\]?|(?<![\w:])::1(?![\w:])",
    re.IGNORECASE,
)


def line_for_visitor(error: BaseException) -> str | None:
    """An error as one line for the visitor; None when it is no fault of the file or the question."""
    if is_out_of_memory(error):
        return NO_MEMORY
    if isinstance(error, AvllmError) and not isinstance(error, CheckpointError | DiskError | NumericError):
        return without_secrets(" ".join(str(error).split()))
    return None


def without_secrets(text: str) -> str:
    """A text without addresses of memory, folders of the server and addresses of its network."""
    text = _ADDRESS.sub("…", text)
    text = _PATH.sub(lambda match: match[1] or "…", text)
    return _PRIVATE_IP.sub("…", text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this process had no memory left."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, MemoryError | OutOfMemory) or "OutOfMemoryError" in names


def log_fault(log: logging.Logger, what: str, error: BaseException, private: Iterable[str]) -> None:
    """Logs an error that nobody foresaw, with where it was met, without the visitor's words.

    Args:
        log: where to.
        what: went wrong.
        error: the exception.
        private: texts that are not to be kept: questions, names of files.
    """
    text = "".join(traceback.format_exception(error))
    for words in sorted({*private}, key=len, reverse=True):
        if len(words) > 1:
            text = text.replace(words, "[…]").replace(repr(words)[1:-1], "[…]")
    log.error("%s\n%s", what, text.rstrip())
