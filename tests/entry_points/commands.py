"""A command line of avllm in this process, and what it complains of."""

import contextlib
import io
import sys
from unittest import mock

from avllm import cli


def printed(*words: object, typed: str = "") -> tuple[int, str]:
    """Runs a command line.

    Args:
        words: after `avllm`.
        typed: what the user types.

    Returns:
        Its exit code and all that it prints.
    """
    told = io.StringIO()
    stdin = mock.patch.object(sys, "stdin", io.StringIO(typed))
    with stdin, contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        code = cli.main([*map(str, words)])
    return code, told.getvalue()


def command(*words: object) -> str:
    """Runs a command line; the result is what it prints when it fails."""
    code, told = printed(*words)
    return told if code else ""
