"""The settings of `goodhart`: how far best of n goes, and what the enumeration is held against."""

from __future__ import annotations

from dataclasses import dataclass

from backflip.config import setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run."""

    seeds: int = setting(8, "Samples of every world, seeds 0, 1, … this many, that the enumeration is held against.", at_least=2)
    samples: int = setting(2_000_000, "Draws of a world in each of them.", at_least=1000)
    most: int = setting(30_000, "Largest n of best of n.", at_least=64)
    fitted: int = setting(300, "Gao's forms are fitted up to this n and then asked for the largest.", at_least=8)
    points: int = setting(60, "Values of n, evenly spaced in log n, at which a curve is drawn and fitted.", at_least=8)
    cells: int = setting(6000, "Cells that the proxy is read in.", at_least=100)
