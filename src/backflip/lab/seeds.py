"""The frame of an experiment: every seed, or what is missing of it, and then the bars, the figures and the report; and what
several seeds say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from backflip.lab.outcome import Line, write_result
from backflip.runs.atomic import write_atomic
from backflip.runs.report import write_report
from backflip.runs.report_data import ReportData

Seed = dict[str, Any]
"""The figures of one seed."""


class Seeded(Protocol):
    """Settings that say how many seeds there are."""

    @property
    def seeds(self) -> int:
        """Seeds 0, 1, … this many."""


S = TypeVar("S", bound=Seeded)


def every_seed(settings: S, folder: Path, quiet: bool, one: Callable[[int, S, Path, bool], Seed]) -> list[Seed]:
    """The figures of every seed, each in a folder of its own, with products by the faster library."""
    from backflip.train.arithmetic import fast_matmul

    with fast_matmul(None):
        return [one(seed, settings, folder / f"seed{seed}", quiet) for seed in range(settings.seeds)]


def told(
    settings: S, folder: Path, seeds: Sequence[Seed], lines: Sequence[Line],
    report: Callable[[Sequence[Seed], Sequence[Line], S], ReportData], *, more: Mapping[str, Any] | None = None,
    tables: str | None = None,
) -> bool:  # fmt: skip
    """Leave `result.json`, the report and, where there are some, `tables.md`; whether all bars were met.

    `more` are figures that stand before those of the seeds.
    """
    met = write_result(folder, {**(more or {}), "seeds": seeds}, lines)
    if tables is not None:
        write_atomic(folder / "tables.md", tables)
    write_report(folder, report(seeds, lines, settings))
    return met


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval, None for a single seed."""

    mean: float
    low: float | None
    high: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """Its low and its high end; of a single seed its value is both.

        >>> Interval(0.5, None, None).ends
        (0.5, 0.5)
        """
        return self.mean if self.low is None else self.low, self.mean if self.high is None else self.high


_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z975 = 1.959964


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of what independent seeds gave, with Student's 95 % interval, mean ± t·s/√n.

    >>> over_seeds([0.5])
    Interval(mean=0.5, low=None, high=None)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None)
    freedom = n - 1
    # Beyond the table: the first term of Fisher's expansion of t about z.
    t = _T975[freedom - 1] if freedom <= len(_T975) else _Z975 + (_Z975**3 + _Z975) / (4 * freedom)
    half = t * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / freedom / n)
    return Interval(mean, mean - half, mean + half)
