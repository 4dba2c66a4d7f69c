"""Pieces of report that experiments share: their bars as figures, and one line for several seeds."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.lab.outcome import Line
from backflip.runs.report_data import Figure, Series


def bars(lines: Sequence[Line]) -> list[Figure]:
    """The acceptance lines as headline figures."""
    return [
        Figure(line.name, f"{line.value:.3g}".replace("-", "−"), note=f"bar {line.bar}: {'met' if line.passed else 'MISSED'}")
        for line in lines
    ]


def band(name: str, xs: Sequence[float], seeds: Sequence[Sequence[float]]) -> Series:
    """The mean over seeds at each x, from the lowest to the highest; `seeds` holds one line for each of them.

    >>> band("loss", [1, 2], [[0.5, 0.25], [1.5, 0.75]]).ys
    [1.0, 0.5]
    """
    points = list(zip(*seeds, strict=True))
    return Series(name, xs, [sum(p) / len(p) for p in points], [min(p) for p in points], [max(p) for p in points])
