"""Chart geometry, checked as numbers on paper."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.runs.charts import HEIGHT, WIDTH, escape, number, running_mean, svg, thin, ticks
from backflip.runs.report_data import Chart, Series

finite = st.floats(-1e12, 1e12, allow_nan=False)
any_float = st.floats()


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.25, 0.25, "0.25"), (0.5, 0.25, "0.50"), (-2.0, 1.0, "−2"), (12000, 4000, "12k"), (2.5e6, 5e5, "2.5M"),
     (1e-17, 0.1, "0"), (3e-6, 1e-6, "3e−06"), (0.123456, None, "0.1235"), (150.0, 50.0, "150")],
)  # fmt: skip
def test_numbers_are_read_easily(value: float, step: float | None, text: str) -> None:
    assert number(value, step) == text


@given(finite, st.floats(1e-9, 1e12))
def test_ticks_are_round_few_and_inside(low: float, width: float) -> None:
    high = low + width
    if not high - low > abs(low) * 1e-9:
        return
    found = ticks(low, high)
    slack = (high - low) * 1e-6
    assert 1 <= len(found) <= 6
    assert low - slack <= found[0] <= found[-1] <= high + slack
    assert found == sorted(set(found))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(finite, st.one_of(st.none(), any_float, finite)), min_size=1, max_size=40))
def test_any_data_makes_well_formed_paper_without_leaving_it(points: list[tuple[float, float | None]]) -> None:
    xs, ys = zip(*sorted(points, key=lambda p: p[0]), strict=True)
    text = svg(Chart("t", "x", "y", [Series("a", xs, ys), Series("b", xs, ys, ys, ys)]))
    assert "nan" not in text
    assert "inf" not in text
    for group in re.findall(r' points="([^"]+)"', text):
        for pair in group.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    ET.fromstring(text)


def test_higher_is_higher_and_a_gap_is_a_gap() -> None:
    text = svg(Chart("t", "x", "y", [Series("a", range(6), [0, 1, 2, None, 1, 0])]))
    lines = re.findall(r'<polyline class="line s0" points="([^"]+)"', text)
    assert len(lines) == 2
    heights = [float(p.split(",")[1]) for p in lines[0].split()]
    assert heights[0] > heights[1] > heights[2]  # paper counts downwards
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_labels_at_line_ends_do_not_overlap() -> None:
    names = [f"p{i}" for i in range(5)]
    text = svg(Chart("t", "x", "y", [Series(n, [0, 1], [0, 1 + i / 1000]) for i, n in enumerate(names)]))
    heights = sorted(float(y) for y in re.findall(r'class="name s\d"[^>]* y="([\d.]+)"', text))
    assert len(heights) == 5
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(heights))


def test_thinning_keeps_the_spike_and_the_ends() -> None:
    ys = [0.0] * 10_000
    ys[4321] = 9.0
    few = thin(Series("a", range(10_000), ys))
    assert len(few.xs) <= 500
    assert max(y for y in few.ys if y is not None) == 9.0
    assert (few.xs[0], few.xs[-1]) == (0, 9999)


@given(st.lists(finite, min_size=1, max_size=30), st.integers(1, 9))
def test_the_running_mean_stays_between_the_extremes(ys: list[float], width: int) -> None:
    for mean in running_mean(ys, width):
        assert mean is not None
        assert min(ys) - 1e-3 <= mean <= max(ys) + 1e-3


def test_the_running_mean_of_a_line_is_the_line() -> None:
    assert running_mean([1.0, 2.0, 3.0, 4.0, 5.0], 3) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert running_mean([1.0, None, 4.0], 3) == [1.0, 2.5, 4.0]


def test_nothing_measured_is_said() -> None:
    assert "Nothing was measured" in svg(Chart("t", "x", "y", [Series("a", [], [])]))
    assert "Nothing was measured" in svg(Chart("t", "x", "y", [Series("a", [1], [math.nan])]))


def test_escape_leaves_no_markup_and_no_hidden_characters() -> None:
    assert escape("<a href='x'>&\"\x00\x1b[31m\x7f") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;␀␛[31m␡"
    assert escape("two\nlines\t") == "two\nlines\t"


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="series 'a': xs, ys"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="series 'a'"):
        Series("a", [1], [1], low=[0])
