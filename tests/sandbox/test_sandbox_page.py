"""docs/sandbox.md against the code: its counts, its defaults, and its example."""

from __future__ import annotations

import re
from pathlib import Path

from backflip.sandbox import Case, Limits, Sandbox, canaries, grade, syscalls
from backflip.sandbox.drivers import STRONGEST_FIRST
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.test_cheats import CHEATS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_counts_are_those_of_the_code() -> None:
    allowed = [len(table) - len(syscalls.MISSING) for table in (syscalls.X86_64, syscalls.AARCH64)]
    assert f"a list of {allowed[0]} calls ({allowed[1]} on Arm)" in PAGE
    assert f"ABI. {len(ATTACKS)} programs" in PAGE.replace("\n", " ")
    assert f"0 of {len(CHEATS)}" in PAGE
    assert len(canaries.ATTACKS) == 6
    assert "six attacks must fail" in PAGE


def test_the_drivers_stand_in_their_order() -> None:
    assert re.findall(r"^\d\. \*\*`(\w+)`\*\*", PAGE, re.MULTILINE) == list(STRONGEST_FIRST)


def test_the_defaults_are_told() -> None:
    assert f"({Limits().cpu_s:g} s beside {Limits().wall_s:g} s)" in PAGE
    assert f"{Limits().output_bytes // 1_000_000} MB of output" in PAGE
    assert "Threads are off" in PAGE
    assert not Limits().threads


def test_the_example_does_what_it_says(sandbox: Sandbox) -> None:
    assert sandbox.run("print(input()[::-1])", "olleh").stdout == "hello\n"
    cases = [Case([2, 3], 5), Case([-1, 1], 0, hidden=True)]
    assert grade(sandbox, "def add(a, b): return a + b", cases, entry="add").score == 1.0
    for word in ("driver", "landlock_abi", "seccomp", "kernel", "canaries"):
        assert word in sandbox.describe()
