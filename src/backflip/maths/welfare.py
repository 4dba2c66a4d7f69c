"""One decision for many people: welfare of those concerned, and juries drawn from them.

Shapes: N options or questions, R people, G groups, D draws. NumPy, float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

JURORS = 12


class Jury(NamedTuple):
    """What juries say of each question: `median_N` over draws of the median juror, and in which share of draws it is above ½."""

    median_N: Floats
    above_N: Floats


def equal_share(utility_NR: ArrayLike, inequality: float) -> Floats:
    """What everybody could have alike at the same welfare, for each option, (N,): the larger the better.

        E_α = (1/R Σ_j u_j^{1−α})^{1/(1−α)},   E_1 = exp(1/R Σ_j log u_j),   E_∞ = min_j u_j

    Atkinson 1970. α is how much inequality counts: 0 is the mean (utilitarian), 1 the geometric mean (Nash), ∞ the worst off
    (Rawls). It orders options as W_α = Σ_j u_j^{1−α}/(1−α) does, on the scale of the utilities, so that several α compare.
    Utilities are above 0 unless α is 0 or ∞; probabilities of being content do, reward scores do not. Raises ValueError.
    """
    u = _table(utility_NR)
    if not inequality >= 0:
        raise ValueError(f"inequality counts from 0 (not at all) to infinity, not {inequality}")
    if inequality == 0:
        found: Floats = u.mean(axis=1)
        return found
    if math.isinf(inequality):
        found = u.min(axis=1)
        return found
    if np.any(u <= 0):
        raise ValueError("utilities are above 0 where inequality counts; turn scores into probabilities first")
    log_u = np.log(u)
    if inequality == 1:
        found = np.exp(log_u.mean(axis=1))
        return found
    # Powers of small numbers overflow, so the largest is taken out first.
    powers = (1 - inequality) * log_u
    top = powers.max(axis=1)
    found = np.exp((top + np.log(np.exp(powers - top[:, None]).mean(axis=1))) / (1 - inequality))
    return found


def median_voter(utility_NR: ArrayLike) -> Floats:
    """The utility of the person in the middle, for each option, (N,): half of all are at least as well off."""
    found: Floats = np.median(_table(utility_NR), axis=1)
    return found


def jury(belief_NR: ArrayLike, group_R: ArrayLike, seats_G: ArrayLike, *, rng: np.random.Generator, draws: int = 100) -> Jury:
    """Ask juries of a given composition: `seats_G[g]` jurors drawn from the people of group g, anew for every draw.

    Gordon et al. 2022 (jury learning, 2202.02950): each juror's own belief is predicted, a jury says what its median juror says,
    and the verdict is the median over `draws` juries. Jurors of a group are drawn without replacement where it is large enough.
    `belief_NR` holds what each person believes of each question, `group_R` the group of each. Raises ValueError for no seat, a
    group without people that has one, or columns that do not fit.
    """
    belief, group, seats = _table(belief_NR), np.asarray(group_R, dtype=np.int64), np.asarray(seats_G, dtype=np.int64)
    if group.shape != belief.shape[1:] or seats.ndim != 1 or np.any(seats < 0) or seats.sum() < 1 or draws < 1:
        raise ValueError("a jury has a seat at least, and every person a group")
    members = [np.flatnonzero(group == g) for g in range(len(seats))]
    for g, (people, wanted) in enumerate(zip(members, seats.tolist(), strict=True)):
        if wanted and not len(people):
            raise ValueError(f"group {g} has {wanted} seats and no people")
    said = np.empty((draws, len(belief)))
    for d in range(draws):
        jurors = np.concatenate([
            rng.choice(people, size=wanted, replace=wanted > len(people))
            for people, wanted in zip(members, seats.tolist(), strict=True) if wanted
        ])  # fmt: skip
        said[d] = np.median(belief[:, jurors], axis=1)
    return Jury(np.median(said, axis=0), (said > 0.5).mean(axis=0) + 0.5 * (said == 0.5).mean(axis=0))


def seats(share_G: ArrayLike, jurors: int = JURORS) -> Ints:
    """Seats of each group in proportion to shares, by largest remainders (Hamilton's method). Raises ValueError.

    >>> seats([0.6, 0.3, 0.1]).tolist()
    [7, 4, 1]
    """
    share = np.asarray(share_G, dtype=np.float64)
    if share.ndim != 1 or jurors < 1 or not np.all(share >= 0) or not 0 < share.sum() < np.inf:
        raise ValueError("seats need shares that are not negative and not all 0, and a juror")
    quota = jurors * share / share.sum()
    found: Ints = np.floor(quota).astype(np.int64)
    most = np.argsort(-(quota - found), kind="stable")[: jurors - int(found.sum())]
    found[most] += 1
    return found


def _table(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] == 0 or not np.isfinite(found).all():
        raise ValueError(f"give finite numbers for every option and person, not shape {found.shape}")
    return found
