"""Ratings with the length of the texts taken out: Bradley–Terry with one covariate, and intervals for it.

People, and judges even more, like the longer of two texts, so a policy can climb by writing more. Here how much a
difference in length moves the odds is estimated together with the strengths; the strengths are what is left, the ratings
that texts of equal length would get.

Shapes: M policies, B votes, P prompts, R resamples, C cells (votes of one pair with about the same difference in length),
Q pairs of policies that met, sorted. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backflip.maths.ratings import (
    RIDGE,
    Floats,
    Ints,
    RatingIntervals,
    Votes,
    _counts,
    _elo,
    _reachable,
    _virtual_spread,
    components,
)

LEVELS = 8
"""How many magnitudes of a difference in length the bootstrap tells apart; within one they count as their mean."""
BLOCK = 60_000
"""Cells of resamples fitted at once, so many that a processor's cache holds them."""


class LengthControlled(NamedTuple):
    """A fit: `elo_M` (None when the policies fall into several `components`), and what length does.

    `coefficient` is by how many nats the odds of a win rise for a text that is longer by the `typical` difference
    (left − right)/(left + right), its root mean square over the votes; 0.2 is a text one and a half times as long.
    """

    elo_M: Floats | None
    coefficient: float
    typical: float
    regularised: bool
    components: tuple[tuple[int, ...], ...]


class LengthIntervals(NamedTuple):
    """The 95 % bounds of the ratings, and those of the coefficient of length."""

    ratings: RatingIntervals
    low: float
    high: float


def length_difference(left_B: ArrayLike, right_B: ArrayLike) -> Floats:
    """(left − right)/(left + right) of two columns of lengths, (B,), between −1 and 1; 0 for two empty texts.

    The share by which one text is longer, whatever the unit: characters or tokens (the normalised difference of Chatbot
    Arena's style control). Raises ValueError for negative lengths or columns of two sizes.
    """
    left, right = np.asarray(left_B, dtype=np.float64), np.asarray(right_B, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or np.any(left < 0) or np.any(right < 0):
        raise ValueError("lengths are two columns of one size, none below zero")
    both = left + right
    found: Floats = (left - right) / np.where(both > 0, both, 1.0)
    return found


def length_controlled_ratings(votes: Votes, difference_B: ArrayLike, *, anchor: int | None = None) -> LengthControlled:
    """Bradley–Terry strengths at equal length on the Elo scale, with the anchor (or the mean of all) at 1000.

        maximise  Σ_b [p_b·log σ(z_b) + (1 − p_b)·log σ(−z_b)] − RIDGE/2·γ²,   z_b = θ_left − θ_right + γ·x_b
        x_b = d_b/√mean(d²),   Elo_i = 1000 + 400/ln 10 · (θ_i − θ_anchor)

    Chiang et al. 2024 (Chatbot Arena) fit θ; a covariate beside it is their style control, and Dubois et al. 2024
    (length-controlled AlpacaEval) take length out of win rates in the same way: fit its effect, then set the difference
    to zero. Theirs is d/std through a tanh; d = (left − right)/(left + right) is bounded already. There is no
    intercept, so exchanging left and right changes nothing.

    `difference_B` (B,) is d of each vote, between −1 and 1 (`length_difference`). With equal lengths everywhere γ is 0
    and the ratings are those of `bradley_terry_ratings`. γ has the weak prior always, because it can separate the
    votes where θ does not; θ has it exactly where it has it there. Where a policy is always longer than whom it meets,
    strength and length cannot be told apart: the fit gives it all to strength, and only the intervals of
    `bootstrap_length_controlled` say that it might be length. Raises ValueError for a column of another
    size, a difference beyond ±1, and an unknown anchor.
    """
    d_B = _differences(votes, difference_B)
    wins_MM = votes.win_matrix()
    groups = components(wins_MM)
    typical = _typical(d_B)
    if len(groups) > 1:
        return LengthControlled(None, 0.0, typical, False, groups)
    regularised = not bool(_reachable(wins_MM > 0).all())
    cells = _Cells(votes, d_B / typical)
    theta_RM, gamma_R = _newton(cells, cells.won_C[None], cells.lost_C[None], ridge=RIDGE if regularised else 0.0)
    return LengthControlled(_elo(theta_RM[0], anchor), float(gamma_R[0]), typical, regularised, groups)


def bootstrap_length_controlled(
    votes: Votes, difference_B: ArrayLike, *, rng: np.random.Generator, resamples: int = 1000, anchor: int | None = None
) -> LengthIntervals:
    """95 % percentile intervals of `length_controlled_ratings`, resampling prompts with replacement.

    As `bootstrap_ratings`, its random fractions of a vote included; they fall on texts of equal length. In the same
    spirit γ is held not towards 0 but towards a draw from its prior, so that what the votes do not say about length stays
    as open as it is: where all lengths are equal γ may be anything, and where one policy is always the longer its rating
    may be. Differences in length are rounded to `LEVELS` magnitudes, so that votes of one pair can be counted together:
    that moves no rating by more than a small part of its interval and makes a thousand fits a matter of a second. Raises
    ValueError when some policies are not connected by matches, or for less than one resample.
    """
    if resamples < 1:
        raise ValueError("the bootstrap needs at least one resample")
    d_B = _differences(votes, difference_B)
    m, total_MM = votes.n_policies, votes.win_matrix()
    if len(components(total_MM)) > 1:
        raise ValueError("policies that share no chain of matches have no common scale to bootstrap")
    x_B = d_B / _typical(d_B)
    cells = _Cells(votes, x_B, levels=LEVELS)
    prompts, prompt_B = np.unique(votes.prompt_B, return_inverse=True)
    won_B = np.where(cells.flip_B, 1.0 - votes.p_left_B, votes.p_left_B)
    # Everything won in cells 0 … C−1, everything lost in cells C … 2C−1, and only what is not nothing.
    place_2B = prompt_B * 2 * cells.n + cells.cell_B
    entry_E, where_2B = np.unique(np.concatenate([place_2B, place_2B + cells.n]), return_inverse=True)
    amount_E = _counts(where_2B, np.concatenate([won_B, 1.0 - won_B]), len(entry_E))
    some_E = amount_E > 0
    entry_E, amount_E = entry_E[some_E], amount_E[some_E]
    prompt_E, cell_E = entry_E // (2 * cells.n), entry_E % (2 * cells.n)
    directed, _ = votes.directed()
    met = np.unique(np.concatenate([prompt_B, prompt_B]) * m * m + directed) % (m * m)
    spread_MM = _virtual_spread(total_MM, prompts_MM=np.bincount(met, minlength=m * m).reshape(m, m))
    full = _newton(cells, cells.won_C[None], cells.lost_C[None], ridge=RIDGE)
    block = max(1, BLOCK // cells.n)
    prior_R = rng.spawn(1)[0].normal(0.0, RIDGE**-0.5, size=resamples)
    theta, gamma = [], []
    for start in range(0, resamples, block):
        r = min(block, resamples - start)
        counts_RC = np.empty((r, 2 * cells.n))
        for i in range(r):
            times_P = np.bincount(rng.integers(len(prompts), size=len(prompts)), minlength=len(prompts))
            won_M, lost_M = np.maximum(rng.standard_gamma(0.25, size=(2, m)), 1e-6)
            counts_RC[i] = _counts(cell_E, amount_E * times_P[prompt_E], 2 * cells.n)
            drawn_MM = spread_MM * won_M[:, None] + spread_MM.T * lost_M[None, :]
            counts_RC[i, cells.level_Q] += drawn_MM[cells.low_Q, cells.high_Q]
            counts_RC[i, cells.n + cells.level_Q] += drawn_MM[cells.high_Q, cells.low_Q]
        won_RC, lost_RC = counts_RC[:, : cells.n], counts_RC[:, cells.n :]
        # After a step of a nats about a² are left to go: 1e-4, a fiftieth of an Elo point.
        theta_RM, gamma_R = _newton(
            cells, won_RC, lost_RC, ridge=0.0, toward_R=prior_R[start : start + r], start=full, tolerance=1e-2
        )
        theta.append(theta_RM)
        gamma.append(gamma_R)
    theta_RM = np.concatenate(theta)
    low_M, high_M = np.percentile(_elo(theta_RM, anchor), [2.5, 97.5], axis=0)
    above_RMM = theta_RM[:, :, None] - theta_RM[:, None, :]
    better_MM = (0.5 * (1.0 + np.sign(above_RMM))).mean(axis=0)
    low, high = np.percentile(np.concatenate(gamma), [2.5, 97.5])
    return LengthIntervals(RatingIntervals(low_M, high_M, better_MM), float(low), float(high))


class _Cells:
    """Votes sorted by pair, the policy of the lower number first; with `levels`, those of about one length together.

    `cell_B` is the cell of each vote and `flip_B` whether its sides were exchanged; `won_C`, `lost_C` count what the first
    policy won and lost, `x_C` is the (mean) difference in length. Pair q has the cells from `start_Q[q]` on; with levels
    the first of them, `level_Q`, is the one of equal lengths.
    """

    def __init__(self, votes: Votes, x_B: Floats, *, levels: int | None = None) -> None:
        m = votes.n_policies
        self.m, self.flip_B = m, votes.left_B > votes.right_B
        low_B, high_B = np.minimum(votes.left_B, votes.right_B), np.maximum(votes.left_B, votes.right_B)
        x_B = np.where(self.flip_B, -x_B, x_B)
        pairs, pair_B = np.unique(low_B * m + high_B, return_inverse=True)
        self.low_Q, self.high_Q = pairs // m, pairs % m
        if levels is None:
            order = np.argsort(pair_B, kind="stable")
            self.cell_B = np.empty(len(order), dtype=np.int64)
            self.cell_B[order] = np.arange(len(order))
            self.start_Q = np.searchsorted(pair_B[order], np.arange(len(pairs)))
            self.n, zero = len(order), np.zeros(0, dtype=np.int64)
        else:
            # Level 0 is equal lengths, there for every pair; 2k − 1 and 2k are magnitude k, either way.
            level_B = _magnitudes(np.abs(x_B), levels)
            level_B = np.where(level_B == 0, 0, 2 * level_B - (x_B > 0))
            width = 2 * levels + 1
            key_B = np.concatenate([pair_B * width + level_B, np.arange(len(pairs)) * width])
            keys, cell = np.unique(key_B, return_inverse=True)
            self.cell_B, zero = cell[: len(pair_B)], cell[len(pair_B) :]
            self.start_Q, self.n = zero, len(keys)
        self.level_Q = zero
        won_B = np.where(self.flip_B, 1.0 - votes.p_left_B, votes.p_left_B)
        n_C = _counts(self.cell_B, np.ones(len(won_B)), self.n)
        self.won_C = _counts(self.cell_B, won_B, self.n)
        self.lost_C = n_C - self.won_C
        self.x_C = _counts(self.cell_B, x_B, self.n) / np.maximum(n_C, 1.0)
        self.pair_C = np.searchsorted(self.start_Q, np.arange(self.n), side="right") - 1
        self.sides_QM = np.zeros((len(pairs), m))
        self.sides_QM[np.arange(len(pairs)), self.low_Q] = 1.0
        self.sides_QM[np.arange(len(pairs)), self.high_Q] = -1.0

    def by_pair(self, amount_RC: Floats) -> Floats:
        """The amounts of each pair's cells summed: (R, Q)."""
        summed: Floats = np.add.reduceat(amount_RC, self.start_Q, axis=1)
        return summed


def _magnitudes(size_B: Floats, levels: int) -> Ints:
    """0 for no difference, else 1 … `levels` by equal shares of the differences that there are."""
    some = size_B[size_B > 0]
    if some.size == 0:
        return np.zeros(len(size_B), dtype=np.int64)
    edges = np.unique(np.quantile(some, np.arange(1, levels) / levels))
    found: Ints = np.where(size_B > 0, 1 + np.searchsorted(edges, size_B), 0)
    return found


def _newton(
    cells: _Cells, won_RC: Floats, lost_RC: Floats, *, ridge: float, toward_R: Floats | None = None,
    start: tuple[Floats, Floats] | None = None, tolerance: float = 1e-9, limit: int = 200,
) -> tuple[Floats, Floats]:  # fmt: skip
    """R fits at once: θ (R, M) and γ (R,), in nats. The prior of γ has its middle at `toward_R`, by default 0.

    Newton steps shortened to ln(1+a)/a as in the plain fit, a the largest change of any z along the step.
    """
    r, m = len(won_RC), cells.m
    theta_RM, gamma_R = np.zeros((r, m)), np.zeros(r)
    toward_R = gamma_R.copy() if toward_R is None else toward_R
    if start is not None:
        theta_RM, gamma_R = np.repeat(start[0], r, axis=0), np.repeat(start[1], r)
    pin_MM = ridge * np.eye(m) if ridge else np.full((m, m), 1.0 / m)
    furthest = float(np.abs(cells.x_C).max(initial=0.0))
    rows_M, active = np.arange(m), np.arange(r)
    for _ in range(limit):
        whole = len(active) == r
        theta, gamma = theta_RM[active], gamma_R[active]
        won, lost = (won_RC, lost_RC) if whole else (won_RC[active], lost_RC[active])
        gradient, hessian = np.empty((len(active), m + 1)), np.empty((len(active), m + 1, m + 1))
        z = (theta @ cells.sides_QM.T)[:, cells.pair_C]
        z += gamma[:, None] * cells.x_C
        e = np.exp(np.negative(z, out=z), out=z)
        p = 1.0 / (1.0 + e)
        surplus = won * e  # won·(1−p) − lost·p, written so that nothing cancels where one side nearly always wins
        surplus -= lost
        surplus *= p
        gradient[:, :m] = cells.by_pair(surplus) @ cells.sides_QM - ridge * theta
        gradient[:, m] = surplus @ cells.x_C - RIDGE * (gamma - toward_R[active])
        weight = won + lost
        weight *= e
        weight *= p
        weight *= p
        weight_RQ = cells.by_pair(weight)
        weight *= cells.x_C
        cross_RQ = cells.by_pair(weight)
        hessian[:, :m, :m] = pin_MM
        hessian[:, cells.low_Q, cells.high_Q] -= weight_RQ
        hessian[:, cells.high_Q, cells.low_Q] -= weight_RQ
        hessian[:, rows_M, rows_M] += weight_RQ @ np.abs(cells.sides_QM)
        hessian[:, :m, m] = hessian[:, m, :m] = cross_RQ @ cells.sides_QM
        hessian[:, m, m] = weight @ cells.x_C + RIDGE
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        span = np.ptp(step[:, :m], axis=1) + np.abs(step[:, m]) * furthest
        step *= (np.log1p(span) / np.maximum(span, 1e-300))[:, None]
        theta_RM[active] += step[:, :m]
        gamma_R[active] += step[:, m]
        active = active[span > tolerance]
        if active.size == 0:
            return theta_RM, gamma_R
    raise ArithmeticError(f"{active.size} of {r} length-controlled fits did not converge in {limit} Newton steps")


def _differences(votes: Votes, difference_B: ArrayLike) -> Floats:
    d_B = np.asarray(difference_B, dtype=np.float64)
    if d_B.shape != votes.left_B.shape:
        raise ValueError(f"{len(votes.left_B)} votes need as many differences in length, not shape {d_B.shape}")
    if not np.all(np.abs(d_B) <= 1.0):
        raise ValueError("a difference in length lies between −1 and 1; take `length_difference`")
    return d_B


def _typical(d_B: Floats) -> float:
    """The root mean square difference; 1 where all lengths are equal, so that nothing is divided by zero."""
    return float(np.sqrt(np.mean(d_B * d_B))) or 1.0 if d_B.size else 1.0
