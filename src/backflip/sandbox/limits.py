"""What a program may use, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backflip.errors import ConfigError

Status = Literal["ok", "error", "crash", "timeout", "output"]
"""`ok` left with 0; `error` left otherwise, as after an uncaught exception; `crash` died of a signal; `timeout` used up its
processor or wall time; `output` wrote more than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one execution may use. Raises ConfigError for a limit that is not above zero."""

    cpu_s: float = 2.0
    """Processor seconds; beyond them the kernel kills the program."""

    wall_s: float = 10.0
    """Seconds by the clock, for a program that sleeps; well above `cpu_s`, so that a busy machine fails nobody."""

    memory_mb: int = 512
    """MiB of address space, the interpreter's own (about 40, with NumPy about 200) included."""

    output_bytes: int = 1_000_000
    """Bytes of stdout, and of stderr, at which the program is killed."""

    threads: bool = False
    """Whether it may start threads; how many is bounded only by the memory their stacks take."""

    def __post_init__(self) -> None:
        for name in ("cpu_s", "wall_s", "memory_mb", "output_bytes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"the sandbox's limit {name} is {getattr(self, name)}; give a number above zero")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one execution; times and memory are the kernel's count, taken by the program's parent process."""

    status: Status
    stdout: str
    stderr: str
    cpu_s: float
    """Processor seconds, of user and kernel together."""

    wall_s: float
    """Seconds by the clock, from the start of the program to its end."""

    max_rss: int
    """Bytes of memory it had at most, what it shares with the interpreter it was forked from included."""
