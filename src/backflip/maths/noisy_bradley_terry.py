"""Strengths of items from answers of people who do not always judge: noisy Bradley–Terry, by expectation maximisation.

Shapes: I items, R raters, N answers as a list (left item, right item, rater, belief). NumPy, float64; nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.logistic import sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Otherwise = Literal["habit", "opposite"]


class NoisyBradleyTerry(NamedTuple):
    """A fit: strengths `theta_I` in nats, mean 0; P(a rater judges) `reliability_R`; P(left, when not judging) `habit_R`.

    `judged_N` is how likely each answer was a judgement, `log_likelihood` that of the answers in nats, without the priors.
    """

    theta_I: Floats
    reliability_R: Floats
    habit_R: Floats
    judged_N: Floats
    iterations: int
    log_likelihood: float
    converged: bool


def noisy_bradley_terry(
    left_N: ArrayLike, right_N: ArrayLike, rater_N: ArrayLike, p_left_N: ArrayLike, *, n_items: int, n_raters: int,
    otherwise: Otherwise = "habit", smoothing: float = 1.0, ridge: float = 0.1, tolerance: float = 1e-6, limit: int = 500,
) -> NoisyBradleyTerry:  # fmt: skip
    """Each rater judges with probability η_r, and does something else with the rest.

        P(left ≻ right | r) = η_r·σ(θ_left − θ_right) + (1 − η_r)·b_r              "habit": left with probability b_r
        P(left ≻ right | r) = η_r·σ(θ_left − θ_right) + (1 − η_r)·σ(θ_right − θ_left)    "opposite"

    "opposite" is Chen, Bennett, Collins-Thompson & Horvitz 2013 (Crowd-BT, eq. 5), in which a malicious rater has η < ½;
    "habit" adds the side that a careless rater clicks, as the model of the same name in crowd-kit does. A tie is half an answer
    each way. E: how likely each answer was a judgement. M: η_r = (2s + Σ judged)/(3s + n_r), so that people are believed until
    they show otherwise; b_r = (s + Σ left)/(2s + n) of what was not; θ by Newton steps, under a normal prior of precision
    `ridge`, which keeps items that always win finite and is the scale of items that share no answers.

    The likelihood can have several maxima; the start is η = ¾ for everybody. Raises ValueError for columns of different
    lengths, a number outside its range, an item against itself, a belief that is no probability, or a ridge or smoothing that
    is not above 0.
    """
    left, right, rater = (np.asarray(column, dtype=np.int64) for column in (left_N, right_N, rater_N))
    p_left = np.asarray(p_left_N, dtype=np.float64)
    _check(left, right, rater, p_left, n_items, n_raters)
    if not (smoothing > 0 and ridge > 0) or otherwise not in ("habit", "opposite"):
        raise ValueError("smoothing and ridge are above 0, and otherwise is habit or opposite")
    # Every answer once as a win of the left and once as a win of the right item, weighing what is believed of it.
    winner, loser = np.concatenate([left, right]), np.concatenate([right, left])
    who, weight = np.concatenate([rater, rater]), np.concatenate([p_left, 1 - p_left])
    is_left = np.repeat([1.0, 0.0], len(left))
    n_R = np.bincount(who, weights=weight, minlength=n_raters)
    theta, eta, habit = np.zeros(n_items), np.full(n_raters, 0.75), np.full(n_raters, 0.5)
    log_likelihood, converged, iteration = -np.inf, False, 0
    while not converged and iteration < limit:
        iteration += 1
        judged, total = _expect(theta, eta, habit, winner, loser, who, is_left, otherwise)
        posterior = float((weight * np.log(total)).sum())
        mass = weight * judged
        eta = (2 * smoothing + np.bincount(who, weights=mass, minlength=n_raters)) / (3 * smoothing + n_R)
        if otherwise == "habit":
            rest = weight - mass
            clicked = np.bincount(who, weights=rest * is_left, minlength=n_raters)
            habit = (smoothing + clicked) / (2 * smoothing + np.bincount(who, weights=rest, minlength=n_raters))
            theta = _strengths(theta, winner, loser, mass, ridge)
        else:
            both = (np.concatenate([winner, loser]), np.concatenate([loser, winner]))
            theta = _strengths(theta, *both, np.concatenate([mass, weight - mass]), ridge)
        converged = abs(posterior - log_likelihood) <= tolerance * (1 + abs(posterior)) and iteration > 1
        log_likelihood = posterior
    judged, total = _expect(theta, eta, habit, winner, loser, who, is_left, otherwise)
    b = len(left)
    judged_N = p_left * judged[:b] + (1 - p_left) * judged[b:]
    log_likelihood = float((weight * np.log(total)).sum())
    return NoisyBradleyTerry(theta, eta, habit, judged_N, iteration, log_likelihood, converged)


def answer_log_likelihood(
    theta_I: ArrayLike, reliability_R: ArrayLike, habit_R: ArrayLike, left_N: ArrayLike, right_N: ArrayLike, rater_N: ArrayLike,
    p_left_N: ArrayLike,
) -> float:  # fmt: skip
    """The log-likelihood of answers under the "habit" model of `noisy_bradley_terry` at given parameters, in nats."""
    theta, eta, habit = (np.asarray(column, dtype=np.float64) for column in (theta_I, reliability_R, habit_R))
    left, right, rater = (np.asarray(column, dtype=np.int64) for column in (left_N, right_N, rater_N))
    p = np.asarray(p_left_N, dtype=np.float64)
    gap, e, b = theta[left] - theta[right], eta[rater], habit[rater]
    said = p * np.log(e * sigmoid(gap) + (1 - e) * b) + (1 - p) * np.log(e * sigmoid(-gap) + (1 - e) * (1 - b))
    return float(said.sum())


def _expect(
    theta: Floats, eta: Floats, habit: Floats, winner: Ints, loser: Ints, who: Ints, is_left: Floats, otherwise: Otherwise
) -> tuple[Floats, Floats]:
    """How likely each win was a judgement, and the probability of each win."""
    by_judging = eta[who] * sigmoid(theta[winner] - theta[loser])
    if otherwise == "habit":
        other = (1 - eta[who]) * np.where(is_left > 0, habit[who], 1 - habit[who])
    else:
        other = (1 - eta[who]) * sigmoid(theta[loser] - theta[winner])
    total = np.maximum(by_judging + other, 1e-300)
    return by_judging / total, total


def _strengths(theta: Floats, winner: Ints, loser: Ints, mass: Floats, ridge: float, steps: int = 3) -> Floats:
    """A few damped Newton steps of weighted Bradley–Terry from where it was: EM needs no exact maximum, only a higher one."""
    i = len(theta)

    def spread(win_N: Floats, lose_N: Floats) -> Floats:
        """What each row gives to its winner less what it takes from its loser."""
        won, lost = np.bincount(winner, win_N, i), np.bincount(loser, lose_N, i)
        return (won - lost).astype(np.float64, copy=False)

    for _ in range(steps):
        q = sigmoid(theta[loser] - theta[winner])
        gradient = spread(mass * q, mass * q) - ridge * theta
        bend = mass * q * (1 - q)

        def hessian(v: Floats, bend: Floats = bend) -> Floats:
            flow = bend * (v[winner] - v[loser])
            return ridge * v + spread(flow, flow)

        step = _conjugate_gradient(hessian, gradient)
        span = float(np.ptp(step))
        # Along a step the third derivative is at most `span` times the second, so this much of it always gains
        # (Sun & Tran-Dinh 2019).
        theta = theta + step * (np.log1p(span) / span if span > 0 else 1.0)
    return theta


def _conjugate_gradient(times: Callable[[Floats], Floats], b: Floats, *, tolerance: float = 1e-20) -> Floats:
    """x with A x = b for a positive definite A, known by what it does to a vector (Hestenes & Stiefel 1952)."""
    x, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), float(r @ r)
    goal = tolerance * rr
    for _ in range(2 * len(b) + 10):
        if rr <= goal:
            break
        ap = times(p)
        size = rr / float(p @ ap)
        x, r = x + size * p, r - size * ap
        rr, before = float(r @ r), rr
        p = r + rr / before * p
    return x


def _check(left: Ints, right: Ints, rater: Ints, p_left: Floats, n_items: int, n_raters: int) -> None:
    if len({column.shape for column in (left, right, rater, p_left)}) != 1 or left.ndim != 1:
        raise ValueError("answers need four columns of one length")
    for column, n, name in ((left, n_items, "item"), (right, n_items, "item"), (rater, n_raters, "rater")):
        if n < 1 or np.any((column < 0) | (column >= n)):
            raise ValueError(f"an answer names a {name} outside 0…{n - 1}")
    if np.any(left == right):
        raise ValueError("an answer compares an item with itself")
    if not np.all((p_left >= 0) & (p_left <= 1)):
        raise ValueError("p_left is a probability between 0 and 1")
