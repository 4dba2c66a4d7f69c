"""Pieces of report that experiments share: their bars as figures, and one line for several seeds."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.lab.outcome import Line
from backflip.lab.seeds import Interval, over_seeds
from backflip.lab.tables import signed
from backflip.runs.report_data import Figure, Series


def bars(lines: Sequence[Line]) -> list[Figure]:
    """The acceptance lines as headline figures."""
    return [
        Figure(line.name, f"{line.value:.3g}".replace("-", "−"), note=f"bar {line.bar}: {'met' if line.passed else 'MISSED'}")
        for line in lines
    ]


def mean_and_range(values: Sequence[float], digits: int = 2) -> tuple[str, str]:
    """The mean of several seeds and, where there are several, the lowest and highest: a figure's value and its interval.

    >>> mean_and_range([1.0, 2.0]), mean_and_range([-0.5])
    (('1.50', '1.00 to 2.00'), ('−0.50', ''))
    """
    spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.{digits}f}".replace("-", "−"), spread.replace("-", "−")


def cell(values: Sequence[float], digits: int = 2) -> str:
    """The mean of several seeds with the lowest and the highest behind it, as a table has it.

    >>> cell([1.0, 2.0]), cell([-0.5], 1)
    ('1.50 (1.00 to 2.00)', '−0.5')
    """
    mean, spread = mean_and_range(values, digits)
    return f"{mean} ({spread})" if spread else mean


def mean_and_interval(found: Interval, digits: int = 2) -> tuple[str, str]:
    """A signed mean and, where there is one, its interval: a figure's value and what stands beneath it.

    >>> mean_and_interval(Interval(-0.02, -0.05, 0.01)), mean_and_interval(Interval(1.0, None, None), 1)
    (('−0.02', '−0.05 to +0.01'), ('+1.0', ''))
    """
    mean = signed(found.mean, digits)
    if found.low is None or found.high is None:
        return mean, ""
    return mean, f"{signed(found.low, digits)} to {signed(found.high, digits)}"


def with_interval(found: Interval, digits: int = 2, what: str = "") -> str:
    """A signed mean with its interval, if it has one, behind it; `what` says what the interval is.

    >>> with_interval(Interval(-0.02, -0.05, 0.01)), with_interval(Interval(1.0, 0.5, 1.5), 1, "95 % interval ")
    ('−0.02 (−0.05 to +0.01)', '+1.0 (95 % interval +0.5 to +1.5)')
    """
    mean, interval = mean_and_interval(found, digits)
    return f"{mean} ({what}{interval})" if interval else mean


def band(name: str, xs: Sequence[float], seeds: Sequence[Sequence[float]]) -> Series:
    """The mean over seeds at each x, from the lowest to the highest; `seeds` holds one line for each of them.

    >>> band("loss", [1, 2], [[0.5, 0.25], [1.5, 0.75]]).ys
    [1.0, 0.5]
    """
    points = list(zip(*seeds, strict=True))
    return Series(name, xs, [sum(p) / len(p) for p in points], [min(p) for p in points], [max(p) for p in points])


def interval_band(name: str, xs: Sequence[float], seeds: Sequence[Sequence[float]]) -> Series:
    """The mean over seeds at each x and its 95 % interval; of a single seed the line alone.

    >>> interval_band("loss", [1, 2], [[0.5, 0.25]]).low is None
    True
    """
    found = [over_seeds(values) for values in zip(*seeds, strict=True)]
    means = [each.mean for each in found]
    if len(seeds) == 1:
        return Series(name, xs, means)
    return Series(name, xs, means, [each.low for each in found], [each.high for each in found])
