"""How well do beliefs fit what many people said? Loss, divergence, entropy and majority, each told apart.

Shapes: U units, C categories. NumPy, float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class SoftFit(NamedTuple):
    """How beliefs fare against distributions of answers, means over units in nats.

    `nll` = `kl` + `entropy`, the entropy of the people, which no belief can beat. `entropy_correlation` says whether the beliefs
    are unsure where people differ (None where either does not vary); `accuracy` how often the likeliest category is the one most
    people said, units without one left out (None without any).
    """

    nll: float
    kl: float
    entropy: float
    entropy_correlation: float | None
    accuracy: float | None
    n: int


def soft_fit(counts_UC: ArrayLike, belief_UC: ArrayLike, *, floor: float = 1e-6) -> SoftFit:
    """Compare beliefs with how many people gave each answer to each unit; every unit counts the same.

        nll = −mean_u Σ_c p_uc log q_uc,   kl = mean_u Σ_c p_uc log(p_uc/q_uc),   p_uc = counts_uc/Σ_c counts_uc

    Label distributions as data (Plank 2022; Pavlick & Kwiatkowski 2019): two models of one accuracy may differ in all the rest.
    Beliefs below `floor` are taken to be that much. Raises ValueError for shapes that do not fit, a unit nobody answered, and
    rows of beliefs that are no distributions.
    """
    counts, q = np.asarray(counts_UC, dtype=np.float64), np.asarray(belief_UC, dtype=np.float64)
    if counts.ndim != 2 or counts.shape != q.shape or len(counts) == 0:
        raise ValueError(f"counts of shape {counts.shape} do not fit beliefs of shape {q.shape}")
    if np.any(counts < 0) or np.any(counts.sum(axis=1) <= 0):
        raise ValueError("every unit has an answer, and no count is negative")
    if not (np.all(q >= 0) and np.allclose(q.sum(axis=1), 1.0, atol=1e-6)):
        raise ValueError("beliefs of a unit are not negative and add up to 1")
    p = counts / counts.sum(axis=1, keepdims=True)
    entropy_U, own_U = entropy(p), entropy(q)
    nll_U = -(p * np.log(np.maximum(q, floor))).sum(axis=1)
    varies = entropy_U.std() > 1e-12 and own_U.std() > 1e-12
    one_U = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    right = (counts.argmax(axis=1) == q.argmax(axis=1))[one_U]
    nll, h = float(nll_U.mean()), float(entropy_U.mean())
    return SoftFit(
        nll, nll - h, h, float(np.corrcoef(entropy_U, own_U)[0, 1]) if varies else None,
        float(right.mean()) if len(right) else None, len(p),
    )  # fmt: skip


def entropy(p_UC: ArrayLike) -> Floats:
    """−Σ_c p log p of each row, in nats, (U,)."""
    p = np.asarray(p_UC, dtype=np.float64)
    found: Floats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    return found
