"""Everybody's taste as everybody's shared one and a deviation: hierarchical Bradley–Terry with partial pooling.

Shapes: N comparisons, F features, J people (or groups of people). NumPy, float64; nothing is random.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.logistic import sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Pooled(NamedTuple):
    """A fit: the shared taste `shared_F`, each person's deviation `own_JF`, and the standard deviation `spread` of deviations.

    `error_J` is how often each answers at random, `log_loss` the mean of the comparisons fitted, in nats.
    """

    shared_F: Floats
    own_JF: Floats
    spread: float
    error_J: Floats
    log_loss: float
    iterations: int
    converged: bool

    @property
    def taste_JF(self) -> Floats:
        """What each person weighs the features with."""
        found: Floats = self.shared_F + self.own_JF
        return found


def pooled_bradley_terry(
    gap_NF: ArrayLike, person_N: ArrayLike, p_left_N: ArrayLike, *, n_people: int, ridge: float = 0.01,
    spread: float | None = None, error: float | None = 0.0, tolerance: float = 1e-6, limit: int = 200,
) -> Pooled:  # fmt: skip
    """The likeliest tastes under P_j(left ≻ right) = (1 − ε_j)·σ((w + v_j)·x) + ε_j/2, x being features left − right.

        maximise  Σ_n log P − ridge/2·|w|² − Σ_j |v_j|²/(2 spread²)

    Who answered little keeps to the shared taste w, who answered much gets their own: partial pooling (Gelman & Hill 2007,
    chapter 12). `spread` 0 pools everybody, ∞ nobody; None finds it, spread² = (1 + Σ_j (|v_j|² + tr Σ_j))/(1 + J·F), Σ_j being
    the covariance of v_j given w by Laplace's approximation (expectation maximisation of the marginal likelihood, with one
    deviation of 1 added).
    `error` is ε of everybody, or None to find each person's, which a Beta(2, 10) holds near 0.1; then each round first asks how
    likely each answer was no error. A belief between 0 and 1 is that much of an answer each way.

    Raises ValueError for columns that do not fit, numbers that are not finite, a person outside 0 … J−1, a belief that is no
    probability, or a setting outside its range.
    """
    gap, person, p = np.asarray(gap_NF, dtype=np.float64), np.asarray(person_N, dtype=np.int64), np.asarray(p_left_N, np.float64)
    _check(gap, person, p, n_people, ridge, spread, error)
    order = np.argsort(person, kind="stable")
    gap, person, p = gap[order], person[order], p[order]
    ends = np.searchsorted(person, np.arange(n_people + 1))
    f = gap.shape[1]
    shared, own = np.zeros(f), np.zeros((n_people, f))
    width = 1.0 if spread is None else spread
    eps = np.full(n_people, 0.1 if error is None else error)
    before, iteration, converged = np.inf, 0, False
    while not converged and iteration < limit:
        iteration += 1
        meant_left, meant_right = _meant(gap, person, p, shared, own, eps)
        shared, own, covariance = _step(gap, ends, meant_left, meant_right, shared, own, ridge, width)
        if spread is None:
            width = float(np.sqrt((1 + (own**2).sum() + covariance) / (1 + own.size)))
        if error is None:
            mass = np.bincount(person, weights=1 - meant_left - meant_right, minlength=n_people)
            eps = (1 + mass) / (10 + np.bincount(person, minlength=n_people))
        loss = _loss(gap, person, p, shared, own, eps)
        total = loss * len(p) + 0.5 * ridge * float(shared @ shared) + (0.5 * float((own**2).sum()) / width**2 if width else 0.0)
        converged = abs(before - total) <= tolerance * (1 + abs(total))
        before = total
    return Pooled(shared, own, width, eps, loss, iteration, converged)


def _check(gap: Floats, person: Ints, p: Floats, n_people: int, ridge: float, spread: float | None, error: float | None) -> None:
    if gap.ndim != 2 or not person.shape == p.shape == gap.shape[:1] or len(p) == 0:
        raise ValueError("comparisons need features, a person and a belief each")
    if not np.isfinite(gap).all() or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("features are finite and beliefs between 0 and 1")
    if n_people < 1 or np.any((person < 0) | (person >= n_people)):
        raise ValueError(f"a comparison names a person outside 0…{n_people - 1}")
    if not ridge > 0 or (spread is not None and not spread >= 0) or (error is not None and not 0 <= error < 1):
        raise ValueError("ridge is above 0, spread not below 0 and error a probability below 1")


def _meant(gap: Floats, person: Ints, p: Floats, shared: Floats, own: Floats, eps: Floats) -> tuple[Floats, Floats]:
    """How much of each comparison is an answer for the left and for the right that was meant."""
    q, e = sigmoid(_utility(gap, person, shared, own)), eps[person]
    left, right = (1 - e) * q, (1 - e) * (1 - q)
    return p * left / np.maximum(left + e / 2, 1e-300), (1 - p) * right / np.maximum(right + e / 2, 1e-300)


def _utility(gap: Floats, person: Ints, shared: Floats, own: Floats) -> Floats:
    found: Floats = gap @ shared + np.einsum("nf,nf->n", gap, own[person])
    return found


def _loss(gap: Floats, person: Ints, p: Floats, shared: Floats, own: Floats, eps: Floats) -> float:
    z, e = _utility(gap, person, shared, own), eps[person]
    left, right = ((1 - e) * sigmoid(side) + e / 2 for side in (z, -z))
    return -float((p * np.log(np.maximum(left, 1e-300)) + (1 - p) * np.log(np.maximum(right, 1e-300))).mean())


def _step(
    gap: Floats, ends: Ints, meant_left: Floats, meant_right: Floats, shared: Floats, own: Floats, ridge: float, width: float
) -> tuple[Floats, Floats, float]:
    """One Newton step for everything at once, halved until it gains, and Σ_j tr Σ_j.

    The Hessian is an arrow: blocks A_j + 1/spread² for people, beside a border of the A_j and Σ A_j + ridge. The people are
    eliminated first (Schur complement).
    """
    f, free = len(shared), width > 0.0
    precision = 0.0 if np.isinf(width) else 1 / width**2 if free else 0.0
    precision = max(precision, 1e-9)  # nobody pooled is nearly so: the shared taste would not be determined
    person = np.repeat(np.arange(len(own)), np.diff(ends))
    mass = meant_left + meant_right

    def objective(w: Floats, v: Floats) -> float:
        z = _utility(gap, person, w, v)
        fit = (meant_left * np.logaddexp(0, -z) + meant_right * np.logaddexp(0, z)).sum()
        return float(fit) + 0.5 * ridge * float(w @ w) + 0.5 * precision * float((v**2).sum())

    q = sigmoid(_utility(gap, person, shared, own))
    pull, bend = meant_left - mass * q, mass * q * (1 - q)
    parts = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    a_JFF = np.stack([(gap[s:e] * bend[s:e, None]).T @ gap[s:e] for s, e in parts])
    g_JF = np.stack([gap[s:e].T @ pull[s:e] for s, e in parts])
    g_w, g_own = g_JF.sum(axis=0) - ridge * shared, g_JF - precision * own
    if free:
        block = a_JFF + precision * np.eye(f)
        inverse = np.linalg.inv(block)
        border = a_JFF @ inverse
        schur = ridge * np.eye(f) + (a_JFF - border @ a_JFF).sum(axis=0)
        step_w = np.linalg.solve(schur, g_w - np.einsum("jfg,jg->f", border, g_own))
        step_own = np.einsum("jfg,jg->jf", inverse, g_own - a_JFF @ step_w)
        covariance = float(np.trace(inverse, axis1=1, axis2=2).sum())
    else:
        step_w, step_own, covariance = np.linalg.solve(a_JFF.sum(axis=0) + ridge * np.eye(f), g_w), np.zeros_like(own), 0.0
    size, value = 1.0, objective(shared, own)
    while objective(shared + size * step_w, own + size * step_own) > value and size > 1e-8:
        size /= 2
    return shared + size * step_w, own + size * step_own, covariance
