"""Where the fork server is started: in bubblewrap's namespaces, or bare with Landlock to come; and what each needs to work."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backflip.errors import SandboxError
from backflip.sandbox import landlock

INSIDE = str(Path(__file__).with_name("inside.py"))
NOBODY = "65534"
COMMON = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "fractions", "functools", "heapq", "itertools", "math",
    "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
"""What programs import most, so that they find it imported."""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",  # the same program with the same input does the same, sets included
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""All of the environment that the server and the programs have."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A way to confine: its `name`, the `command` that starts the server, and the ABI of Landlock its children use (0: none)."""

    name: str
    command: tuple[str, ...]
    landlock_abi: int


def interpreter() -> str:
    """The Python that runs programs: this one, outside any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def site_packages() -> tuple[str, ...]:
    """Where this environment's installed packages are."""
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys((paths["purelib"], paths["platlib"])))


def readable(extra: tuple[str, ...]) -> tuple[str, ...]:
    """The files and folders a program may read: the standard library, shared libraries, time zones, and `extra`."""
    # Those of the interpreter itself, not of the virtual environment it may be in.
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    libraries = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
    own = (paths["stdlib"], paths["platstdlib"], os.path.join(sys.base_prefix, "lib"))
    return tuple(dict.fromkeys((*libraries, *own, *extra)))


def python() -> tuple[str, ...]:
    """The command of the server: no site, no user's packages, no bytecode written."""
    return (interpreter(), "-s", "-S", "-B", INSIDE)


def bubblewrap(extra: tuple[str, ...]) -> Driver:
    """New user, process, network, IPC, host-name and cgroup namespaces, and a file system of what is readable, all read-only.

    There is no /proc, /dev, /tmp or any other place to write in it. Raises SandboxError without bubblewrap.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap is not installed (apt-get install bubblewrap)")
    binds: list[str] = []
    for path in (*readable(extra), interpreter(), INSIDE):
        binds += ["--ro-bind-try", path, path]
    command = [
        bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--cap-drop", "ALL", *_no_more_namespaces(bwrap),
        *binds, "--remount-ro", "/", "--chdir", "/", "--", *python(),
    ]  # fmt: skip
    return Driver("bubblewrap", tuple(command), landlock.abi())


@cache
def _no_more_namespaces(bwrap: str) -> tuple[str, ...]:
    """The option is as old as bubblewrap 0.8; without it the system call filter alone refuses new namespaces."""
    told = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False).stdout
    return ("--disable-userns",) if "--disable-userns" in told else ()


def bare(extra: tuple[str, ...]) -> Driver:
    """No namespaces: the children confine themselves with Landlock. Raises SandboxError where the kernel has none."""
    abi = landlock.abi()
    if abi < 1:
        raise SandboxError(
            f"Landlock is missing from this kernel ({platform.release()}; it needs Linux 5.13 or newer with landlock among the "
            "security modules that are on)"
        )
    return Driver("landlock", python(), abi)


def unsafe(extra: tuple[str, ...]) -> Driver:
    """No confinement but resource limits: a program can read, write, send and signal whatever its user can."""
    return Driver("unsafe", python(), 0)


STRONGEST_FIRST = {"bubblewrap": bubblewrap, "landlock": bare}
"""The drivers that confine, in the order they are tried."""
