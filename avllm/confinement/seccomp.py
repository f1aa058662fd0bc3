"""A filter of system calls: no network, no programs, no processes, no signals to others, no changes of files.

Threads stay allowed: FFmpeg decodes in several. What a library may miss without harm fails with EPERM or ENOSYS.
Source: seccomp(2); the numbers are those of asm/unistd_64.h and of asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import Any

_NETWORK = "socket socketpair connect bind listen accept accept4"
_PROGRAMS = "execve execveat fork vfork"
_OTHERS = (
    "ptrace process_vm_readv process_vm_writev tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal"
    " pidfd_getfd process_madvise process_mrelease setpgid shmget msgget semget mq_open"
)
_FILES = (
    "openat2 creat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir link linkat symlink symlinkat mknod"
    " mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat setxattr"
    " lsetxattr fsetxattr removexattr lremovexattr fremovexattr truncate open_by_handle_at name_to_handle_at"
)
_SYSTEM = (
    "mount umount2 pivot_root chroot unshare setns bpf perf_event_open userfaultfd io_uring_setup io_uring_enter"
    " io_uring_register keyctl add_key request_key reboot swapon swapoff init_module finit_module delete_module"
    " kexec_load kexec_file_load move_mount open_tree fsopen fsmount fspick fsconfig mount_setattr setuid setgid"
    " personality fanotify_init quotactl acct syslog setrlimit"
)
_FORBIDDEN = f"{_NETWORK} {_PROGRAMS} {_OTHERS} {_FILES} {_SYSTEM}".split()

# fmt: off
_X86_64 = {
    "socket": 41, "socketpair": 53, "connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288,
    "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310,
    "process_vm_writev": 311, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_open": 434,
    "pidfd_send_signal": 424, "pidfd_getfd": 438, "process_madvise": 440, "process_mrelease": 448, "setpgid": 109,
    "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "openat2": 437, "creat": 85, "unlink": 87,
    "unlinkat": 263, "rename": 82, "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84,
    "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266, "mknod": 133, "mknodat": 259, "chmod": 90,
    "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "utime": 132, "utimes": 235, "utimensat": 280, "futimesat": 261, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "truncate": 76,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "mount": 165, "umount2": 166, "pivot_root": 155,
    "chroot": 161, "unshare": 272, "setns": 308, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "keyctl": 250, "add_key": 248,
    "request_key": 249, "reboot": 169, "swapon": 167, "swapoff": 168, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "move_mount": 429, "open_tree": 428,
    "fsopen": 430, "fsmount": 432, "fspick": 433, "fsconfig": 431, "mount_setattr": 442, "setuid": 105,
    "setgid": 106, "personality": 135, "fanotify_init": 300, "quotactl": 179, "acct": 163, "syslog": 103,
    "setrlimit": 160, "kill": 62, "tgkill": 234, "clone": 56, "clone3": 435, "open": 2, "openat": 257,
    "prlimit64": 302, "fcntl": 72, "ioctl": 16, "prctl": 157, "seccomp": 317,
}
_AARCH64 = {
    "socket": 198, "socketpair": 199, "connect": 203, "bind": 200, "listen": 201, "accept": 202, "accept4": 242,
    "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "tkill": 130,
    "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
    "process_madvise": 440, "process_mrelease": 448, "setpgid": 154, "shmget": 194, "msgget": 186, "semget": 190,
    "mq_open": 180, "openat2": 437, "unlinkat": 35, "renameat": 38, "renameat2": 276, "mkdirat": 34, "linkat": 37,
    "symlinkat": 36, "mknodat": 33, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
    "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15,
    "fremovexattr": 16, "truncate": 45, "open_by_handle_at": 265, "name_to_handle_at": 264, "mount": 40,
    "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241,
    "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "keyctl": 219,
    "add_key": 217, "request_key": 218, "reboot": 142, "swapon": 224, "swapoff": 225, "init_module": 105,
    "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "move_mount": 429,
    "open_tree": 428, "fsopen": 430, "fsmount": 432, "fspick": 433, "fsconfig": 431, "mount_setattr": 442,
    "setuid": 146, "setgid": 144, "personality": 92, "fanotify_init": 262, "quotactl": 60, "acct": 89, "syslog": 116,
    "setrlimit": 164, "kill": 129, "tgkill": 131, "clone": 220, "clone3": 435, "openat": 56, "prlimit64": 261,
    "fcntl": 25, "ioctl": 29, "prctl": 167, "seccomp": 277,
}
# fmt: on
_NEWEST = 462  # calls that came later are not known here, and what calls them knows kernels without them
_X32 = 0x40000000  # a second set of numbers on x86_64
_CLONE_THREAD, _WRITES = 0x10000, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Whom signals about a file go to, which can be another process; input that a terminal is made to believe was typed.
_FCNTL_OWNERS, _IOCTL_OWNERS = (8, 10, 15), (0x8901, 0x8902, 0x5412)
_PRCTL_TRACED = (4, 0x59616D61)  # PR_SET_DUMPABLE, PR_SET_PTRACER
_MODE_FILTER, _SYNC_THREADS = 1, 1

_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


@dataclass(frozen=True)
class _Machine:
    architecture: int
    numbers: dict[str, int]


_MACHINES = {"x86_64": _Machine(0xC000003E, _X86_64), "aarch64": _Machine(0xC00000B7, _AARCH64)}


def is_there() -> bool:
    """Whether this kernel and machine have it."""
    machine = _MACHINES.get(platform.machine())
    if platform.system() != "Linux" or machine is None:
        return False
    libc, action = ctypes.CDLL(None, use_errno=True), ctypes.c_uint32(_ALLOW)
    is_available = ctypes.c_long(2)  # SECCOMP_GET_ACTION_AVAIL
    number = ctypes.c_long(machine.numbers["seccomp"])
    return libc.syscall(number, is_available, ctypes.c_long(0), ctypes.byref(action)) == 0


def restrict() -> bool:
    """Puts the filter before all threads of this process, for good. `PR_SET_NO_NEW_PRIVS` must be set.

    Returns:
        whether it is in force: not where the kernel or the machine has none.

    Raises:
        OSError: the kernel has it, but does not do it.
    """
    if not is_there():
        return False
    machine = _MACHINES[platform.machine()]
    program = _program(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(program), 8 * len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    given = Program(len(program), ctypes.addressof(code))
    libc, number = ctypes.CDLL(None, use_errno=True), ctypes.c_long(machine.numbers["seccomp"])
    if libc.syscall(number, ctypes.c_long(_MODE_FILTER), ctypes.c_long(_SYNC_THREADS), ctypes.byref(given)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def _program(machine: _Machine, pid: int) -> list[bytes]:
    """The filter: what is not forbidden is allowed."""
    numbers = machine.numbers
    deny, absent = _step(_RETURN, _errno(errno.EPERM)), _step(_RETURN, _errno(errno.ENOSYS))
    program = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, machine.architecture, yes=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _X32, no=1),
        absent,
        _step(_ABOVE, _NEWEST, no=1),
        absent,
    ]
    for name in _FORBIDDEN:
        if name in numbers:  # aarch64 has no old forms
            program += [_step(_EQUAL, numbers[name], no=1), deny]
    # glibc then takes clone, whose flags can be looked at.
    program += [_step(_EQUAL, numbers["clone3"], no=1), absent]
    allow = _step(_RETURN, _ALLOW)
    own = [_argument(0), _step(_EQUAL, pid, no=1), allow, deny]
    program += _for(numbers["kill"], own) + _for(numbers["tgkill"], own)
    program += _for(numbers["clone"], [_argument(0), _step(_ANY_BIT, _CLONE_THREAD, no=1), allow, deny])
    for name, place in (("open", 1), ("openat", 2)):
        if name in numbers:
            program += _for(numbers[name], [_argument(place), _step(_ANY_BIT, _WRITES, no=1), deny, allow])
    reads = [
        *(_argument(2), _step(_EQUAL, 0, yes=1), deny),
        *(_argument(2, high=True), _step(_EQUAL, 0, yes=1), deny, allow),
    ]
    program += _for(numbers["prlimit64"], reads)
    for name, place, values in (("fcntl", 1, _FCNTL_OWNERS), ("ioctl", 1, _IOCTL_OWNERS), ("prctl", 0, _PRCTL_TRACED)):
        tests = [step for value in values for step in (_step(_EQUAL, value, no=1), deny)]
        program += _for(numbers[name], [_argument(place), *tests, allow])
    return [*program, allow]


def _for(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps for one call; each way through them returns."""
    return [_step(_EQUAL, number, no=len(steps)), *steps]


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _argument(place: int, *, high: bool = False) -> bytes:
    """Loads one half of an argument of the call; both machines are little-endian."""
    return _step(_LOAD, _ARGUMENTS_AT + 8 * place + 4 * high)


def _errno(code: int) -> Any:
    return 0x00050000 | code
