"""What optimising a noisy proxy does to what is meant: best of n under any noise by enumeration, and the forms of Gao et al.

A world is gold g ~ N(0, 1) and a proxy p = g + ε that is optimised in its place. Best of n draws n times and keeps the largest
p; what that is worth in gold depends on the tail of ε alone: E[g | p] rises for a thin tail, levels off for an exponential one,
and comes back to E[g] for a heavy one, where the best by proxy are those with the most noise.

Shapes: G cells of gold, X edges between cells of the proxy, N points of a curve. NumPy, float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Survival = Callable[[Floats], Floats]
"""x ↦ P(ε > x), elementwise."""

REACH = 9.0
"""Standard deviations of gold beyond which nothing is enumerated; one in 10¹⁸ lies there."""


class Part(NamedTuple):
    """One kind of sample: how often it occurs, what it adds to gold and to the proxy beside ε, and the noise's survival."""

    share: float
    survival: Survival
    gold: float = 0.0
    proxy: float = 0.0


def normal(scale: float = 1.0) -> Survival:
    """ε ~ N(0, scale²)."""
    return lambda x: 0.5 * torch.special.erfc(torch.from_numpy(np.asarray(x / (scale * math.sqrt(2))))).numpy()


def laplace(scale: float = 1.0) -> Survival:
    """ε with density e^{−|x|/scale}/(2·scale)."""
    return lambda x: np.where(x > 0, 0.5 * np.exp(-np.abs(x) / scale), 1.0 - 0.5 * np.exp(-np.abs(x) / scale))


def student3(scale: float = 1.0) -> Survival:
    """ε = scale·t with three degrees of freedom: ½ − (t√3/(3 + t²) + arctan(t/√3))/π, whose tail falls as t⁻³."""

    def survival(x: Floats) -> Floats:
        t = np.abs(x) / scale / math.sqrt(3)
        # arctan(t) = π/2 − arctan(1/t); for large t both terms cancel to 2/(3t³), so the series stands in there.
        u = 1.0 / np.maximum(t, 1.0)
        near = 0.5 - (t / (1 + t * t) + np.arctan(t)) / math.pi
        far = (2 / 3 * u**3 - 4 / 5 * u**5 + 6 / 7 * u**7 - 8 / 9 * u**9) / math.pi
        tail: Floats = np.where(t > 50, far, near)
        return np.where(x > 0, tail, 1.0 - tail)

    return survival


def student2(scale: float = 1.0) -> Survival:
    """ε = scale·t with two degrees of freedom: ½(1 − t/√(2 + t²)), whose tail falls as t⁻²."""

    def survival(x: Floats) -> Floats:
        t = np.abs(x) / scale
        root = np.sqrt(2 + t * t)
        tail: Floats = 1.0 / (root * (root + t))  # ½(1 − t/√) without the cancellation
        return np.where(x > 0, tail, 1.0 - tail)

    return survival


class Enumerated(NamedTuple):
    """A world in which the proxy is read in cells, the lowest first: of each cell, log P(p at most its upper edge) and E[g]."""

    log_cdf_X: Floats
    gold_X: Floats

    def best_of(self, n: int) -> float:
        """E[g] of the best of n by proxy, in which ties are broken at random: Σ_c (F_c^n − F_{c−1}^n)·E[g | c], exactly.

        Raises ValueError for n < 1.
        """
        if n < 1:
            raise ValueError(f"best of {n} has no meaning; n starts at 1")
        power_X = np.exp(n * self.log_cdf_X)
        return float(np.sum(np.diff(power_X, prepend=0.0) * self.gold_X))


def enumerate_world(parts: Sequence[Part], *, cells: int = 6000, step: float = 0.01) -> Enumerated:
    """Every cell of gold with every cell of the proxy.

    Gold stands on a grid of `step`, weighed as N(0, 1) and scaled to sum to 1; the proxy's `cells` lie as sinh of equal steps,
    near together around 0, up to 2·10⁶. Raises ValueError where the shares do not add up to 1.
    """
    if not math.isclose(sum(part.share for part in parts), 1.0):
        raise ValueError(f"the shares of the parts add up to {sum(part.share for part in parts)}, not to 1")
    gold_G = np.arange(-REACH, REACH + step / 2, step)
    weight_G = np.exp(-0.5 * gold_G**2)
    weight_G /= weight_G.sum()
    edges_X = np.sinh(np.linspace(-math.asinh(1e6), math.asinh(2e6), cells))
    survival_X, mass_X = np.zeros(cells), np.zeros(cells)
    for part in parts:
        for i, x in enumerate(edges_X):
            above_G = part.share * weight_G * part.survival(x - part.proxy - gold_G)
            survival_X[i] += above_G.sum()
            mass_X[i] += (above_G * (gold_G + part.gold)).sum()
    # The last cell has no upper edge; below the first edge nothing is worth telling apart.
    mean = sum(part.share * part.gold for part in parts)
    lower_S, lower_M = np.concatenate([[1.0], survival_X]), np.concatenate([[mean], mass_X])
    upper_S, upper_M = np.concatenate([survival_X, [0.0]]), np.concatenate([mass_X, [0.0]])
    inside = lower_S - upper_S
    with np.errstate(divide="ignore", invalid="ignore"):
        gold_X = np.where(inside > 0, (lower_M - upper_M) / inside, 0.0)
        return Enumerated(np.log1p(-np.minimum(upper_S, 1.0)), gold_X)


class Form(NamedTuple):
    """One of the two curves of Gao et al. 2022 (2210.10760), section 3.1: R(d) = d·(α − β·s(d)), d = √KL in nats."""

    name: str
    shape: Callable[[Floats], Floats]

    def __call__(self, d: ArrayLike, alpha: float, beta: float) -> Floats:
        """Gold at distances d; R(0) = 0."""
        points = np.asarray(d, dtype=np.float64)
        return points * (alpha - beta * self.shape(points))


def _log(d: Floats) -> Floats:
    return np.log(np.maximum(d, 1e-300))


BON = Form("best of n", lambda d: d)
"""R(d) = d(α − βd), for best of n."""

RL = Form("reinforcement", _log)
"""R(d) = d(α − β log d), for reinforcement learning."""


class Fit(NamedTuple):
    """A fitted form and the share of variance that it explains; `peak` is where its gold is largest, infinite for β ≤ 0."""

    form: Form
    alpha: float
    beta: float
    r2: float

    def at(self, d: ArrayLike) -> Floats:
        """Gold at distances d."""
        return self.form(d, self.alpha, self.beta)

    @property
    def peak(self) -> float:
        """d* = α/2β for best of n, exp(α/β − 1) for reinforcement learning."""
        if self.beta <= 0:
            return math.inf
        if self.form is BON:
            return self.alpha / (2 * self.beta)
        ratio = self.alpha / self.beta - 1
        return math.exp(ratio) if ratio < 700 else math.inf


def fit(form: Form, d_N: ArrayLike, gold_N: ArrayLike) -> Fit:
    """α and β by least squares, in which both are linear. R² is against the mean of `gold_N`.

    Raises ValueError without two different distances above 0.
    """
    d, gold = np.asarray(d_N, dtype=np.float64), np.asarray(gold_N, dtype=np.float64)
    if d.ndim != 1 or d.shape != gold.shape or len(set(d[d > 0].tolist())) < 2:
        raise ValueError(f"a form is fitted to two distances above 0 at least, not to {d.tolist()[:8]}")
    design = np.stack([d, -d * form.shape(d)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(design, gold, rcond=None)
    left = gold - design @ np.array([alpha, beta])
    spread = float(((gold - gold.mean()) ** 2).sum())
    return Fit(form, float(alpha), float(beta), 1.0 - float((left**2).sum()) / spread if spread > 0 else math.nan)
