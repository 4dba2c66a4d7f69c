"""Shares with 95 % intervals, of many groups at once, and whether a coin is fair.

Shapes: N rows, each a cluster of trials that resemble each other; G groups of rows. NumPy, float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.ratings import Z95, wilson

Floats = NDArray[np.float64]


class Share(NamedTuple):
    """A share of `n` with its 95 % interval; all three None when there is nothing to take a share of."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def wilson_share(hits: float, n: int) -> Share:
    """`hits` of `n` with Wilson's 95 % interval (Wilson 1927); no value when n is 0.

    >>> wilson_share(0, 0)
    Share(value=None, low=None, high=None, n=0)
    """
    if n == 0:
        return Share(None, None, None, 0)
    return Share(hits / n, *wilson(hits / n, n), n)


def shares(group_N: ArrayLike, hits_N: ArrayLike, totals_N: ArrayLike, n_groups: int) -> list[Share]:
    """The share Σ hits/Σ totals of each of G groups; every row is a cluster, of `totals` trials that were not independent.

    Wilson's interval for n divided by the design effect (Kish 1965), with m = Σ hits/Σ totals over K rows,

        deff = max(1, K/(K−1)·Σ (hits − m·totals)² / (n/(n−1)·n·m(1−m)))

    which is 1 when every total is 1; where no variance can be seen n is the number of rows. Raises ValueError for columns of
    different lengths or hits outside 0…totals.
    """
    group, hits, totals = np.asarray(group_N, np.int64), np.asarray(hits_N, np.float64), np.asarray(totals_N, np.float64)
    if not group.shape == hits.shape == totals.shape or group.ndim != 1:
        raise ValueError(f"shares need three columns of one length, not {group.shape}, {hits.shape} and {totals.shape}")
    if np.any(hits < 0) or np.any(hits > totals):
        raise ValueError("there are more hits than trials, or fewer than none")
    columns = ((totals > 0).astype(float), hits, totals, hits * hits, hits * totals, totals * totals)
    sums = [np.bincount(group, weights=column, minlength=n_groups).astype(np.float64, copy=False) for column in columns]
    numbers = zip(*(column.tolist() for column in columns_of_shares(*sums)), strict=True)
    return [Share(m, low, high, int(n)) if n else Share(None, None, None, 0) for m, low, high, n in numbers]


class ShareColumns(NamedTuple):
    """Shares of G groups with their 95 % intervals, as columns; where `n_G` is 0 the others mean nothing."""

    value_G: Floats
    low_G: Floats
    high_G: Floats
    n_G: Floats


def columns_of_shares(
    rows_G: Floats, hits_G: Floats, totals_G: Floats, hits2_G: Floats, cross_G: Floats, totals2_G: Floats
) -> ShareColumns:
    """As `shares`, from the sums of each group: rows with a trial, hits, totals, hits², hits·totals and totals²."""
    n_G = np.maximum(totals_G, 1)
    m_G = hits_G / n_G
    residual_G = np.maximum(hits2_G - 2 * m_G * cross_G + m_G**2 * totals2_G, 0.0)
    binomial_G = n_G * m_G * (1 - m_G)
    with np.errstate(divide="ignore", invalid="ignore"):
        deff_G = (rows_G * residual_G * (n_G - 1)) / ((rows_G - 1) * binomial_G * n_G)
    seen_G = (rows_G > 1) & (binomial_G > 0) & (residual_G > 1e-12 * binomial_G)
    effective_G = np.where(seen_G, n_G / np.maximum(np.nan_to_num(deff_G, nan=1.0, posinf=1.0), 1.0), np.maximum(rows_G, 1))
    z2n_G = Z95**2 / effective_G
    centre_G = (m_G + z2n_G / 2) / (1 + z2n_G)
    half_G = np.sqrt(m_G * (1 - m_G) * z2n_G + z2n_G**2 / 4) / (1 + z2n_G)
    low_G = np.clip(np.minimum(m_G, centre_G - half_G), 0.0, 1.0)
    high_G = np.clip(np.maximum(m_G, centre_G + half_G), 0.0, 1.0)
    return ShareColumns(m_G, low_G, high_G, totals_G)


class Paired(NamedTuple):
    """Two ways tried on the same n things: the share each got right, and what changed from the first to the second.

    `gained` went from wrong to right, `lost` from right to wrong; `difference` is second less first with its 95 % interval, `p`
    the exact two-sided p-value of McNemar's test.
    """

    first: Share
    second: Share
    gained: int
    lost: int
    difference: float
    low: float
    high: float
    p: float


def paired(first_N: ArrayLike, second_N: ArrayLike) -> Paired:
    """Compare two ways by what each got right (1) and wrong (0) of the same things.

        difference = (gained − lost)/n,   p = the chance that gained + lost fair coins are as uneven

    McNemar 1947. The interval is Newcombe's 1998 (method 10): from Wilson's intervals of both shares and their correlation.
    Raises ValueError for columns of different lengths, none, or with other than 0 and 1.
    """
    a, b = np.asarray(first_N, np.float64), np.asarray(second_N, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a) or not np.all(np.isin(a, (0, 1)) & np.isin(b, (0, 1))):
        raise ValueError("two ways are compared by two columns of 0 and 1 of one length")
    n = len(a)
    both, gained, lost, neither = (float(((a == x) & (b == y)).sum()) for x, y in ((1, 1), (0, 1), (1, 0), (0, 0)))
    first, second = wilson_share(float(a.sum()), n), wilson_share(float(b.sum()), n)
    (p_first, *first_ends), (p_second, *second_ends) = ((x / n, *wilson(x / n, n)) for x in (a.sum(), b.sum()))
    difference = float(p_second - p_first)
    scale = math.sqrt((both + lost) * (gained + neither) * (both + gained) * (lost + neither))
    # Newcombe's correction for continuity: a positive numerator loses n/2, but not below 0.
    numerator = both * neither - gained * lost
    phi = 0.0 if scale == 0 else (max(numerator - n / 2, 0.0) if numerator > 0 else numerator) / scale

    def reach(d_second: float, d_first: float) -> float:
        return math.sqrt(max(0.0, d_second**2 - 2 * phi * d_second * d_first + d_first**2))

    low = difference - reach(p_second - second_ends[0], first_ends[1] - p_first)
    high = difference + reach(second_ends[1] - p_second, p_first - first_ends[0])
    p = binomial_p(int(gained), int(gained + lost))
    return Paired(first, second, int(gained), int(lost), difference, max(-1.0, low), min(1.0, high), p)


def binomial_p(hits: int, n: int) -> float:
    """The exact two-sided p-value of `hits` heads in `n` throws of a fair coin.

        p = min(1, 2·P(X ≤ min(k, n−k))),   X ~ Binomial(n, ½)

    Clopper & Pearson 1934; at ½ the distribution is symmetric, so doubling the tail is the method of small p-values too. 1.0 for
    no throws. Raises ValueError unless 0 ≤ hits ≤ n.

    >>> binomial_p(9, 10) == 22 / 1024
    True
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} heads in {n} throws")
    k = min(hits, n - hits)
    if 2 * k == n:
        return 1.0
    # P(X = k−1)/P(X = k) = k/(n−k+1), and so on down: the tail in units of its largest term neither over- nor underflows.
    i = np.arange(k, 0, -1)
    tail = 1.0 + float(np.cumprod(i / (n - i + 1.0)).sum())
    if n <= 1000:
        return min(1.0, 2 * tail * (float(math.comb(n, k) / 2**n)))
    log_term = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    return min(1.0, 2 * tail * math.exp(log_term))
