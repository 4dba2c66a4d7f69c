"""The system call filter: a classic BPF program that allows a list of calls, some with certain arguments, and refuses the rest.

Kernel interface: seccomp(2) with SECCOMP_SET_MODE_FILTER. A filter sees `struct seccomp_data`: the call's number at byte 0, the
architecture at 4, six 64-bit arguments from 16 on. What lies behind a pointer it cannot see, so calls that hide their meaning
there are refused or said not to exist.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from backflip.sandbox import syscalls

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
GREATER_EQUAL = 0x35  # BPF_JMP|JGE|K
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
REFUSE, ABSENT = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
X32 = 0x40000000  # the bit that marks a call of x86-64's 32-bit pointer ABI, which no table covers

# Flags of open(2) that write, make or empty a file; those of the two architectures are equal.
WRITES = 0o3 | 0o100 | 0o1000 | 0o20000000  # O_ACCMODE | O_CREAT | O_TRUNC | __O_TMPFILE
CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
AF_UNIX, SOCK_STREAM = 1, 1
FCNTL = (0, 1, 2, 3, 4, 5, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_DUPFD_CLOEXEC
IOCTL = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, its size, FIONREAD, FIONBIO, FIO(N)CLEX
PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA

Instruction = tuple[int, int, int, int]
"""(operation, jump if true, jump if false, constant); jumps count the instructions they leave out."""


def program(machine: str, *, threads: bool) -> bytes:
    """The filter for a machine, as an array of `struct sock_filter`; with `threads` a program may start threads.

    Raises SandboxError for a machine whose system calls are not known.
    """
    numbers = syscalls.table(machine)
    code = [_load(4), (EQUAL, 1, 0, syscalls.AUDIT_ARCH[machine]), _give(KILL), _load(0)]
    if machine == "x86_64":
        code += [(GREATER_EQUAL, 0, 1, X32), _give(KILL)]
    for name, number in numbers.items():
        if name in syscalls.MISSING:
            rule = [_give(ABSENT)]
        elif name in syscalls.CONDITIONAL:
            rule = _rule(name, threads)
        else:
            rule = [_give(ALLOW)]
        code += [(EQUAL, 0, len(rule), number), *rule]
    code += [(GREATER_EQUAL, 0, 1, syscalls.NEWEST + 1), _give(ABSENT), _give(REFUSE)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _rule(name: str, threads: bool) -> list[Instruction]:
    """What follows the number of a conditional call; every path ends in a verdict."""
    if name == "open":
        return _no_bit(1, WRITES)
    if name == "openat":
        return _no_bit(2, WRITES)
    if name == "clone":
        return [
            _low(0),
            (ANY_BIT, 2, 0, CLONE_NEW),
            (ANY_BIT, 0, 1, CLONE_THREAD),
            _give(ALLOW if threads else REFUSE),
            _give(REFUSE),
        ]
    if name == "prlimit64":
        return _one_of(0, (0,))
    if name == "fcntl":
        return _one_of(1, FCNTL)
    if name == "ioctl":
        return _one_of(1, IOCTL)
    if name == "prctl":
        return _one_of(0, PRCTL)
    if name == "socketpair":
        # Connected to each other and, with no connect and no address in sendto, to nobody else. asyncio needs one.
        kinds = SOCK_STREAM | 0o2000000 | 0o4000  # with or without SOCK_CLOEXEC and SOCK_NONBLOCK
        other = 0xFFFFFFFF & ~kinds
        family = [_low(0), (EQUAL, 0, 4, AF_UNIX)]
        return [*family, _low(1), (ANY_BIT, 2, 0, other), (ANY_BIT, 0, 1, SOCK_STREAM), _give(ALLOW), _give(REFUSE)]
    # sendto without an address is send on what is connected.
    return [_low(4), (EQUAL, 0, 3, 0), _high(4), (EQUAL, 0, 1, 0), _give(ALLOW), _give(REFUSE)]


def _load(offset: int) -> Instruction:
    return (LOAD, 0, 0, offset)


def _low(argument: int) -> Instruction:
    return _load(16 + 8 * argument)  # both architectures are little-endian


def _high(argument: int) -> Instruction:
    return _load(20 + 8 * argument)


def _give(verdict: int) -> Instruction:
    return (RETURN, 0, 0, verdict)


def _no_bit(argument: int, mask: int) -> list[Instruction]:
    return [_low(argument), (ANY_BIT, 0, 1, mask), _give(REFUSE), _give(ALLOW)]


def _one_of(argument: int, values: Iterable[int]) -> list[Instruction]:
    tests = [instruction for value in values for instruction in ((EQUAL, 0, 1, value), _give(ALLOW))]
    return [_low(argument), *tests, _give(REFUSE)]
