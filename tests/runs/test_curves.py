"""Lines for a page: few points, every spike, and gaps where nothing was measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.runs.curves import Line, series


def test_short_lines_are_as_they_are() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "kl": 0.5, "text": "x", "on": True},
        {"step": 2, "reward": 1},
        {"step": 3, "reward": 2},
        {"step": 4, "kl": 0.25},
    ]
    lines = series(rows)
    assert lines == {"kl": Line((1, 2, 4), (0.5, None, 0.25)), "reward": Line((2, 3), (1.0, 2.0))}
    assert series(rows, ["kl", "nobody"]) == {"kl": lines["kl"], "nobody": Line((), ())}
    assert series([]) == {}


def test_values_that_are_not_finite_are_gaps_with_a_mark() -> None:
    values = [1.0, math.nan, math.inf, 10**400, 2.0]
    [line] = series([{"step": i, "loss": v} for i, v in enumerate(values)]).values()
    assert line == Line((0, 1, 4), (1.0, None, 2.0), (1, 2, 3))


def test_a_spike_in_a_long_line_survives() -> None:
    rows = [{"step": i, "loss": math.sin(i / 50) + (50 if i == 7777 else -70 if i == 12345 else 0)} for i in range(30_000)]
    [line] = series(rows).values()
    assert len(line.steps) <= 2000
    assert 7777 in line.steps
    assert 12345 in line.steps
    assert (line.steps[0], line.steps[-1]) == (0, 29_999)


def test_a_line_needs_some_points() -> None:
    with pytest.raises(ValueError, match="at least 8 points, not 7"):
        series([], points=7)


VALUE = st.one_of(st.none(), st.floats(-100, 100), st.just(math.nan), st.just(math.inf))


@given(st.lists(VALUE, max_size=200), st.integers(8, 40))
def test_extremes_ends_and_gaps_are_kept(values: list[float | None], points: int) -> None:
    rows = [{"step": i} | ({} if v is None else {"m": v}) for i, v in enumerate(values)]
    line = series(rows, ["m"], points)["m"]
    finite = [(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    kept = [(s, v) for s, v in zip(line.steps, line.values, strict=True) if v is not None]
    assert len(line.steps) <= points
    assert list(line.steps) == sorted(set(line.steps))
    assert set(kept) <= set(finite)
    if not finite:
        assert line.steps == ()
        return
    assert (kept[0], kept[-1]) == (finite[0], finite[-1])
    assert min(v for _, v in kept) == min(v for _, v in finite)
    assert max(v for _, v in kept) == max(v for _, v in finite)
    inner = values[finite[0][0] : finite[-1][0] + 1]
    assert (None in line.values) == (len(inner) > len(finite))
