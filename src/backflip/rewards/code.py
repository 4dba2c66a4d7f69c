"""Unit-tested code: 1 for a program that passes its test cases, run in the sandbox."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from backflip.errors import DataError
from backflip.rewards.answers import after_thinking
from backflip.sandbox import Case, Grade, Limits, Sandbox, grade

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def program_in(completion: str) -> str:
    """The program in a completion: its last fenced block, or all of it where there is none; thoughts in `<think>` aside.

    >>> program_in("First:\\n```python\\nx = 1\\n```\\nbetter:\\n```python\\nx = 2\\n```")
    'x = 2\\n'
    """
    answer = after_thinking(completion)
    blocks = _FENCE.findall(answer)
    return blocks[-1] if blocks else answer


class UnitTests:
    """The reward of a program: 1.0 when it passes every test case of its row, else 0.0; with `partial`, the share it passes.

    The column `cases` has for each row a list of cases, or its JSON: `{"args": […], "expected": …}` for a function that the
    column `entry_point` names, `{"stdin": "…", "stdout": "…"}` for a whole program; `"hidden": true` marks those that the prompt
    does not show. Rows without cases get None. JSON has no tuples, so a tuple counts as a list.

    Hidden cases count like visible ones unless `visible_only`, which leaves them to `metrics`: what somebody who trains on the
    visible ones alone would reward. `limits` are those of one case, as `Limits` or as a mapping of what differs from its
    defaults. Up to `workers` programs run at once. The sandbox is chosen, and proved by its canaries, here: SandboxError where
    none works. With `packages` programs may import what is installed; `unsafe` confines nothing. `sandbox` gives a sandbox of
    the caller's, who closes it.

    After each call `metrics` has the figures of its batch: `code/pass`, `code/visible`, `code/hidden`, `code/hack_rate`
    (visible − hidden), `code/status/…` and `code/cheat/…`, each a share, and `code/unsafe`, 1 where nothing confines.
    """

    low, high = 0.0, 1.0

    def __init__(
        self,
        *,
        limits: Limits | Mapping[str, Any] | None = None,
        partial: bool = False,
        visible_only: bool = False,
        stop_early: bool = False,
        float_tolerance: float = 0.0,
        workers: int | None = None,
        seed: int = 0,
        packages: bool = False,
        unsafe: bool = False,
        sandbox: Sandbox | None = None,
    ) -> None:
        self.limits = limits if isinstance(limits, Limits) else Limits(**(limits or {}))
        self.visible_only = visible_only
        self._options: dict[str, Any] = {
            "partial": partial,
            "stop_early": stop_early,
            "float_tolerance": float_tolerance,
            "seed": seed,
        }
        self.workers = workers or os.cpu_count() or 1
        self._own = sandbox is None
        self.sandbox = sandbox or Sandbox(workers=self.workers, packages=packages, unsafe=unsafe)
        self.metrics: dict[str, float] = {}

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float | None]:
        """One reward per completion. Raises DataError for cases that cannot be read, SandboxError when the sandbox broke."""
        rows = columns.get("cases") if completions else []
        if rows is None:
            raise DataError("the reward of unit tests needs the column 'cases'; without it no program can be tested")
        entries = columns.get("entry_point") or [None] * len(completions)
        jobs = [
            None if row is None else (program_in(completion), _cases(row, i), entry or "")
            for i, (completion, row, entry) in enumerate(zip(completions, rows, entries, strict=True))
        ]
        with ThreadPoolExecutor(self.workers) as pool:
            grades = list(pool.map(lambda job: None if job is None else self._grade(*job), jobs))
        unsafe = float(self.sandbox.describe()["driver"] == "unsafe")
        self.metrics = _metrics([found for found in grades if found is not None]) | {"code/unsafe": unsafe}
        return [None if found is None else self._score(found) for found in grades]

    def _grade(self, code: str, cases: Sequence[Case], entry: str) -> Grade:
        return grade(self.sandbox, code, cases, entry=entry, limits=self.limits, tuple_is_list=True, **self._options)

    def _score(self, found: Grade) -> float:
        if not self.visible_only or found.visible is None:
            return found.score
        return found.visible if self._options["partial"] else float(found.visible == 1.0)

    def close(self) -> None:
        """End the sandbox, if it is this reward's own."""
        if self._own:
            self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cases(row: Any, i: int) -> list[Case]:
    """The cases of a row, as a list or as its JSON."""
    try:
        return [_case(case) for case in (json.loads(row) if isinstance(row, str) else row)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the cases of completion {i + 1} cannot be read ({type(error).__name__}: {error}); a case is "
            '{"args": […], "expected": …} or {"stdin": "…", "stdout": "…"}'
        ) from None


def _case(case: Mapping[str, Any]) -> Case:
    hidden = bool(case.get("hidden", False))
    return Case(case["stdin"], case["stdout"], hidden) if "stdin" in case else Case(case["args"], case["expected"], hidden)


def _metrics(grades: Sequence[Grade]) -> dict[str, float]:
    """The figures of a batch."""
    both = [(g.visible, g.hidden) for g in grades if g.visible is not None and g.hidden is not None]
    figures = {
        "code/pass": _mean([float(all(g.passed)) for g in grades]),
        "code/visible": _mean([g.visible for g in grades if g.visible is not None]),
        "code/hidden": _mean([g.hidden for g in grades if g.hidden is not None]),
        "code/hack_rate": _mean([visible - hidden for visible, hidden in both]),
    }
    statuses = Counter(status for g in grades for status in g.statuses)
    figures |= {f"code/status/{name}": count / statuses.total() for name, count in sorted(statuses.items())}
    found = Counter(sign for g in grades for sign in g.cheats)
    figures |= {f"code/cheat/{name}": count / len(grades) for name, count in sorted(found.items())}
    return {name: value for name, value in figures.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
