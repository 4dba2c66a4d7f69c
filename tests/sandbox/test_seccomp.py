"""The system call filter of both architectures, run in a small interpreter of its instruction set; and its numbers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from backflip.errors import SandboxError
from backflip.sandbox import seccomp, syscalls
from tests.sandbox.attacks import AARCH64, EVERYWHERE, X86_64

MACHINES = ("x86_64", "aarch64")
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
FORKS = {"x86_64": {"fork": 57, "vfork": 58, "execve": 59, "kill": 62, "socket": 41, "connect": 42}, "aarch64": {
    "execve": 221, "kill": 129, "tgkill": 131, "socket": 198, "connect": 203, "bind": 200}}  # fmt: skip


def verdict(program: bytes, number: int, *arguments: int, arch: int) -> int:
    """What the kernel would do with a call: runs the program on its `struct seccomp_data`."""
    padded = (*arguments, *([0] * (6 - len(arguments))))
    data = struct.pack("<IIQ6Q", number, arch, 0, *(a & (2**64 - 1) for a in padded))
    code = [struct.unpack_from("=HBBI", program, i) for i in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif operation == 0x06:
            return constant
        else:
            jump = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}[operation]
            at += yes if jump else no


class Filter:
    """The filter of one machine."""

    def __init__(self, machine: str, *, threads: bool = False) -> None:
        self.program = seccomp.program(machine, threads=threads)
        self.arch = syscalls.AUDIT_ARCH[machine]
        self.numbers = syscalls.table(machine)

    def __call__(self, call: str | int, *arguments: int) -> int:
        number = self.numbers[call] if isinstance(call, str) else call
        return verdict(self.program, number, *arguments, arch=self.arch)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_listed_is_refused(machine: str) -> None:
    look = Filter(machine)
    listed = set(look.numbers.values())
    for number in range(syscalls.NEWEST + 1):
        if number not in listed:
            assert look(number) == EPERM, number
    assert look(syscalls.NEWEST + 1) == ENOSYS
    attacks = EVERYWHERE | (X86_64 if machine == "x86_64" else AARCH64) | FORKS[machine]
    for name, number in attacks.items():
        assert look(number) == (ENOSYS if name in syscalls.MISSING else EPERM), name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_every_program_needs_is_allowed(machine: str) -> None:
    look = Filter(machine)
    for name in set(look.numbers) - {*syscalls.CONDITIONAL, *syscalls.MISSING}:
        assert look(name, 2**64 - 1, 2**63) == ALLOW, name


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    look = Filter(machine)
    for other in (0x40000003, 0xC000003E ^ 0xC00000B7 ^ look.arch, 0):  # i386, the other of the two, nothing
        assert verdict(look.program, look.numbers["read"], arch=other) == KILL


def test_the_32_bit_pointer_abi_is_killed() -> None:
    look = Filter("x86_64")
    assert look(0x40000000 | 39) == KILL
    assert look(0xFFFFFFFF) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "arguments", "allowed"),
    [
        ("openat", (-100, 1, 0), True), ("openat", (-100, 1, 0o2200000), True), ("openat", (-100, 1, 0o1), False),
        ("openat", (-100, 1, 0o2), False), ("openat", (-100, 1, 0o100), False), ("openat", (-100, 1, 0o1000), False),
        ("openat", (-100, 1, 0o20000000), False), ("openat", (-100, 1, 0o3), False),
        ("prlimit64", (0, 7), True), ("prlimit64", (1, 7), False), ("prlimit64", (2**32, 7), True),  # its argument has 32 bits
        ("fcntl", (3, 1), True), ("fcntl", (3, 8), False), ("fcntl", (3, 10), False), ("fcntl", (3, 15), False),
        ("fcntl", (3, 1031), False), ("ioctl", (0, 0x5401), True), ("ioctl", (0, 0x5412), False), ("ioctl", (0, 0x8901), False),
        ("prctl", (15,), True), ("prctl", (1,), False), ("prctl", (22,), False), ("prctl", (38,), False), ("prctl", (4,), False),
        ("socketpair", (1, 1, 0), True), ("socketpair", (1, 1 | 0o2000000 | 0o4000, 0), True), ("socketpair", (1, 2, 0), False),
        ("socketpair", (1, 3, 0), False), ("socketpair", (1, 5, 0), False), ("socketpair", (2, 1, 0), False),
        ("socketpair", (1, 0, 0), False), ("sendto", (3, 1, 1, 0, 0, 0), True), ("sendto", (3, 1, 1, 0, 1, 0), False),
        ("sendto", (3, 1, 1, 0, 1 << 32, 0), False),
    ],
)  # fmt: skip
def test_arguments_decide(machine: str, call: str, arguments: tuple[int, ...], allowed: bool) -> None:
    assert Filter(machine)(call, *arguments) == (ALLOW if allowed else EPERM)


@pytest.mark.parametrize("flags", [0, 0o1, 0o101, 0o1000, 0o2, 0o20000000])
def test_the_old_open_reads_only(flags: int) -> None:
    assert Filter("x86_64")("open", 1, flags) == (EPERM if flags else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_are_the_only_clones_and_only_where_told(machine: str) -> None:
    pthread, fork = 0x3D0F00, 0x1200011
    assert Filter(machine)("clone", pthread) == EPERM
    assert Filter(machine, threads=True)("clone", pthread) == ALLOW
    for flags in (fork, 17, 0x10000 | 0x10000000, 0x10000 | 0x20000, 0x10000 | 0x80, 0x4111):
        assert Filter(machine, threads=True)("clone", flags) == EPERM, hex(flags)
    assert Filter(machine, threads=True)("clone3", pthread) == ENOSYS


def test_a_machine_without_a_table_is_named() -> None:
    with pytest.raises(SandboxError, match="not of riscv64"):
        seccomp.program("riscv64", threads=False)


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_are_the_kernels(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"the kernel's header {header} is not on this machine")
    lines = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", Path(header).read_text(encoding="utf-8"), re.MULTILINE)
    kernel = {name: int(number) for name, number in lines}
    if machine == "aarch64":
        kernel["newfstatat"] = kernel["fstatat"]
    ours = syscalls.table(machine) | EVERYWHERE | (X86_64 if machine == "x86_64" else AARCH64) | FORKS[machine]
    assert {name: kernel.get(name, number) for name, number in ours.items()} == ours
    assert len(set(ours) & set(kernel)) > 0.9 * len(ours)
