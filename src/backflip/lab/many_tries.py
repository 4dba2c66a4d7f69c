"""What many tries at a problem are worth: pass@k, the vote of k, the best of k, without bias from n ≥ k tries.

Legend: n tries at a problem, of which c are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backflip.maths.ratings import win_rate


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of the tries, drawn without replacement, hold a right one: 1 − C(n−c, k)/C(n, k).

    Chen et al. 2021 (2107.03374), eq. 1. With an exact checker to pick the best this is the best of k too. Raises ValueError
    unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {c} right tries of {n}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority_at_k(
    votes: Sequence[str | None], answer: str, ks: Sequence[int], *, draws: int, generator: np.random.Generator,
    weights: Sequence[float] | None = None,
) -> list[float]:  # fmt: skip
    """For each k the chance that the commonest vote of k tries, drawn without replacement, is the answer.

    With `weights`, all above 0, the one that weighs most. Of several equally common votes each is as good as the others; None
    does not vote, and where nobody votes nothing is right. The mean over `draws` orders of the tries, of which k = n needs but
    one, so that there, and for k = 1, the figure is exact.
    """
    names = sorted({vote for vote in votes if vote is not None} | {answer})
    number = {name: i for i, name in enumerate(names)}
    ballots = np.zeros((len(votes), len(names)))
    for row, vote in enumerate(votes):
        if vote is not None:
            ballots[row, number[vote]] = 1.0 if weights is None else weights[row]
    orders = generator.permuted(np.tile(np.arange(len(votes)), (draws, 1)), axis=1)
    counts = ballots[orders].cumsum(axis=1)  # draws × tries × names
    found = []
    for k in ks:
        if k == 1:
            found.append(float((ballots[:, number[answer]] > 0).mean()))
            continue
        at_k = counts[: 1 if k == len(votes) else draws, k - 1]
        most = at_k.max(axis=1, keepdims=True)
        winners = (at_k >= most * (1 - 1e-12)) & (most > 0)  # sums in another order differ in their last digits
        found.append(float((winners[:, number[answer]] / np.maximum(winners.sum(axis=1), 1)).mean()))
    return found


class Fit(NamedTuple):
    """A straight line y = intercept + slope · log₂ x by least squares, and the share of the variance it explains."""

    slope: float
    intercept: float
    r2: float


def log_linear(xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """Fit y against log₂ x: `slope` is what a doubling is worth. R² of values that do not vary is 1. Raises ValueError for fewer
    than two different x.

    >>> round(log_linear([1, 2, 4], [0.1, 0.2, 0.3]).slope, 6)
    0.1
    """
    x, y = np.log2(np.asarray(xs, dtype=np.float64)), np.asarray(ys, dtype=np.float64)
    if len(set(x.tolist())) < 2:
        raise ValueError("a line needs two different places")
    dx = x - x.mean()
    slope = float((dx * (y - y.mean())).sum() / (dx * dx).sum())
    intercept = float(y.mean() - slope * x.mean())
    left, total = float(((y - intercept - slope * x) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return Fit(slope, intercept, 1.0 - left / total if total > 1e-15 else 1.0)


def averaged(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """The mean over problems with its 95 % interval (the wider of Wilson's and the bootstrap over problems)."""
    found = win_rate(np.clip(values, 0.0, 1.0), clusters=range(len(values)))
    return {"value": found.mean, "low": found.low, "high": found.high}


def difference(values: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """The mean over problems of differences with its 95 % percentile interval, by the bootstrap over problems."""
    row = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(row), size=(resamples, len(row)))
    low, high = np.percentile(row[drawn].mean(axis=1), [2.5, 97.5])
    return {"value": float(row.mean()), "low": float(low), "high": float(high)}


def doublings(most: int) -> list[int]:
    """1, 2, 4, … up to `most`.

    >>> doublings(10)
    [1, 2, 4, 8]
    """
    return [2**i for i in range(most.bit_length())]


def as_curve(xs: Sequence[int], per_problem: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean over problems at every x with its interval, and the log-linear fit (None for a single x).

    `per_problem` holds a row for every problem: its figure at each x.
    """
    points = [averaged(column) for column in zip(*per_problem, strict=True)]
    found: dict[str, Any] = {"x": list(xs)} | {name: [point[name] for point in points] for name in ("value", "low", "high")}
    return found | {"fit": log_linear(xs, found["value"])._asdict() if len(xs) > 1 else None}
