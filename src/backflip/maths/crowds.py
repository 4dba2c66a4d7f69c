"""What is the answer, and whom should one believe? Dawid–Skene and the one-coin model, by expectation maximisation.

Shapes: U units, R raters, C categories (Y as said), J kinds of units, N answers as a list (unit, rater, category), so that a
hundred raters who each saw a few of many units cost what they answered and no more. NumPy, float64; nothing is random.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class DawidSkene(NamedTuple):
    """A fit: P(category of unit) `posterior_UC`, P(rater says column | truth is row) `confusion_RCC`, P(category) `prior_C`.

    `log_likelihood` is that of the answers, in nats; `converged` says whether the posterior had come to rest.
    """

    posterior_UC: Floats
    confusion_RCC: Floats
    prior_C: Floats
    iterations: int
    log_likelihood: float
    converged: bool

    @property
    def reliability_R(self) -> Floats:
        """How often each rater would be right over all units: Σ_c P(c)·P(rater says c | c)."""
        right_RC = np.diagonal(self.confusion_RCC, axis1=1, axis2=2)
        reliability: Floats = right_RC @ self.prior_C
        return reliability


class OneCoin(NamedTuple):
    """A fit: P(category of unit) `posterior_UC`, and P(rater is right) `reliability_R`."""

    posterior_UC: Floats
    reliability_R: Floats
    iterations: int
    log_likelihood: float
    converged: bool


def dawid_skene(
    unit_N: ArrayLike, rater_N: ArrayLike, category_N: ArrayLike, *, n_units: int, n_raters: int, n_categories: int,
    smoothing: float = 1.0, tolerance: float = 1e-4, limit: int = 200,
) -> DawidSkene:  # fmt: skip
    """The maximum of Dawid & Skene's likelihood, started from each unit's shares of answers.

        E  q_uc ∝ p_c·Π_{n of u} π_{r_n, c, y_n}
        M  π_rcy = (s + Σ_{n of r, y_n=y} q_{u_n, c})/(C·s + Σ_{n of r} q_{u_n, c}),   p_c = (s + Σ_u q_uc)/(C·s + U)

    Dawid & Skene 1979, eqs. 2.3–2.5, with Laplace's `smoothing` s added to every count, so that a rater of three answers is not
    taken to be infallible. The iteration ends when no q changes by more than `tolerance`, or after `limit` rounds.

    Two raters per unit do not determine the model; three do. Raises ValueError for columns of different lengths, a number
    outside its range, or a smoothing that is not above 0.
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing is above 0, not {smoothing}")
    kinds, c = _kinds(unit_N, rater_N, category_N, n_units, n_raters, n_categories), n_categories
    said_N = kinds.rater_N * c + kinds.category_N
    posterior_CJ, log_likelihood, change, iteration = kinds.shares_CJ, 0.0, np.inf, 0
    while change > tolerance and iteration < limit:
        iteration += 1
        mass_CJ = posterior_CJ * kinds.times_J
        heard_CRY = np.stack([_summed(said_N, mass_J[kinds.kind_N], n_raters * c) for mass_J in mass_CJ])
        heard_CRY = heard_CRY.reshape(c, n_raters, c) + smoothing
        confusion_CRY = heard_CRY / heard_CRY.sum(axis=2, keepdims=True)
        mass_C = mass_CJ.sum(axis=1) + smoothing
        prior_C = mass_C / mass_C.sum()
        heard = np.log(confusion_CRY).reshape(c, -1)
        score_CJ = np.stack([_summed(kinds.kind_N, log_RY[said_N], len(kinds.times_J)) for log_RY in heard])
        fresh_CJ, log_sum_J = _normalised(score_CJ + np.log(prior_C)[:, None])
        change, posterior_CJ = float(np.abs(fresh_CJ - posterior_CJ).max()), fresh_CJ
        log_likelihood = float(log_sum_J @ kinds.times_J)
    posterior_UC, confusion_RCC = posterior_CJ.T[kinds.kind_U], confusion_CRY.transpose(1, 0, 2)
    return DawidSkene(posterior_UC, confusion_RCC, prior_C, iteration, log_likelihood, change <= tolerance)


def one_coin(
    unit_N: ArrayLike, rater_N: ArrayLike, category_N: ArrayLike, *, n_units: int, n_raters: int, n_categories: int,
    smoothing: float = 1.0, tolerance: float = 1e-4, limit: int = 200,
) -> OneCoin:  # fmt: skip
    """Dawid–Skene with one number per rater: right with probability p_r, otherwise any other category, all equally likely.

        E  q_uc ∝ Π_{n of u} (p_{r_n} if y_n = c else (1−p_{r_n})/(C−1))
        M  p_r = (s + Σ_{n of r} q_{u_n, y_n})/(2s + n_r)

    Zhang, Chen, Zhou & Jordan 2014, "Spectral methods meet EM", with the smoothing of `dawid_skene`. It can be told from
    fewer answers than the full model, and cannot see a bias towards a category. Raises ValueError as `dawid_skene`.
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing is above 0, not {smoothing}")
    kinds, c = _kinds(unit_N, rater_N, category_N, n_units, n_raters, n_categories), n_categories
    n_kinds, times_N = len(kinds.times_J), kinds.times_J[kinds.kind_N]
    cell_N = kinds.category_N * n_kinds + kinds.kind_N
    answers_R = _summed(kinds.rater_N, times_N, n_raters)
    posterior_CJ, log_likelihood, change, iteration = kinds.shares_CJ, 0.0, np.inf, 0
    while change > tolerance and iteration < limit:
        iteration += 1
        right_R = _summed(kinds.rater_N, posterior_CJ.ravel()[cell_N] * times_N, n_raters)
        reliability_R = (smoothing + right_R) / (2 * smoothing + answers_R)
        wrong_R = np.log((1 - reliability_R) / max(1, c - 1))
        gain_N = (np.log(reliability_R) - wrong_R)[kinds.rater_N]
        score_CJ = _summed(cell_N, gain_N, c * n_kinds).reshape(c, n_kinds) - np.log(c)
        fresh_CJ, log_sum_J = _normalised(score_CJ + _summed(kinds.kind_N, wrong_R[kinds.rater_N], n_kinds))
        change, posterior_CJ = float(np.abs(fresh_CJ - posterior_CJ).max()), fresh_CJ
        log_likelihood = float(log_sum_J @ kinds.times_J)
    return OneCoin(posterior_CJ.T[kinds.kind_U], reliability_R, iteration, log_likelihood, change <= tolerance)


class _Kinds(NamedTuple):
    """Units to which the same raters gave the same answers are of one kind: `times_J` of each, and the answers to one of them."""

    kind_U: Ints
    times_J: Floats
    kind_N: Ints
    rater_N: Ints
    category_N: Ints
    shares_CJ: Floats


def _kinds(
    unit_N: ArrayLike, rater_N: ArrayLike, category_N: ArrayLike, n_units: int, n_raters: int, n_categories: int
) -> _Kinds:
    """The answers, each kind of unit once: few raters who share many units answer in few ways."""
    columns = [np.asarray(column, dtype=np.int64) for column in (unit_N, rater_N, category_N)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise ValueError(f"answers need three columns of one length, not shapes {[column.shape for column in columns]}")
    for column, n, name in zip(columns, (n_units, n_raters, n_categories), ("unit", "rater", "category"), strict=True):
        if n < 1 or np.any((column < 0) | (column >= n)):
            raise ValueError(f"an answer names a {name} outside 0…{n - 1}")
    order_N = np.argsort(columns[0], kind="stable")
    unit, rater, category = (column[order_N] for column in columns)
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    mark_U = np.zeros(n_units, dtype=np.uint64)
    if len(unit):
        # The sum of 64 mixed bits per answer marks the set of answers; two sets of a million share one with odds of 1 in 10⁷.
        mark_U[unit[starts]] = np.add.reduceat(_mixed(rater * n_categories + category), starts)
    _, first_J, kind_U, times_J = np.unique(mark_U, return_index=True, return_inverse=True, return_counts=True)
    shown_U = np.zeros(n_units, dtype=bool)
    shown_U[first_J] = True
    shown_N = shown_U[unit]
    kind_N, rater, category = kind_U[unit[shown_N]], rater[shown_N], category[shown_N]
    counts_CJ = _summed(category * len(times_J) + kind_N, None, n_categories * len(times_J)).reshape(n_categories, -1)
    total_J = counts_CJ.sum(axis=0)
    shares_CJ = np.where(total_J > 0, counts_CJ / np.maximum(total_J, 1), 1 / n_categories)
    return _Kinds(kind_U, times_J.astype(np.float64), kind_N, rater, category, shares_CJ)


def _mixed(numbers_N: Ints) -> NDArray[np.uint64]:
    """Well-mixed 64 bits for each number: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = (numbers_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _summed(cell_N: Ints, amount_N: Floats | None, size: int) -> Floats:
    """The amounts (None: ones) added up per cell, as float64."""
    return np.bincount(cell_N, weights=amount_N, minlength=size).astype(np.float64, copy=False)


def _normalised(score_CJ: Floats) -> tuple[Floats, Floats]:
    """The softmax of log-probabilities over categories, and the logarithms of their sums."""
    largest_J = score_CJ.max(axis=0)
    p_CJ = np.exp(score_CJ - largest_J)
    sum_J = p_CJ.sum(axis=0)
    return p_CJ / sum_J, largest_J + np.log(sum_J)
