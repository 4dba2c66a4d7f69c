"""Do preferences go round in circles, more than chance and one scale of strengths would have it?

Shapes: M items, B simulated tournaments. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.ratings import RIDGE, _newton

Floats = NDArray[np.float64]

COIN = 0.25
"""The share of circles where every comparison is a coin: 2 of the 8 ways in which three comparisons come out."""


class Cycles(NamedTuple):
    """Circles among triples of items each two of which were compared with a winner.

    `cyclic` of `triples` are circles, their `share` (None without a triple) stands beside `COIN`, what coins give, and beside
    what one scale of strengths gives: `expected` on average, `low` to `high` in 95 % of simulations, and `p`, how often a
    simulation has as many. `transitive` is the share of votes that the fitted strengths agree with, `pairwise` the share that
    the majority of each pair agrees with, which no single score exceeds; a tie is half a vote each way.
    """

    triples: int
    cyclic: int
    share: float | None
    expected: float | None
    low: float | None
    high: float | None
    p: float | None
    transitive: float | None
    pairwise: float | None


def cycles(wins_MM: ArrayLike, *, rng: np.random.Generator, simulations: int = 1000) -> Cycles:
    """Count A ≻ B ≻ C ≻ A by the majority of each pair, and what Bradley–Terry strengths would give by luck.

        circles = tr(A³)/3,   triples = tr((A + Aᵀ)³)/6,   A_ij = [wins_ij > wins_ji]

    Kendall & Babington Smith 1940. `wins_MM` holds wins of row over column, a tie half a win each way. Strengths are fitted to
    the same wins (Bradley & Terry 1952, with a weak prior), as many votes drawn for each pair as there were, and the circles
    counted again. People who judge by one scale with errors make circles too; only more of them say that one score per item
    is not enough. Raises ValueError for a matrix that is not square, finite, non-negative with an empty diagonal.
    """
    wins = np.asarray(wins_MM, dtype=np.float64)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise ValueError(f"wins need a square matrix, not shape {wins.shape}")
    if not np.all(np.isfinite(wins)) or np.any(wins < 0) or np.any(np.diag(wins) != 0):
        raise ValueError("wins must be finite and not negative, and no item plays itself")
    cyclic, triples = _count((wins > wins.T)[None])
    votes = wins + wins.T
    if not triples[0] or simulations < 1:
        return Cycles(int(triples[0]), int(cyclic[0]), *[None] * 7)
    theta = _newton(wins[None], RIDGE)[0]
    i, j = np.nonzero(np.triu(votes > 0, 1))
    n = np.rint(votes[i, j]).astype(np.int64)
    p = 1.0 / (1.0 + np.exp(theta[j] - theta[i]))
    found = []
    block = max(1, 4_000_000 // wins.size)
    for start in range(0, simulations, block):
        size = min(block, simulations - start)
        won = rng.binomial(n, p, size=(size, len(n)))
        above = np.zeros((size, *wins.shape), dtype=bool)
        above[:, i, j], above[:, j, i] = won > n - won, won < n - won
        circles, whole = _count(above)
        found.append(circles / np.maximum(whole, 1))
    drawn = np.concatenate(found)
    share = float(cyclic[0] / triples[0])
    total = float(wins.sum())
    ahead = np.where(theta[:, None] > theta[None, :], wins, 0.0) + np.where(theta[:, None] == theta[None, :], wins / 2, 0.0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Cycles(
        int(triples[0]), int(cyclic[0]), share, float(drawn.mean()), float(low), float(high),
        float((1 + (drawn >= share - 1e-12).sum()) / (1 + len(drawn))),
        float(ahead.sum() / total), float(np.maximum(wins, wins.T)[np.triu_indices(len(wins), 1)].sum() / total),
    )  # fmt: skip


def _count(above_BMM: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Circles and whole triples of each tournament, (B,)."""
    a = above_BMM.astype(np.float64)
    either = a + a.swapaxes(1, 2)
    circles = np.einsum("bij,bji->b", a @ a, a) / 3
    triples = np.einsum("bij,bji->b", either @ either, either) / 6
    return np.rint(circles), np.rint(triples)
