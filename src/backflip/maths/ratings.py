"""How strong is each policy? Ratings, win rates and their 95 % intervals, Elo, and what best-of-n buys and costs.

Shapes: M policies, B votes (rows), P prompts, R bootstrap resamples, N samples. NumPy, float64.

Votes on one prompt resemble each other (its two texts are what they are, however many people read them), so every
interval here treats the prompt, not the vote, as the unit that was drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ELO_PER_NAT = 400.0 / math.log(10.0)
"""Elo points in one nat of Bradley–Terry strength: 173.7."""
ELO_BASE = 1000.0
"""The rating given to the anchor, or to the mean of all policies."""
RIDGE = 0.1
"""Precision of the weak normal prior (standard deviation 3.2 nats, 549 Elo points) used where no finite fit exists."""
Z95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Votes:
    """B votes between M policies: `left_B` beat `right_B` with belief `p_left_B` (1, 0, or ½ for a tie).

    `prompt_B` says which prompt each vote was cast on; votes that share a number share a prompt. Raises ValueError
    for ragged columns, a policy outside 0…M−1, a policy against itself, or a belief that is not a probability.
    """

    left_B: Ints
    right_B: Ints
    p_left_B: Floats
    prompt_B: Ints
    n_policies: int

    def __post_init__(self) -> None:
        for name, kind in (
            ("left_B", np.int64),
            ("right_B", np.int64),
            ("p_left_B", np.float64),
            ("prompt_B", np.int64),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        shapes = {self.left_B.shape, self.right_B.shape, self.p_left_B.shape, self.prompt_B.shape}
        if len(shapes) != 1 or self.left_B.ndim != 1:
            raise ValueError(f"votes need four columns of one length, not shapes {sorted(shapes)}")
        for side_B in (self.left_B, self.right_B):
            if np.any((side_B < 0) | (side_B >= self.n_policies)):
                raise ValueError(f"a vote names a policy outside 0…{self.n_policies - 1}")
        if np.any(self.left_B == self.right_B):
            raise ValueError("a vote compares a policy with itself")
        if not np.all((self.p_left_B >= 0) & (self.p_left_B <= 1)):
            raise ValueError("p_left is a probability between 0 and 1")

    def win_matrix(self) -> Floats:
        """How often row beat column, a tie counted as half a win for each: (M, M)."""
        cells, amounts = self.directed()
        m = self.n_policies
        return _counts(cells, amounts, m * m).reshape(m, m)

    def directed(self) -> tuple[Ints, Floats]:
        """Each vote as two directed wins: their cell of the flattened (M, M) matrix and their amount, both (2B,)."""
        there, back = self.left_B * self.n_policies + self.right_B, self.right_B * self.n_policies + self.left_B
        return np.concatenate([there, back]), np.concatenate([self.p_left_B, 1.0 - self.p_left_B])


class BradleyTerry(NamedTuple):
    """A fit: `elo_M` (None when the policies fall into several `components`), and whether the prior was needed."""

    elo_M: Floats | None
    regularised: bool
    components: tuple[tuple[int, ...], ...]


class RatingIntervals(NamedTuple):
    """95 % bounds of every rating, and the share of resamples in which the row policy stood above the column's."""

    low_M: Floats
    high_M: Floats
    better_MM: Floats


class WinRate(NamedTuple):
    """Share of `n` votes won, ties counted half, with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def swap(self) -> WinRate:
        """The same votes seen from the other side."""
        return WinRate(1.0 - self.mean, 1.0 - self.high, 1.0 - self.low, self.n)


class EloPair(NamedTuple):
    """Two ratings after a game."""

    a: float
    b: float


def components(wins_MM: Floats) -> tuple[tuple[int, ...], ...]:
    """The groups of policies joined by chains of matches, each sorted, in order of their first member.

    Only within a group can strengths be compared. `wins_MM` is (M, M).
    """
    reach_MM = _reachable((wins_MM + wins_MM.T) > 0)
    return tuple(sorted({tuple(int(j) for j in np.flatnonzero(row)) for row in reach_MM}))


def bradley_terry_ratings(wins_MM: ArrayLike, *, anchor: int | None = None) -> BradleyTerry:
    """Bradley–Terry strengths on the Elo scale, with the anchor (or the mean of all) at 1000.

        maximise  Σ_ij wins_ij · log σ(θ_i − θ_j),   Elo_i = 1000 + 400/ln 10 · (θ_i − θ_anchor)

    Bradley & Terry 1952. `wins_MM` (M, M) holds wins of row over column, ties as half a win each way. A finite
    maximum exists, and is unique, exactly when every policy reaches every other by a chain of wins (Ford 1957);
    then it is returned as it is. When a policy or a group is undefeated, or has never won, the weak prior
    −RIDGE/2·Σθ² keeps the answer finite and `regularised` says so. When the policies fall into groups that never
    met, `elo_M` is None. Raises ValueError for a matrix that is not square, finite, non-negative with an empty
    diagonal, and for an unknown anchor.
    """
    wins_MM = np.asarray(wins_MM, dtype=np.float64)
    if wins_MM.ndim != 2 or wins_MM.shape[0] != wins_MM.shape[1] or len(wins_MM) == 0:
        raise ValueError(f"wins need a square matrix, not shape {wins_MM.shape}")
    if not np.all(np.isfinite(wins_MM)) or np.any(wins_MM < 0) or np.any(np.diag(wins_MM) != 0):
        raise ValueError("wins must be finite and not negative, and no policy plays itself")
    groups = components(wins_MM)
    if len(groups) > 1:
        return BradleyTerry(None, False, groups)
    regularised = not bool(_reachable(wins_MM > 0).all())
    theta_M = _newton(wins_MM[None], RIDGE if regularised else 0.0)[0]
    return BradleyTerry(_elo(theta_M, anchor), regularised, groups)


def bootstrap_ratings(
    votes: Votes, *, rng: np.random.Generator, resamples: int = 1000, anchor: int | None = None
) -> RatingIntervals:
    """95 % percentile intervals of the Bradley–Terry ratings, resampling prompts with replacement.

    A policy that never lost in the data never loses in a resample either, and a policy met on few prompts may be
    missing from one; a plain bootstrap would call the first certain and leave the second undefined. In each resample
    every policy therefore also wins, and loses, a random Gamma(¼) of a vote, spread over the opponents it has met.
    For two policies that adds up to Gamma(½) each way, the Jeffreys prior of a proportion; for M it weighs M/2 votes
    in all and fades as votes come in. Where several votes fall on one prompt, a virtual vote weighs as much as all
    the votes of a prompt. Raises ValueError when some policies are not connected by matches, or for less than one
    resample.
    """
    if resamples < 1:
        raise ValueError("the bootstrap needs at least one resample")
    m, total_MM = votes.n_policies, votes.win_matrix()
    if len(components(total_MM)) > 1:
        raise ValueError("policies that share no chain of matches have no common scale to bootstrap")
    prompts, prompt_B = np.unique(votes.prompt_B, return_inverse=True)
    cells, amounts = votes.directed()
    entry, where = np.unique(np.concatenate([prompt_B, prompt_B]) * m * m + cells, return_inverse=True)
    amount_E = _counts(where, amounts, len(entry))
    prompt_E, cell_E = entry // (m * m), entry % (m * m)
    spread_MM = _virtual_spread(total_MM, prompts_MM=np.bincount(cell_E, minlength=m * m).reshape(m, m))
    some_E = amount_E > 0  # of a vote that is no tie, one direction is nothing
    prompt_E, cell_E, amount_E = prompt_E[some_E], cell_E[some_E], amount_E[some_E]
    block = max(1, 1_000_000 // (m * m))
    theta_RM = np.concatenate(
        [
            _newton(
                np.stack(
                    [
                        _resample(rng, len(prompts), prompt_E, cell_E, amount_E, spread_MM)
                        for _ in range(start, min(start + block, resamples))
                    ]
                ),
                ridge=0.0,
            )
            for start in range(0, resamples, block)
        ]
    )
    low_M, high_M = np.percentile(_elo(theta_RM, anchor), [2.5, 97.5], axis=0)
    above_RMM = theta_RM[:, :, None] - theta_RM[:, None, :]
    return RatingIntervals(low_M, high_M, (0.5 * (1.0 + np.sign(above_RMM))).mean(axis=0))


def win_rate(outcomes: ArrayLike, clusters: Sequence[Hashable] | None = None, *, resamples: int = 1000, seed: int = 0) -> WinRate:
    """Share of votes won, and its 95 % interval.

    `outcomes` (B,): 1 won, 0 lost, ½ tied. `clusters` (B,): the prompt of each vote. Without clusters the votes are
    independent and the interval is Wilson's. With clusters it is the wider, on each side, of two: the percentile
    bootstrap over prompts, and Wilson's on the effective number of votes mean·(1−mean)/variance (Korn & Graubard
    1998; at most the votes, and the number of prompts where no variance can be seen), because a bootstrap of votes
    that all agree has no width at all. The resamples follow from `seed`: the same votes give the same interval.
    Raises ValueError for no votes, an outcome outside [0, 1], or columns of two lengths.
    """
    outcome_B = np.asarray(outcomes, dtype=np.float64)
    if outcome_B.ndim != 1 or outcome_B.size == 0:
        raise ValueError("a win rate needs at least one vote")
    if not np.all((outcome_B >= 0) & (outcome_B <= 1)):
        raise ValueError("an outcome is 1 (won), 0 (lost) or ½ (tied)")
    n, mean = outcome_B.size, float(outcome_B.mean())
    if clusters is None:
        return WinRate(mean, *wilson(mean, n), n)
    if len(clusters) != n:
        raise ValueError(f"{n} outcomes but {len(clusters)} clusters")
    number: dict[Hashable, int] = {}
    cluster_B = np.array([number.setdefault(c, len(number)) for c in clusters])
    p = len(number)
    won_P, votes_P = _counts(cluster_B, outcome_B, p), _counts(cluster_B, np.ones(n), p)
    low, high = wilson(mean, _effective_votes(won_P, votes_P))
    rng, block = np.random.default_rng(seed), max(1, 1_000_000 // p)
    means: list[Floats] = []
    for start in range(0, resamples, block):
        drawn_RP = rng.integers(p, size=(min(block, resamples - start), p))
        means.append(won_P[drawn_RP].sum(axis=1) / votes_P[drawn_RP].sum(axis=1))
    bound = np.percentile(np.concatenate(means), [2.5, 97.5])
    return WinRate(mean, min(low, float(bound[0])), max(high, float(bound[1])), n)


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion `mean` seen in `n` independent votes (Wilson 1927).

    It never has zero width: ten wins out of ten give a lower bound of 0.72. Raises ValueError unless n > 0.
    """
    if not n > 0:
        raise ValueError("an interval needs at least one vote")
    z2n = Z95 * Z95 / n
    centre = (mean + z2n / 2) / (1 + z2n)
    half = math.sqrt(max(mean * (1 - mean), 0.0) * z2n + z2n * z2n / 4) / (1 + z2n)
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def elo_update(a: float, b: float, score_a: float, *, k: float = 4.0) -> EloPair:
    """Both ratings after one game: a ← a + k·(S − E), E = 1/(1 + 10^((b−a)/400)), b loses what a gains (Elo 1978).

    `score_a` is 1, 0 or ½. Depends on the order of games; reports use `bradley_terry_ratings`, which does not.
    Raises ValueError for a score outside [0, 1].
    """
    if not 0.0 <= score_a <= 1.0:
        raise ValueError(f"a score lies between 0 and 1, not {score_a}")
    gain = k * (score_a - 1.0 / (1.0 + 10.0 ** ((b - a) / 400.0)))
    return EloPair(a + gain, b - gain)


def elo_to_reward(elo_N: ArrayLike) -> Floats:
    """Ratings (N,) as scalar rewards in nats, r = (Elo − mean)/173.7: σ(r_i − r_j) is the chance that i beats j."""
    elo: Floats = np.asarray(elo_N, dtype=np.float64)
    reward: Floats = (elo - elo.mean()) / ELO_PER_NAT
    return reward


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n ‖ policy) in nats: log n − (n−1)/n (Stiennon et al. 2020, appendix G.3).

    Exact for continuous scores; an upper bound where texts or scores repeat. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"best of {n} has no meaning; n starts at 1")
    return math.log(n) - (n - 1) / n


def best_of_n(proxy_N: ArrayLike, gold_N: ArrayLike, n: int) -> float:
    """The mean gold score of the best of n by proxy, estimated without bias from N ≥ n samples.

        Σ_{i=n}^{N} C(i−1, n−1)/C(N, n) · gold_(i),   samples sorted by proxy, worst first

    Nakano et al. 2021, appendix I. Samples of equal proxy share their mean gold: any of them may be the one picked.
    `proxy_N`, `gold_N`: (N,). Raises ValueError unless both have one length N and 1 ≤ n ≤ N.
    """
    proxy, gold = np.asarray(proxy_N, dtype=np.float64), np.asarray(gold_N, dtype=np.float64)
    if proxy.ndim != 1 or proxy.shape != gold.shape:
        raise ValueError(f"proxy and gold need one length, not shapes {proxy.shape} and {gold.shape}")
    if not 1 <= n <= proxy.size:
        raise ValueError(f"best of {n} cannot be estimated from {proxy.size} samples")
    _, place = np.unique(proxy, return_inverse=True)
    shared = np.bincount(place, weights=gold) / np.bincount(place)
    gold_sorted = shared[np.sort(place)]
    i = np.arange(proxy.size, n, -1, dtype=np.float64)
    weight = n / proxy.size * np.cumprod(np.concatenate([[1.0], (i - n) / (i - 1)]))
    return float(weight @ gold_sorted[n - 1 :][::-1])


def _counts(cells: Ints, amounts: Floats, size: int) -> Floats:
    """The amounts summed per cell 0…size−1, as float64."""
    return np.bincount(cells, weights=amounts, minlength=size).astype(np.float64, copy=False)


def _reachable(edges_MM: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which policies reach which along `edges`, themselves included: repeated squaring."""
    reach_MM = edges_MM | np.eye(len(edges_MM), dtype=bool)
    for _ in range(max(1, len(edges_MM) - 1).bit_length()):
        reach_MM = reach_MM @ reach_MM
    return reach_MM


def _elo(theta: Floats, anchor: int | None) -> Floats:
    """Strengths (…, M) in nats as Elo points."""
    if anchor is not None and not 0 <= anchor < theta.shape[-1]:
        raise ValueError(f"anchor {anchor} is not one of {theta.shape[-1]} policies")
    zero: Floats = theta.mean(axis=-1, keepdims=True) if anchor is None else theta[..., anchor, None]
    elo: Floats = ELO_BASE + ELO_PER_NAT * (theta - zero)
    return elo


def _newton(wins_RMM: Floats, ridge: float, *, tolerance: float = 1e-9, limit: int = 200) -> Floats:
    """R Bradley–Terry fits at once: θ (R, M) in nats.

    Newton steps δ shortened to ln(1+a)/a, a = max δ − min δ: along δ the third derivative of the log-likelihood is
    at most a times its second, so that step always improves and no line search is needed (Sun & Tran-Dinh 2019).
    """
    r, m = wins_RMM.shape[:2]
    theta_RM, active = np.zeros((r, m)), np.arange(r)
    # The likelihood does not know the common shift of all strengths; without a ridge this term stops it from moving.
    pin_MM = ridge * np.eye(m) if ridge else np.full((m, m), 1.0 / m)
    for _ in range(limit):
        theta, wins = theta_RM[active], wins_RMM[active]
        p = 1.0 / (1.0 + np.exp(theta[:, None, :] - theta[:, :, None]))
        lost = p.swapaxes(1, 2)
        # wins·(1−p) − losses·p rather than wins − votes·p: no cancellation when one side nearly always wins.
        surplus = wins * lost - wins.swapaxes(1, 2) * p
        gradient = surplus.sum(axis=2) - ridge * theta
        weight = (wins + wins.swapaxes(1, 2)) * p * lost
        hessian = pin_MM - weight
        hessian[:, np.arange(m), np.arange(m)] += weight.sum(axis=2)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        span = np.ptp(step, axis=1)
        theta_RM[active] += step * (np.log1p(span) / np.maximum(span, 1e-300))[:, None]
        active = active[span > tolerance]
        if active.size == 0:
            return theta_RM
    raise ArithmeticError(f"{active.size} of {r} Bradley–Terry fits did not converge in {limit} Newton steps")


def _virtual_spread(total_MM: Floats, prompts_MM: Ints) -> Floats:
    """Where a policy's virtual vote falls, (M, M): on the opponents it met, weighing what a prompt's votes weigh."""
    votes_MM = total_MM + total_MM.T
    per_prompt_MM = votes_MM / np.maximum(prompts_MM, 1)
    spread_MM: Floats = votes_MM / votes_MM.sum(axis=1, keepdims=True) * per_prompt_MM
    return spread_MM


def _resample(
    rng: np.random.Generator, n_prompts: int, prompt_E: Ints, cell_E: Ints, amount_E: Floats, spread_MM: Floats
) -> Floats:
    """The win matrix (M, M) of one resample of the prompts, virtual votes included."""
    m = len(spread_MM)
    times_P = np.bincount(rng.integers(n_prompts, size=n_prompts), minlength=n_prompts)
    wins_MM = _counts(cell_E, amount_E * times_P[prompt_E], m * m).reshape(m, m)
    # Gamma(¼) can come out below the smallest number that a fit resolves; 1e-6 of a vote is 2,400 Elo points already.
    won_M, lost_M = np.maximum(rng.standard_gamma(0.25, size=(2, m)), 1e-6)
    drawn: Floats = wins_MM + spread_MM * won_M[:, None] + spread_MM.T * lost_M[None, :]
    return drawn


def _effective_votes(won_P: Floats, votes_P: Floats) -> float:
    """How many independent votes would tell as much as these clustered ones: mean·(1−mean)/variance of the mean."""
    p, n = len(won_P), float(votes_P.sum())
    mean = float(won_P.sum()) / n
    if p == 1:
        return 1.0
    variance = float(((won_P - mean * votes_P) ** 2).sum()) / n**2 * p / (p - 1)
    binomial = mean * (1.0 - mean)
    return min(n, binomial / variance) if variance > 1e-12 * binomial and binomial > 0 else float(p)
