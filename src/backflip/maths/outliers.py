"""How far points lie from those a distribution was fitted to.

Shapes: N points, D dimensions. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Gaussian(NamedTuple):
    """A mean (D,), the inverse of a covariance (D, D) and the inverse of its diagonal (D,)."""

    mean_D: Floats
    precision_DD: Floats
    diagonal_D: Floats


def fit_gaussian(points_ND: ArrayLike, *, shrink: float = 0.1) -> Gaussian:
    """Mean and covariance of points, the covariance shrunk towards its diagonal so that it can be inverted.

        Σ = (1 − λ)·S + λ·diag(S) + 10⁻⁶·tr(S)/D·I,   S with divisor N

    After Ledoit & Wolf 2004, with a fixed λ = `shrink`. Raises ValueError without two points that differ, or for λ outside 0…1.
    """
    points = np.asarray(points_ND, dtype=np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"a Gaussian is fitted to two points at least, (N, D), not to an array of shape {points.shape}")
    if not 0.0 <= shrink <= 1.0:
        raise ValueError(f"shrink is between 0 and 1, not {shrink}")
    mean = points.mean(axis=0)
    centred = points - mean
    covariance = centred.T @ centred / len(points)
    size = float(np.trace(covariance)) / points.shape[1]
    if size <= 0.0:
        raise ValueError("a Gaussian cannot be fitted to points that are all the same")
    diagonal = np.diag(covariance)
    ridge = 1e-6 * size
    covariance = (1 - shrink) * covariance + shrink * np.diag(diagonal) + ridge * np.eye(len(mean))
    return Gaussian(mean, np.linalg.inv(covariance), 1.0 / (diagonal + ridge))


def mahalanobis(points_ND: ArrayLike, gaussian: Gaussian) -> Floats:
    """(x − μ)ᵀ Σ⁻¹ (x − μ), (N,): squared distances, D on the average for the points that were fitted (Mahalanobis 1936)."""
    away = np.asarray(points_ND, dtype=np.float64) - gaussian.mean_D
    found: Floats = np.einsum("nd,de,ne->n", away, gaussian.precision_DD, away)
    return found


def relative_mahalanobis(points_ND: ArrayLike, gaussian: Gaussian) -> Floats:
    """The distance under the full covariance less that under its diagonal alone, (N,).

        d(x) = (x − μ)ᵀ Σ⁻¹ (x − μ) − (x − μ)ᵀ diag(Σ)⁻¹ (x − μ)

    What every point has, a size of its own, cancels; what breaks the correlations of the fitted points stands out. The detector
    of Bai et al. 2022 (2204.05862), fitted to harmless prompts alone, after Ren et al. 2021 (2106.09022).
    """
    away = np.asarray(points_ND, dtype=np.float64) - gaussian.mean_D
    return mahalanobis(points_ND, gaussian) - (away**2 @ gaussian.diagonal_D)
