"""Confines this process for good, as far as the operating system can."""

import ctypes
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Sequence

from avllm.confinement import landlock, seccomp

_OPEN_FILES = 64
_SET_DUMPABLE, _SET_NO_NEW_PRIVS = 4, 38  # of prctl
_CAPABILITIES_VERSION, _READ_ALL_FILES = 0x20080522, 1 << 2  # CAP_DAC_READ_SEARCH: packages of another user
# What libraries look at beside themselves: where others are, and how many cores there are.
_SYSTEM_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SYSTEM_FOLDERS += ("/sys/devices/system/cpu",)
_PACKAGES = ("avllm", "av", "PIL", "numpy", "einops", "jaxtyping", "yaml")  # where they lie beside all others
_SITES = ("site-packages", "dist-packages")
_THREAD_BYTES = 48 << 20  # reserved for each thread of a library, of which there may be one for each core


def confine(*, memory_bytes: int, cpu_seconds: int, readable: Sequence[str]) -> dict[str, str]:
    """Gives up what decoding does not need. Nothing of it can be taken back, by whatever runs here later.

    Args:
        memory_bytes: of address space, beside what threads reserve.
        cpu_seconds: of all threads, in the whole life of the process.
        readable: folders that stay readable, of Python and its libraries.

    Returns:
        what is in force, by `limits`, `files` and `calls`; empty texts for what the system cannot do.

    Raises:
        OSError: the system has it, but does not do it.
    """
    if platform.system() == "Linux":
        _no_new_rights()
    limits = _limits(memory_bytes, cpu_seconds)
    files = landlock.restrict(readable)
    return {
        "limits": ", ".join(limits),
        "files": f"Landlock {files}" if files else "",
        "calls": "seccomp" if seccomp.restrict() else "",
    }


def describe() -> str:
    """What `confine` can do on this system, for people."""
    parts = {
        "other files (Landlock)": landlock.version() > 0,
        "the network, programs and other processes (seccomp)": seccomp.is_there(),
        "more than their share of memory, CPU time and open files (hard limits)": os.name == "posix",
    }
    kept = [name for name, is_there in parts.items() if is_there]
    lost = [name for name, is_there in parts.items() if not is_there]
    text = f"kept from {', '.join(kept)}" if kept else "only a process of their own and a clock"
    return text + (f"; not, on this system, from {', '.join(lost)}" if lost else "")


def readable_files() -> list[str]:
    """Folders and files of Python, its packages and shared libraries, as this process has found them."""
    folders = {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        folders |= {os.path.join(prefix, name) for name in ("lib", "lib64")} if prefix not in ("", "/") else set()
    folders |= {os.path.abspath(entry) for entry in sys.path if os.path.basename(entry.rstrip(os.sep)) in _SITES}
    for name in _PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            folders.add(os.path.dirname(os.path.realpath(file)))
    return sorted({*folders, *_loaded_libraries(), *_SYSTEM_FOLDERS})


def _loaded_libraries() -> set[str]:
    """Shared libraries in this process, wherever they lie."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    return {path for path in paths if ".so" in os.path.basename(path)}


def _limits(memory_bytes: int, cpu_seconds: int) -> list[str]:
    """Sets soft and hard limits; only processes with special rights can lift hard ones.

    The number of processes is no limit here: it counts all of a user's. The filter of calls forbids new ones.
    """
    try:
        import resource
    except ImportError:  # Windows bounds no process this way
        return []
    wanted = {
        "memory": (resource.RLIMIT_AS, memory_bytes + (os.cpu_count() or 1) * _THREAD_BYTES),
        "CPU time": (resource.RLIMIT_CPU, cpu_seconds),
        "open files": (resource.RLIMIT_NOFILE, _OPEN_FILES),
        "written files": (resource.RLIMIT_FSIZE, 0),
        "core dumps": (resource.RLIMIT_CORE, 0),
    }
    done = []
    for name, (limit, value) in wanted.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(limit, (value, value))
            done.append(name)
        except (OSError, ValueError):  # macOS bounds no address space
            continue
    return done


def _no_new_rights() -> None:
    """No rights of root, none by programs that have some, and no look into this process by others of its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0))
    permitted = ctypes.create_string_buffer(24)
    _check(libc.capget(header, permitted))
    kept = struct.unpack("=6I", permitted.raw[:24])[1] & _READ_ALL_FILES
    data = ctypes.create_string_buffer(struct.pack("=6I", kept, kept, 0, 0, 0, 0))
    _check(libc.capset(header, data))
    arguments = [ctypes.c_ulong(0)] * 3
    _check(libc.prctl(_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *arguments))
    _check(libc.prctl(_SET_DUMPABLE, ctypes.c_ulong(0), *arguments))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
