"""Landlock, of Linux 5.13 and later: a process and its threads read below a few folders, and open nothing else.

Source: Documentation/userspace-api/landlock.rst of the kernel.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable

# The same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# How many rights to files there are by version, and since which version there are rights to ports and to other
# processes (abstract sockets, signals).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_PORTS_SINCE, _SCOPES_SINCE = 4, 6
_PORTS, _SCOPES = 0b11, 0b11


def version() -> int:
    """Of Landlock in this kernel; 0 if there is none or it is switched off."""
    if platform.system() != "Linux":
        return 0
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def restrict(readable: Iterable[str]) -> int:
    """Forbids this process all files but those below some folders, which it may read, TCP ports, and signals to others.

    `PR_SET_NO_NEW_PRIVS` must be set.

    Args:
        readable: folders and files; what is not there is left out.

    Returns:
        the version in force; 0 if there is none.

    Raises:
        OSError: the kernel has it, but does not do it.
    """
    found = version()
    if not found:
        return 0
    rights = (1 << _FILE_RIGHTS.get(found, max(_FILE_RIGHTS.values()))) - 1
    attributes = struct.pack(
        "=QQQ", rights, _PORTS if found >= _PORTS_SINCE else 0, _SCOPES if found >= _SCOPES_SINCE else 0
    )
    size = 24 if found >= _SCOPES_SINCE else 16 if found >= _PORTS_SINCE else 8
    ruleset = _checked(_call(_CREATE_RULESET, ctypes.c_char_p(attributes), size, 0))
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        _checked(_call(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return found


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # pyright: ignore[reportAttributeAccessIssue]  (Linux)
    except OSError:
        return
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return libc.syscall(ctypes.c_long(number), *given)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
