"""One opinion with scatter, or several? Mixtures of normal distributions in one dimension, of many items at once.

Shapes: B items, N answers to each, NaN where there is none, K components. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FLOOR = 0.15
"""Least standard deviation of a component, in standard deviations of a person's answers: no component is a single answer."""


class Mixtures(NamedTuple):
    """Fits: weights, means and standard deviations of components, (B, K), and the mean log-likelihood of an answer, (B,)."""

    weight_BK: Floats
    mean_BK: Floats
    sd_BK: Floats
    log_likelihood_B: Floats


class Components(NamedTuple):
    """How many components explain answers that were not fitted best, and how much of the answers the second largest holds.

    `best_B` counts from 1; `held_out_BK` is the mean log-likelihood of held-out answers with 1 … K components;
    `second_B` the weight of the second largest component where two are fitted to all answers.
    """

    best_B: NDArray[np.int64]
    held_out_BK: Floats
    second_B: Floats


def fit_mixtures(x_BN: ArrayLike, k: int, *, floor: float = FLOOR, limit: int = 200, tolerance: float = 1e-7) -> Mixtures:
    """The likeliest mixture of `k` normal distributions for each row, by expectation maximisation from two fixed starts.

        E  q_nk ∝ w_k·N(x_n; μ_k, σ_k²)      M  w_k = Σ_n q_nk/N,  μ_k = Σ q x/Σ q,  σ_k² = max(floor², Σ q (x−μ)²/Σ q)

    Dempster, Laird & Rubin 1977. The starts put the means on quantiles of the row, wide or narrow; the likelier end counts.
    Raises ValueError for other than two axes, infinite answers, no component, or a row with fewer than `k` answers.
    """
    x = np.asarray(x_BN, dtype=np.float64)
    there = ~np.isnan(x)
    if x.ndim != 2 or np.isinf(x).any() or k < 1 or not floor > 0:
        raise ValueError("answers are finite numbers in rows, and a mixture has a component and a floor above 0")
    if np.any(there.sum(axis=1) < k):
        raise ValueError(f"{k} components need at least as many answers in every row")
    ends = [_climb(np.where(there, x, 0.0), there, *_start(x, k, floor, narrow), floor, limit, tolerance) for narrow in (1.0, k)]
    better = (ends[1].log_likelihood_B > ends[0].log_likelihood_B)[:, None]
    weight, mean, sd = (np.where(better, b, a) for a, b in zip(ends[0][:3], ends[1][:3], strict=True))
    return Mixtures(weight, mean, sd, np.maximum(ends[0].log_likelihood_B, ends[1].log_likelihood_B))


def log_density(x_BN: ArrayLike, fit: Mixtures) -> Floats:
    """The logarithm of each row's density at its answers, (B, N); NaN where there is no answer."""
    x = np.asarray(x_BN, dtype=np.float64)
    return _log_sum(_joint(x, fit.weight_BK, fit.mean_BK, fit.sd_BK))


def components(x_BN: ArrayLike, *, rng: np.random.Generator, most: int = 3, folds: int = 5, floor: float = FLOOR) -> Components:
    """How many components each row's answers need, by the likelihood of answers that were not fitted.

    Answers are split into `folds` parts, 1 … `most` components fitted to all but one part and held against that part. If there is
    one true answer and scatter, one component should do; where two do better, people hold two opinions (the question of
    Pavlick & Kwiatkowski 2019; the number of folds, the floor and the starts here are ours). Raises ValueError as
    `fit_mixtures`, and for rows too short to split.
    """
    x = np.asarray(x_BN, dtype=np.float64)
    b, n = x.shape
    there = ~np.isnan(x)
    if folds < 2 or np.any(there.sum(axis=1) < max(folds, 2 * most)):
        raise ValueError(f"{folds} parts and {most} components need more answers in every row")
    # Each row's answers are dealt out to the parts in an order of its own.
    order = np.argsort(np.where(there, rng.random((b, n)), 2.0), axis=1)
    part = np.empty((b, n), dtype=np.int64)
    np.put_along_axis(part, order, np.broadcast_to(np.arange(n) % folds, (b, n)), axis=1)
    total = np.zeros((b, most))
    for fold in range(folds):
        held = there & (part == fold)
        seen = np.where(there & (part != fold), x, np.nan)
        for k in range(1, most + 1):
            density = log_density(np.where(held, x, np.nan), fit_mixtures(seen, k, floor=floor))
            total[:, k - 1] += np.nansum(density, axis=1)
    two = fit_mixtures(x, min(2, most), floor=floor)
    second = np.sort(two.weight_BK, axis=1)[:, 0] if most > 1 else np.zeros(b)
    return Components(total.argmax(axis=1) + 1, total / there.sum(axis=1, keepdims=True), second)


def _start(x: Floats, k: int, floor: float, narrow: float) -> tuple[Floats, Floats, Floats]:
    b = len(x)
    mean = np.nanquantile(x, (np.arange(k) + 0.5) / k, axis=1).T
    sd = np.maximum(np.nanstd(x, axis=1) / narrow, floor)
    return np.full((b, k), 1.0 / k), np.ascontiguousarray(mean), np.repeat(sd[:, None], k, axis=1)


def _joint(x: Floats, weight: Floats, mean: Floats, sd: Floats) -> Floats:
    """log w_k N(x_n; μ_k, σ_k²), (B, N, K)."""
    z = (x[:, :, None] - mean[:, None, :]) / sd[:, None, :]
    constant = np.log(np.maximum(weight, 1e-300)) - np.log(sd) - 0.5 * np.log(2 * np.pi)
    found: Floats = constant[:, None, :] - 0.5 * z**2
    return found


def _log_sum(joint: Floats) -> Floats:
    top = joint.max(axis=2)
    found: Floats = top + np.log(np.exp(joint - top[:, :, None]).sum(axis=2))
    return found


def _climb(
    x: Floats, there: Bools, weight: Floats, mean: Floats, sd: Floats, floor: float, limit: int, tolerance: float
) -> Mixtures:
    """The end of the climb from a start; rows that have come to rest are left where they are."""
    weight, mean, sd = weight.copy(), mean.copy(), sd.copy()
    before, rows = np.full(len(x), -np.inf), np.arange(len(x))
    for _ in range(limit):
        own, given = x[rows], there[rows]
        joint = _joint(own, weight[rows], mean[rows], sd[rows])
        density = _log_sum(joint)
        likelihood = np.where(given, density, 0.0).sum(axis=1) / given.sum(axis=1)
        moving = likelihood - before[rows] > tolerance
        before[rows] = likelihood
        if not moving.any():
            break
        rows, own = rows[moving], own[moving][:, :, None]
        q = np.exp(joint[moving] - density[moving][:, :, None]) * given[moving][:, :, None]
        mass = np.maximum(q.sum(axis=1), 1e-12)
        weight[rows] = mass / mass.sum(axis=1, keepdims=True)
        mean[rows] = (q * own).sum(axis=1) / mass
        variance = (q * (own - mean[rows][:, None, :]) ** 2).sum(axis=1) / mass
        sd[rows] = np.sqrt(np.maximum(variance, floor**2))
    density = _log_sum(_joint(x, weight, mean, sd))
    return Mixtures(weight, mean, sd, np.where(there, density, 0.0).sum(axis=1) / there.sum(axis=1))
