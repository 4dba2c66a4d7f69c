"""Deciding while numbers still come in: a paired difference with its error, and a cumulative sum of evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Difference(NamedTuple):
    """A mean difference and its standard error."""

    mean: float
    error: float

    @property
    def z(self) -> float:
        """The difference in standard errors; infinite where it has none and is not 0."""
        if self.error > 0:
            return self.mean / self.error
        return math.copysign(math.inf, self.mean) if self.mean else 0.0


def paired(after_N: ArrayLike, before_N: ArrayLike) -> Difference:
    """The mean of after − before over N pairs, and its standard error s/√N.

    What the two sides of a pair share, such as a hard prompt, cancels. Raises ValueError unless both are (N,) with N ≥ 2.
    """
    after, before = np.asarray(after_N, dtype=np.float64), np.asarray(before_N, dtype=np.float64)
    if after.ndim != 1 or after.shape != before.shape or after.size < 2:
        raise ValueError(f"pairs are two columns of one length of 2 or more, not {after.shape} and {before.shape}")
    gaps = after - before
    return Difference(float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(gaps.size))


def luck(n: int) -> float:
    """By how many standard errors of a paired difference the best of n looks is above what it is worth, at most: √(ln n).

    The largest of n standard normals is √(2 ln n) on the average at most, and a look's own error is 1/√2 of that of a difference
    between two. Whatever is compared with the best of many must be allowed for that. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"there is no best of {n} looks")
    return math.sqrt(math.log(n))


def cusum(total: float, z: float, *, allowance: float, cap: float) -> float:
    """The next cumulative sum: max(0, S + min(z, cap) − allowance). Page 1954, one-sided.

    Evidence below the allowance lets it sink back to 0, so what is merely noise never adds up; `cap` is the most that one
    observation may count, so that no single one decides where the threshold is above it.
    """
    return max(0.0, total + min(z, cap) - allowance)
