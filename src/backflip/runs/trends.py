"""How a number that is measured anew at every step stands and moves, with its interval."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

SIGMAS = 3.0
"""Half an interval, in standard errors. A run is looked at after every step, so at the usual two it would cry wolf weekly."""

TREND_AT_LEAST = 16
"""Rows without which there is no trend: with fewer the noise around a line is not known."""

TREND_POINTS = 200
"""Points that a trend is drawn through; of a longer log each is the median of neighbours, which costs nothing worth having."""

ODD = 5.0
"""Spreads from its neighbours at which a value is taken for one of them before a trend is drawn."""

NEIGHBOURS = 3
"""Rows to either side whose median a value is held against."""


class Estimate(NamedTuple):
    """A number and its interval; `noise` is the spread of single values around it."""

    value: float
    low: float
    high: float
    noise: float = 0.0

    def evidence(self, name: str = "mean") -> dict[str, float]:
        """As it stands in an alarm."""
        return {name: self.value, "low": self.low, "high": self.high}


def mean(values: Sequence[float]) -> Estimate:
    """The mean of values that are measured anew each time. Raises ValueError without any."""
    if not values:
        raise ValueError("there is no mean of no values")
    middle = math.fsum(values) / len(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    half = SIGMAS * spread / math.sqrt(len(values))
    return Estimate(middle, middle - half, middle + half, spread)


def trend(values: Sequence[float]) -> Estimate | None:
    """By how much the values changed from the first to the last along their least-squares line; None for too few.

    Of a log of more than `TREND_POINTS` values, `noise` is that of the medians that stand for neighbours. Single values far
    from their neighbours count as these. What is left over a parabola is noise, so that a curve that levels off has little; the
    interval is widened where neighbouring noise is alike, by the factor for a first-order autoregression.
    """
    if len(values) < TREND_AT_LEAST:
        return None
    size = math.ceil(len(values) / TREND_POINTS)
    values = _tamed([statistics.median(values[i : i + size]) for i in range(0, len(values), size)])
    n = len(values)
    xs = [i - (n - 1) / 2 for i in range(n)]
    middle, square = math.fsum(values) / n, math.fsum(x * x for x in xs)
    bows = [x * x - square / n for x in xs]
    slope = math.fsum(x * y for x, y in zip(xs, values, strict=True)) / square
    bow = math.fsum(b * y for b, y in zip(bows, values, strict=True)) / math.fsum(b * b for b in bows)
    rest = [y - middle - slope * x - bow * b for x, b, y in zip(xs, bows, values, strict=True)]
    total = math.fsum(r * r for r in rest)
    noise = math.sqrt(total / (n - 3))
    alike = math.fsum(a * b for a, b in itertools.pairwise(rest)) / total if total > 0 else 0.0
    alike = min(max(alike, 0.0), 0.9)
    half = SIGMAS * noise / math.sqrt(square) * (n - 1) * math.sqrt((1 + alike) / (1 - alike))
    change = slope * (n - 1)
    return Estimate(change, change - half, change + half, noise)


def spread_of(values: Sequence[float]) -> float:
    """The standard deviation, by way of the median, which outliers do not move."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(v - middle) for v in values)


def _tamed(values: Sequence[float]) -> list[float]:
    """The values, those far from their neighbours replaced by the neighbours' median."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    limit = ODD * spread_of(steps) / math.sqrt(2) + NEIGHBOURS * abs(statistics.median(steps))
    near = [statistics.median(values[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1]) for i in range(len(values))]
    return [middle if abs(value - middle) > limit else value for value, middle in zip(values, near, strict=True)]
