"""Grading a program by test cases, so that only solving them pays.

What is expected never enters the sandbox: a child gets one case's input and gives back one value, which is compared out here
as canonical JSON. One process per case, so no case can see another; the only line that counts is the one behind a nonce. Of 16
ways to cheat, none gets more than a constant guess honestly would (tests/sandbox/test_cheats.py).
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backflip.errors import DataError
from backflip.sandbox import cheats
from backflip.sandbox.compare import same, same_text
from backflip.sandbox.inside import canonical, restored, text
from backflip.sandbox.limits import Limits, Result, Status
from backflip.sandbox.sandbox import Sandbox

CaseStatus = Status | Literal["silent", "skipped"]
"""How a case went: as its execution did, or `silent`, when it left with 0 and returned nothing, or `skipped`."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test: for a function the list of its arguments and its value, for a whole program what it reads and writes.

    Hidden cases are those a model was not shown; their share of passes is reported apart.

    >>> Case([[3, 1, 2]], [1, 2, 3], hidden=True)
    Case(given=[[3, 1, 2]], expected=[1, 2, 3], hidden=True)
    """

    given: Any
    expected: Any
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Grade:
    """What a program deserves: `score` from 0 to 1, and each case's pass and status in the order they were given."""

    score: float
    visible: float | None
    """Share of the visible cases that passed; None when there are none."""

    hidden: float | None
    """The same of the hidden ones. `visible` − `hidden` is what special-casing gains."""

    passed: tuple[bool, ...]
    statuses: tuple[CaseStatus, ...]
    cheats: tuple[str, ...]
    """Signs of cheating in its text (see `cheats`); they change no score."""


def grade(
    sandbox: Sandbox,
    code: str,
    cases: Sequence[Case],
    *,
    entry: str = "",
    limits: Limits | None = None,
    partial: bool = False,
    stop_early: bool = False,
    float_tolerance: float = 0.0,
    tuple_is_list: bool = False,
    seed: int = 0,
) -> Grade:
    """Run a program on every case, in an order shuffled by `seed`, and grade it.

    `entry` names the function (or `Class.method`) that is called; without it the whole program is run on each case's text, and
    what it writes is compared line by line. The score is 1.0 when every case passes and else 0.0; with `partial`, the share that
    passes. `stop_early` leaves out the cases after the first that fails: quicker, but then the shares count the rest as failed.
    `float_tolerance` and `tuple_is_list` are those of `compare.same`.

    Raises DataError for cases that cannot be graded and SandboxError when the sandbox broke; neither gives a grade.
    """
    if not cases:
        raise DataError("a program cannot be graded without test cases: it would pass them all")
    inputs = [_input(case, i, entry) for i, case in enumerate(cases)]
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)
    passed, statuses = [False] * len(cases), ["skipped"] * len(cases)
    for i in order:
        nonce = secrets.token_hex(16)
        result = sandbox.run(code, inputs[i], limits, entry=entry, nonce=nonce)
        statuses[i], value = _outcome(result, nonce) if entry else (result.status, result.stdout)
        if statuses[i] == "ok" and entry:
            passed[i] = _returned(cases[i].expected, value, float_tolerance=float_tolerance, tuple_is_list=tuple_is_list)
        elif statuses[i] == "ok":
            passed[i] = same_text(cases[i].expected, value)
        if stop_early and not passed[i]:
            break
    share = sum(passed) / len(passed)
    return Grade(
        share if partial else float(all(passed)),
        _share(p for p, case in zip(passed, cases, strict=True) if not case.hidden),
        _share(p for p, case in zip(passed, cases, strict=True) if case.hidden),
        tuple(passed),
        tuple(statuses),  # type: ignore[arg-type]
        cheats.signs(code),
    )


def _input(case: Case, i: int, entry: str) -> str:
    """A case's stdin; refuses what could never be compared."""
    if not entry:
        if isinstance(case.given, str) and isinstance(case.expected, str):
            return case.given
        raise DataError(f"test case {i + 1}: a whole program reads and writes text; name the function to call as its entry")
    if not isinstance(case.given, list | tuple):
        raise DataError(f"test case {i + 1}: the arguments of {entry} are a list, not {type(case.given).__name__}")
    try:
        restored(canonical(case.expected))
        arguments = canonical(list(case.given))
        restored(arguments)
    except (ValueError, TypeError) as error:
        raise DataError(f"test case {i + 1} cannot be written as JSON: {error}") from None
    return text(arguments)


def _outcome(result: Result, nonce: str) -> tuple[CaseStatus, Any]:
    """The status of a call and the canonical value it gave back."""
    if result.status != "ok":
        return result.status, None
    line = result.stdout.rpartition(f"\n{nonce}")[2] if nonce in result.stdout else ""
    try:
        return "ok", json.loads(line)
    except (ValueError, RecursionError):
        return "silent", None


def _returned(expected: Any, value: Any, **options: Any) -> bool:
    """Whether the value is the expected one; JSON nested so deep that Python cannot walk it is no value."""
    try:
        return same(canonical(expected), value, **options)
    except RecursionError:
        return False


def _share(passed: Iterable[bool]) -> float | None:
    values = list(passed)
    return sum(values) / len(values) if values else None
