"""How far predicted preferences can be believed, what moves them, and how strange a text is: figures of a reward model.

Shapes: N comparisons, B texts, D hidden width. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.ratings import Z95

Floats = NDArray[np.float64]
RIDGE = 1e-6
"""Weak prior that keeps a coefficient finite where a variable parts the answers."""


class Temperature(NamedTuple):
    """What to divide score differences by, and the log loss (nats per comparison) before and after."""

    value: float
    before: float
    after: float


class Coefficient(NamedTuple):
    """A slope of a logistic regression without intercept, in nats per standard deviation of the variable; 95 % interval."""

    value: float
    low: float
    high: float


class Bin(NamedTuple):
    """Comparisons whose prediction falls between two bounds: their number, mean prediction and mean belief."""

    n: int
    predicted: float
    observed: float


def fit_temperature(gap_N: ArrayLike, p_N: ArrayLike) -> Temperature:
    """T > 0 with the least log loss of σ(gap/T) against the beliefs p: Guo et al. 2017 (1706.04599), section 4.2.

    Above 1 the model is too sure of itself. The loss is convex in 1/T; where all answers agree with the gaps T falls towards
    0 and where they disagree more than they agree it rises without end, so 1/T stays between 0.001 and 1000. Raises ValueError
    for columns of two lengths, or none.
    """
    gap, p = _columns(gap_N, p_N)

    def slope(inverse: float) -> float:
        return float(np.mean((_sigmoid(inverse * gap) - p) * gap))

    low, high = 1e-3, 1e3
    if slope(low) < 0.0 < slope(high):
        for _ in range(100):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
        best = float(np.sqrt(low * high))
    else:
        best = low if slope(low) >= 0.0 else high
    return Temperature(1.0 / best, log_loss(gap, p), log_loss(best * gap, p))


def log_loss(gap_N: ArrayLike, p_N: ArrayLike) -> float:
    """−mean of p log σ(gap) + (1 − p) log σ(−gap), nats. Raises ValueError for columns of two lengths, or none."""
    gap, p = _columns(gap_N, p_N)
    return float(np.mean(np.logaddexp(0.0, -gap) * p + np.logaddexp(0.0, gap) * (1.0 - p)))


def calibration_bins(gap_N: ArrayLike, p_N: ArrayLike, *, bins: int = 10) -> list[Bin]:
    """Predictions σ(gap) beside beliefs in equal bins of prediction, each comparison seen from both sides.

    Empty bins are left out. Raises ValueError for columns of two lengths, or none.
    """
    gap, p = _columns(gap_N, p_N)
    predicted, observed = _sigmoid(np.concatenate([gap, -gap])), np.concatenate([p, 1.0 - p])
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    return [
        Bin(int((place == b).sum()), float(predicted[place == b].mean()), float(observed[place == b].mean()))
        for b in range(bins)
        if (place == b).any()
    ]


def logistic_slope(x_N: ArrayLike, p_N: ArrayLike) -> Coefficient:
    """β of p = σ(β·x/std(x)), std(x) = √mean(x²), fitted by Newton's method, with a robust (sandwich) 95 % interval.

    Without an intercept, so exchanging the sides changes nothing. `p_N` are beliefs or predictions between 0 and 1. A column
    that is 0 throughout has the slope 0. Raises ValueError for columns of two lengths, or none.
    """
    x, p = _columns(x_N, p_N)
    scale = float(np.sqrt(np.mean(x * x)))
    if scale == 0.0:
        return Coefficient(0.0, 0.0, 0.0)
    z, beta = x / scale, 0.0
    for _ in range(100):
        mean = _sigmoid(beta * z)
        curvature = float(np.sum(z * z * mean * (1.0 - mean))) + RIDGE * len(z)
        step = (float(np.sum(z * (p - mean))) - RIDGE * len(z) * beta) / curvature
        step = float(np.clip(step, -2.0, 2.0))
        beta += step
        if abs(step) < 1e-12:
            break
    mean = _sigmoid(beta * z)
    curvature = float(np.sum(z * z * mean * (1.0 - mean))) + RIDGE * len(z)
    half = Z95 * float(np.sqrt(np.sum((z * (p - mean)) ** 2))) / curvature
    return Coefficient(beta, beta - half, beta + half)


class Strangeness(NamedTuple):
    """The centre and the spread of hidden states that are usual, for `strangeness`."""

    mean_D: Floats
    precision_DD: Floats
    variance_D: Floats


def usual(hidden_BD: ArrayLike, *, shrinkage: float = 0.1) -> Strangeness:
    """Mean, inverse covariance and variances of hidden states, the covariance shrunk towards its diagonal by `shrinkage`.

    Shrinking keeps it invertible where there are fewer texts than dimensions. Raises ValueError for less than two texts.
    """
    hidden = np.asarray(hidden_BD, dtype=np.float64)
    if hidden.ndim != 2 or len(hidden) < 2:
        raise ValueError(f"what is usual is told by two texts or more, a row each, not by shape {hidden.shape}")
    centred = hidden - hidden.mean(axis=0)
    covariance = centred.T @ centred / (len(hidden) - 1)
    variance = np.maximum(np.diag(covariance), 1e-12 * max(1e-12, float(np.diag(covariance).max())))
    shrunk = (1.0 - shrinkage) * covariance + shrinkage * np.diag(variance)
    return Strangeness(hidden.mean(axis=0), np.linalg.inv(shrunk), variance)


def strangeness(hidden_BD: ArrayLike, known: Strangeness) -> Floats:
    """How far hidden states are from what is usual, (B,): full Mahalanobis distance² less the diagonal one's.

        s = (h − μ)ᵀ Σ⁻¹ (h − μ) − (h − μ)ᵀ diag(Σ)⁻¹ (h − μ)

    The simplified relative Mahalanobis distance, by which Bai et al. 2022 (2204.05862) turn away requests of a kind that was
    not seen, in the form in which it is commonly implemented: what is far in every single dimension counts less than what
    breaks the rules between dimensions.
    """
    centred = np.asarray(hidden_BD, dtype=np.float64) - known.mean_D
    full: Floats = np.einsum("bd,de,be->b", centred, known.precision_DD, centred)
    diagonal: Floats = np.sum(centred**2 / known.variance_D, axis=1)
    return full - diagonal


def ranking_area(low_N: ArrayLike, high_N: ArrayLike) -> float:
    """The chance that one of `high` lies above one of `low`, ties counting half: the area under the ROC curve.

    Raises ValueError where one side is empty.
    """
    low, high = np.asarray(low_N, dtype=np.float64), np.asarray(high_N, dtype=np.float64)
    if not low.size or not high.size:
        raise ValueError("an area needs values on both sides")
    ordered = np.sort(low)
    below, at_most = np.searchsorted(ordered, high, "left"), np.searchsorted(ordered, high, "right")
    return float(np.mean((below + at_most) / 2.0) / low.size)


def _columns(x_N: ArrayLike, p_N: ArrayLike) -> tuple[Floats, Floats]:
    x, p = np.asarray(x_N, dtype=np.float64), np.asarray(p_N, dtype=np.float64)
    if x.ndim != 1 or x.shape != p.shape or not x.size:
        raise ValueError(f"two columns of one length are needed, not of shapes {x.shape} and {p.shape}")
    return x, p


def _sigmoid(x: Floats) -> Floats:
    found: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return found
