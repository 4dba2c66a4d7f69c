"""Pieces of report that experiments share: their bars as figures, and one line for several seeds."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.lab.outcome import Line
from backflip.lab.seeds import over_seeds
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
