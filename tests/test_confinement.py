"""The filter of system calls on machines other than this one, run step by step."""

import errno
import struct

import pytest

from avllm.confinement.seccomp import _AARCH64, _FORBIDDEN, _KILL, _MACHINES, _X86_64, _program

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
PID, THREAD = 4321, 0x10000 | 0x100
# read, futex, mmap, sendmsg and rt_sigreturn
NEEDED = {"x86_64": (0, 202, 9, 46, 15), "aarch64": (63, 98, 222, 211, 139)}


def verdict(machine, number, *arguments, architecture=None):
    """What the filter says of a call: it loads, jumps and returns, as the kernel runs it."""
    found = _MACHINES[machine]
    given = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, architecture or found.architecture, 0, *given)
    program, at, value = [struct.unpack("=HBBI", step) for step in _program(found, PID)], 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
            continue
        test = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand, 0x45: bool(value & operand)}
        at += yes if test[code] else no


@pytest.mark.parametrize(("machine", "numbers"), [("x86_64", _X86_64), ("aarch64", _AARCH64)])
def test_calls_are_allowed_and_forbidden_as_the_table_says(machine, numbers):
    assert {verdict(machine, numbers[name]) for name in _FORBIDDEN if name in numbers} == {EPERM}
    assert {verdict(machine, number) for number in NEEDED[machine]} == {ALLOW}
    assert verdict(machine, numbers["clone3"]) == ENOSYS
    assert verdict(machine, 463) == verdict(machine, 0x40000000 + 41) == ENOSYS
    assert verdict(machine, 0, architecture=0x40000003) == _KILL  # calls as on another machine


@pytest.mark.parametrize(("machine", "numbers"), [("x86_64", _X86_64), ("aarch64", _AARCH64)])
def test_calls_that_depend_on_their_arguments(machine, numbers):
    def of(name, *arguments):
        return verdict(machine, numbers[name], *arguments)

    assert (of("clone", THREAD), of("clone", 17)) == (ALLOW, EPERM)  # a thread, a process
    assert (of("kill", PID), of("kill", 1), of("kill", 2**32 - 1)) == (ALLOW, EPERM, EPERM)
    assert (of("tgkill", PID), of("tgkill", 1)) == (ALLOW, EPERM)
    assert (of("openat", 3, 0, 0), of("openat", 3, 0, 1), of("openat", 3, 0, 0o102)) == (ALLOW, EPERM, EPERM)
    assert (of("prlimit64", 0, 7, 0), of("prlimit64", 0, 7, 2**40), of("prlimit64", 0, 7, 1)) == (ALLOW, EPERM, EPERM)
    assert (of("fcntl", 3, 3), of("fcntl", 3, 8), of("fcntl", 3, 15)) == (ALLOW, EPERM, EPERM)
    assert (of("ioctl", 0, 0x5401), of("ioctl", 0, 0x5412)) == (ALLOW, EPERM)
    assert (of("prctl", 15), of("prctl", 4, 1)) == (ALLOW, EPERM)  # PR_SET_NAME, which threads use
    if "open" in numbers:
        assert (of("open", 0, 0), of("open", 0, 0o100)) == (ALLOW, EPERM)
