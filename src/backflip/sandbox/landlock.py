"""Landlock: a process gives up all files but those it names, and TCP, abstract sockets and signals to the outside.

Kernel interface: landlock(7), from Linux 5.13; TCP from ABI 4 (6.7), signals and abstract sockets from ABI 6 (6.12). What an
older ABI does not cover, the system call filter does.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE = 444, 445  # the same numbers on every architecture
READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many kinds of access to files an ABI knows; an ABI between two has what the lower one has."""


def abi() -> int:
    """The version of Landlock the kernel has; 0 where it has none or may not be asked."""
    try:
        version = _libc().syscall(CREATE_RULESET, None, 0, 1)
    except (OSError, AttributeError):
        return 0
    return max(0, int(version))


def ruleset(readable: Iterable[str], version: int) -> int:
    """A file descriptor of rules that leave nothing but reading the files and folders `readable`; the caller closes it.

    `version` is what `abi` returned, above 0. Paths that do not exist are left out. Raises OSError where the kernel refuses.
    """
    rights = (1 << FILE_RIGHTS[max(known for known in FILE_RIGHTS if known <= version)]) - 1
    attributes = struct.pack("=Q", rights)
    if version >= 4:
        attributes += struct.pack("=Q", 0b11)  # bind and connect of TCP
    if version >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets and signals
    rules = _checked(_libc().syscall(CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in readable:
            _allow(rules, path)
    except OSError:
        os.close(rules)
        raise
    return rules


def _allow(rules: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        folder = stat.S_ISDIR(os.fstat(place).st_mode)
        rule = struct.pack("=Qi", READ_FILE | READ_DIR if folder else READ_FILE, place)
        _checked(_libc().syscall(ADD_RULE, rules, 1, rule, 0))
    finally:
        os.close(place)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return int(result)
