"""Metrics as lines that a page can draw: no more points than it has room for, and no spike lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backflip.runs.logs import as_number

POINTS = 2000
"""More points than a wide screen has pixels across a chart cannot be seen."""

_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One metric over the steps: `Line((1, 2, 3), (0.5, None, 0.7))`, a None being a gap.

    `not_finite` are steps at which it was NaN or infinite, which leaves a gap as well.
    """

    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    not_finite: tuple[int, ...] = ()


def series(rows: Sequence[Mapping[str, Any]], names: Iterable[str] | None = None, points: int = POINTS) -> dict[str, Line]:
    """The line of each metric in `names`, by default of all there are, each of at most `points` points.

    A longer one is cut into runs of neighbours of which the lowest and the highest stay, and a gap where there was one; the
    first and the last value always stay. Consecutive gaps are one. Raises ValueError when `points` is below 8.
    """
    if points < _FEWEST:
        raise ValueError(f"a line needs at least {_FEWEST} points, not {points}")
    wanted = _metrics(rows) if names is None else list(names)
    return {name: _line(rows, name, points) for name in wanted}


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for row in rows:
        found.update((name, None) for name, value in row.items() if name != "step" and as_number(value) is not None)
    return list(found)


def _line(rows: Sequence[Mapping[str, Any]], name: str, points: int) -> Line:
    entries: list[tuple[int, float | None]] = []
    wrong: list[int] = []
    for row in rows:
        value = as_number(row.get(name))
        if value is not None and math.isfinite(value):
            entries.append((row["step"], value))
            continue
        if value is not None:
            wrong.append(row["step"])
        if entries and entries[-1][1] is not None:
            entries.append((row["step"], None))
    if entries and entries[-1][1] is None:
        entries.pop()
    kept = [entries[i] for i in _thin([value for _, value in entries], points)]
    return Line(tuple(step for step, _ in kept), tuple(value for _, value in kept), tuple(wrong[:points]))


def _thin(values: Sequence[float | None], points: int) -> list[int]:
    """Which places stay."""
    n = len(values)
    if n <= points:
        return list(range(n))
    per_run = 3 if None in values else 2
    size = math.ceil(n / ((points - 2) // per_run))
    keep = {0, n - 1}
    for start in range(0, n, size):
        places = range(start, min(start + size, n))
        known = [(value, i) for i in places if (value := values[i]) is not None]
        ends = sorted(i for _, i in (min(known), max(known))) if known else []
        gaps = [i for i in places if values[i] is None]
        keep.update(ends)
        if gaps:  # one between the two that stay, if any is, so that no line is drawn across it
            keep.add(next((i for i in gaps if ends and ends[0] < i < ends[-1]), gaps[0]))
    return sorted(keep)
