"""Logistic regression with a weak prior, intervals that know about clusters, and beliefs in place of labels.

Shapes: N rows, F columns, K clusters of rows. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.ratings import RIDGE, Z95

Floats = NDArray[np.float64]


class Logistic(NamedTuple):
    """A fit: coefficients in nats, their standard errors and 95 % intervals, (F,); the mean log loss of the rows in nats.

    `p_F` are two-sided p-values against 0 by the normal distribution, `covariance_FF` is what `se_F` is the diagonal of.
    """

    coef_F: Floats
    se_F: Floats
    low_F: Floats
    high_F: Floats
    p_F: Floats
    covariance_FF: Floats
    log_loss: float


def logistic(
    x_NF: ArrayLike, p_N: ArrayLike, *, weight_N: ArrayLike | None = None, ridge: float | ArrayLike = RIDGE,
    cluster_N: ArrayLike | None = None,
) -> Logistic:  # fmt: skip
    """Fit P(row is a yes) = σ(x·β); there is no intercept unless a column of ones stands among the columns.

        maximise  Σ_n w_n [p_n log σ(x_n·β) + (1 − p_n) log σ(−x_n·β)] − ½ Σ_f ridge_f β_f²

    Cox 1958. `p_N` are beliefs between 0 and 1, `weight_N` weights (None: 1 each), `ridge` the precision of a normal prior, one
    number or one for each column; where a column separates the yes from the no it is what keeps its coefficient finite.

    The standard error is the larger of two: √diag H⁻¹, H being the negative Hessian, and √diag(H⁻¹ M H⁻¹) with
    M = K/(K−1)·Σ_k s_k s_kᵀ, the scores s summed over the clusters that `cluster_N` numbers (Liang & Zeger 1986; None: every
    row by itself). The second is 0 where nothing varies, the first believes that rows are independent.

    Raises ValueError for columns of different lengths, no rows, beliefs outside [0, 1], weights below 0, numbers that are not
    finite, and where the fit is not determined.
    """
    x, p = np.asarray(x_NF, dtype=np.float64), np.asarray(p_N, dtype=np.float64)
    w = np.ones(len(p)) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    if x.ndim != 2 or p.shape != x.shape[:1] or w.shape != p.shape or len(p) == 0:
        raise ValueError(f"rows of shape {x.shape} do not fit beliefs of shape {p.shape} and weights of shape {w.shape}")
    if not (np.isfinite(x).all() and np.isfinite(w).all() and np.all(w >= 0) and np.all((p >= 0) & (p <= 1))):
        raise ValueError("columns are finite, weights not below 0 and beliefs between 0 and 1")
    ridge_F = np.broadcast_to(np.asarray(ridge, dtype=np.float64), x.shape[1:])
    beta, hessian = newton(x, p, w, ridge_F)
    inverse: Floats = np.linalg.inv(hessian).astype(np.float64)
    score_NF = (w * (p - sigmoid(x @ beta)))[:, None] * x
    covariance = _sandwich(inverse, score_NF, cluster_N)
    plain = np.diag(inverse)
    # The larger of the two on each axis, the correlations of the second kept.
    scale = np.sqrt(np.maximum(plain, np.diag(covariance)) / np.maximum(np.diag(covariance), 1e-300))
    covariance = covariance * np.outer(scale, scale) if np.all(np.diag(covariance) > 1e-300) else inverse
    se = np.sqrt(np.maximum(np.diag(covariance), plain))
    z = x @ beta
    loss_N = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
    loss = float((w * loss_N).sum() / max(float(w.sum()), 1e-300))
    return Logistic(beta, se, beta - Z95 * se, beta + Z95 * se, two_sided(beta / se), covariance, loss)


def newton(
    x_NF: Floats, p_N: Floats, w_N: Floats, ridge_F: Floats, start_F: Floats | None = None, *, tolerance: float = 1e-18,
    limit: int = 100,
) -> tuple[Floats, Floats]:  # fmt: skip
    """The maximum of `logistic` and the negative Hessian there, by Newton steps that are halved until they gain.

    Raises ValueError where the Hessian is singular, ArithmeticError where `limit` steps are not enough.
    """

    def objective(beta: Floats) -> float:
        z = x_NF @ beta
        return float((w_N * (p_N * np.logaddexp(0, -z) + (1 - p_N) * np.logaddexp(0, z))).sum() + 0.5 * ridge_F @ beta**2)

    beta = np.zeros(x_NF.shape[1]) if start_F is None else start_F.copy()
    value = objective(beta)
    for _ in range(limit):
        q = sigmoid(x_NF @ beta)
        gradient = x_NF.T @ (w_N * (p_N - q)) - ridge_F * beta
        hessian = (x_NF * (w_N * q * (1 - q))[:, None]).T @ x_NF + np.diag(ridge_F)
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError as problem:
            raise ValueError(
                "the columns do not determine a fit; drop one that follows from others, or give a ridge"
            ) from problem
        if float(step @ gradient) <= tolerance * (1 + abs(value)):
            return beta, hessian
        size, fresh = 1.0, objective(beta + step)
        while fresh > value + 1e-12 * (1 + abs(value)) and size > 1e-8:  # what rounding adds is no loss
            size, fresh = size / 2, objective(beta + size / 2 * step)
        beta, value = beta + size * step, fresh
    raise ArithmeticError(f"a logistic fit did not converge in {limit} Newton steps")


def sigmoid(z: Floats) -> Floats:
    """1/(1 + e^−z), which neither over- nor underflows."""
    found: Floats = 0.5 * (1.0 + np.tanh(0.5 * z))
    return found


def two_sided(z: Floats) -> Floats:
    """How often a standard normal is as far from 0 as z."""
    from math import erfc, sqrt

    return np.array([erfc(abs(each) / sqrt(2)) for each in np.atleast_1d(z).tolist()])


def _sandwich(inverse_FF: Floats, score_NF: Floats, cluster_N: ArrayLike | None) -> Floats:
    if cluster_N is not None:
        _, place_N = np.unique(np.asarray(cluster_N), return_inverse=True)
        score_NF = np.column_stack([np.bincount(place_N, weights=column) for column in score_NF.T])
    k = len(score_NF)
    covariance: Floats = inverse_FF @ (score_NF.T @ score_NF) @ inverse_FF * (k / max(1, k - 1))
    return covariance
