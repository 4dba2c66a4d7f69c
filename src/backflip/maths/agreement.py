"""Do people agree, and more than chance would? Krippendorff's α, Gwet's AC, Cohen's κ and raw agreement.

Shapes: U units (what is judged), R raters, C categories, K clusters of units, B bootstrap resamples. NumPy, float64. Answers
are an array (U, R), NaN where a rater did not answer: categories as numbers of any kind for nominal coefficients, numbers whose
order (ordinal) or distance (interval) means something for the others.

Units may come in clusters that were drawn together, such as the pairs of one ranking: every interval here treats the cluster as
what was drawn at random. An interval is never narrower than Wilson's for that many clusters, so that ten answers that all agree
do not pass for certainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.maths.ratings import Z95, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Distance = Literal["nominal", "ordinal", "interval"]
Weights = Literal["identity", "ordinal", "linear", "quadratic"]

NO_OVERLAP = "no unit was answered by two raters"
ONE_CATEGORY = "every answer is the same, so agreement cannot be told from chance"
MOST_CATEGORIES = 64
"""More ordinal categories than this are refused: their coincidences in every resample would not fit in memory."""


class Alpha(NamedTuple):
    """Krippendorff's α with its 95 % interval. `value`, `low` and `high` are None where it is undefined, and `why` says why.

    `n_units` units have two answers or more, which make `n_pairs` pairs of answers.
    """

    value: float | None
    low: float | None
    high: float | None
    n_units: int
    n_pairs: int
    why: str = ""


class Coefficient(NamedTuple):
    """Another coefficient of agreement; as `Alpha`, with the standard error `se` by its paper."""

    value: float | None
    low: float | None
    high: float | None
    se: float | None
    n_units: int
    n_pairs: int
    why: str = ""


@dataclass(frozen=True, eq=False)
class Tally:
    """How many raters gave each answer to each unit: `counts_UC`, of the answers `values_C`, in ascending order.

    `cluster_U` numbers the cluster of each unit from 0; None: every unit was drawn by itself. Raises ValueError for shapes that
    do not fit and for counts that are negative.
    """

    counts_UC: Floats
    values_C: Floats
    cluster_U: Ints | None = None

    def __post_init__(self) -> None:
        for name in ("counts_UC", "values_C"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.counts_UC.ndim != 2 or self.values_C.shape != self.counts_UC.shape[1:]:
            raise ValueError(f"counts of shape {self.counts_UC.shape} do not fit {self.values_C.shape} answers")
        if not np.all(self.counts_UC >= 0) or np.any(np.diff(self.values_C) <= 0):
            raise ValueError("counts cannot be negative, and the answers stand in ascending order")
        if self.cluster_U is not None and self.cluster_U.shape != self.counts_UC.shape[:1]:
            raise ValueError(f"{len(self.counts_UC)} units but the clusters of {self.cluster_U.shape}")

    def only(self, kept_U: NDArray[np.bool_]) -> Tally:
        """The same of some of the units."""
        return Tally(self.counts_UC[kept_U], self.values_C, None if self.cluster_U is None else self.cluster_U[kept_U])

    def used(self) -> Tally:
        """The same without answers that nobody gave and units that nobody answered."""
        given_C = self.counts_UC.any(axis=0)
        answered = self.only(self.counts_UC.sum(axis=1) > 0)
        return Tally(answered.counts_UC[:, given_C], self.values_C[given_C], answered.cluster_U)


def _checked(answers_UR: ArrayLike) -> Floats:
    answers = np.asarray(answers_UR, dtype=np.float64)
    if answers.ndim != 2:
        raise ValueError(f"answers are an array of units and raters, not of shape {answers.shape}")
    if np.isinf(answers).any():
        raise ValueError("an answer is infinite; where there is none, give NaN")
    return answers


def tally(answers_UR: ArrayLike) -> Tally:
    """Count the answers (U, R), NaN where there is none. Raises ValueError for other than two axes and for infinite answers."""
    answers = _checked(answers_UR)
    unit_N, rater_N = np.nonzero(~np.isnan(answers))
    values_C, place_N = np.unique(answers[unit_N, rater_N], return_inverse=True)
    shape = (len(answers), len(values_C))
    cells = np.bincount(unit_N * shape[1] + place_N, minlength=shape[0] * shape[1])
    return Tally(cells.reshape(shape).astype(np.float64), values_C)


# ------------------------------------------------------------------------------------------------- Krippendorff's α


def krippendorff_alpha(
    answers: ArrayLike | Tally, distance: Distance = "nominal", *, rng: np.random.Generator, resamples: int = 1000
) -> Alpha:
    """Krippendorff's α: 1 when raters agree on everything, 0 when they agree as chance would have it, below when less.

        α = 1 − D_o/D_e = 1 − (n−1)·Σ_ck o_ck δ²_ck / Σ_ck n_c n_k δ²_ck
        o_ck = Σ_u (pairs c–k of unit u)/(m_u − 1),   n_c = Σ_k o_ck,   n = Σ_c n_c

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". δ² is 1 for different categories (nominal), the squared
    difference of the answers (interval), or of their mid-ranks, Σ_{g=c}^{k} n_g − (n_c+n_k)/2 (ordinal). Only the units with
    m_u ≥ 2 answers count. `answers` is an array (U, R) or a `Tally`.

    The interval is the wider, on each side, of two: the percentile bootstrap over clusters of units, resamples in which α is
    undefined left out, and 1 − D/D_e for D at the ends of Wilson's interval of D_o (as a share of the largest distance) with
    the number of clusters, or of independent ones that would tell as much, for n.

    With no unit answered twice, or one category only, α is undefined: `value` is None. Raises ValueError for an unknown
    distance, less than one resample, or more than MOST_CATEGORIES ordinal categories.
    """
    if distance not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"unknown distance {distance!r}; use nominal, ordinal or interval")
    if resamples < 1:
        raise ValueError("the bootstrap needs at least one resample")
    continuous = distance == "interval" and not isinstance(answers, Tally)
    parts = _moments(_checked(answers)) if continuous else _sums(answers, distance)  # type: ignore[arg-type]
    m_U, cluster_U, n_units = parts.m_U, parts.cluster_U, len(parts.m_U)
    n_pairs = int((m_U * (m_U - 1)).sum() / 2)
    if n_pairs == 0:
        return Alpha(None, None, None, 0, 0, NO_OVERLAP)
    observed, expected = (float(d[0]) for d in _STATISTICS[distance](parts.sums_US.sum(axis=0)[None]))
    if not expected > 0:
        return Alpha(None, None, None, n_units, n_pairs, ONE_CATEGORY)
    value = 1 - observed / expected
    apart_K, m_K = _per_cluster(parts.apart_U / parts.largest, cluster_U), _per_cluster(m_U, cluster_U)
    few, many = wilson(float(apart_K.sum() / m_K.sum()), _effective(apart_K, m_K, n_pairs))
    drawn_B = _bootstrap(_per_cluster(parts.sums_US, cluster_U), _STATISTICS[distance], rng, resamples)
    bounds = np.percentile(drawn_B, [2.5, 97.5]) if len(drawn_B) else np.array([value, value])
    low = min(value, float(bounds[0]), 1 - many * parts.largest / expected)
    high = max(value, float(bounds[1]), 1 - few * parts.largest / expected)
    # No data have α below −1: of answers that differ as much as they can, D_o is 2·D_e·(n−1)/n.
    return Alpha(value, max(-1.0, low), min(1.0, high), n_units, n_pairs)


class _Sums(NamedTuple):
    """What α follows from: `sums_US`, added up over units; `apart_U`, Σ o δ² of each unit; `largest`, the largest δ²."""

    m_U: Floats
    cluster_U: Ints | None
    sums_US: Floats
    apart_U: Floats
    largest: float


def _moments(answers_UR: Floats) -> _Sums:
    """For interval answers, of which no two need be the same: number, sum and sum of squares of each unit are enough."""
    given_UR = ~np.isnan(answers_UR)
    kept_U = given_UR.sum(axis=1) >= 2
    given_UR, answers_UR = given_UR[kept_U], answers_UR[kept_U]
    used = answers_UR[given_UR]
    x_UR = np.where(given_UR, answers_UR, 0.0)
    x_UR[given_UR] = _standard(used)
    return _interval_sums(given_UR.sum(axis=1).astype(np.float64), None, x_UR.sum(axis=1), (x_UR**2).sum(axis=1))


def _standard(x: Floats) -> Floats:
    """Numbers on a scale on which they span 1 about their mean: α does not change, and rounding does not matter."""
    centred: Floats = x - x.mean() if x.size else x
    spread = float(np.ptp(centred)) if x.size else 0.0
    return centred / spread if spread > 0 else np.zeros_like(centred)


def _interval_sums(m_U: Floats, cluster_U: Ints | None, sum_U: Floats, squares_U: Floats) -> _Sums:
    apart_U = 2 * np.maximum(m_U * squares_U - sum_U**2, 0.0) / (m_U - 1)
    return _Sums(m_U, cluster_U, np.column_stack([apart_U, m_U, sum_U, squares_U]), apart_U, 1.0)


def _sums(answers: ArrayLike | Tally, distance: Distance) -> _Sums:
    """The same from counts of categories, for any distance."""
    found = answers if isinstance(answers, Tally) else tally(answers)
    twice_U = found.counts_UC.sum(axis=1) >= 2
    found = found.only(twice_U).used()
    counts_UC, m_U = found.counts_UC, found.counts_UC.sum(axis=1)
    if distance == "interval":
        x_C = _standard(found.values_C)
        return _interval_sums(m_U, found.cluster_U, counts_UC @ x_C, counts_UC @ x_C**2)
    if distance == "nominal":
        alike_U = (counts_UC * (counts_UC - 1)).sum(axis=1) / (m_U - 1)
        return _Sums(m_U, found.cluster_U, np.column_stack([alike_U, counts_UC]), m_U - alike_U, 1.0)
    c = counts_UC.shape[1]
    if c > MOST_CATEGORIES:
        raise ValueError(f"{c} ordinal categories; up to {MOST_CATEGORIES}, or take them as an interval")
    pairs_UCC = counts_UC[:, :, None] * counts_UC[:, None, :]
    pairs_UCC[:, np.arange(c), np.arange(c)] -= counts_UC
    sums_US = (pairs_UCC / (m_U - 1)[:, None, None]).reshape(len(m_U), c * c)
    squared_CC = _squared(_midranks(counts_UC.sum(axis=0)))
    return _Sums(m_U, found.cluster_U, sums_US, sums_US @ squared_CC.ravel(), float(squared_CC.max(initial=0.0)))


# D_o and D_e of B sets of sums at once. Both are means over answers: Σ o δ²/n and Σ n_c n_k δ²/(n(n−1)).


def _nominal(sums_BS: Floats) -> tuple[Floats, Floats]:
    n_BC = sums_BS[:, 1:]
    n_B = n_BC.sum(axis=1)
    return (n_B - sums_BS[:, 0]) / n_B, (n_B**2 - (n_BC**2).sum(axis=1)) / (n_B * (n_B - 1))


def _interval(sums_BS: Floats) -> tuple[Floats, Floats]:
    apart_B, n_B, sum_B, squares_B = sums_BS.T
    expected_B = 2 * (n_B * squares_B - sum_B**2)
    # What rounding leaves of answers that are all the same is no variance.
    return apart_B / n_B, np.where(expected_B > 1e-12 * n_B * squares_B, expected_B, 0.0) / (n_B * (n_B - 1))


def _ordinal(sums_BS: Floats) -> tuple[Floats, Floats]:
    c = math.isqrt(sums_BS.shape[1])
    o_BCC = sums_BS.reshape(-1, c, c)
    n_BC = o_BCC.sum(axis=2)
    n_B = n_BC.sum(axis=1)
    squared_BCC = _squared(_midranks(n_BC))
    expected_B = np.einsum("bc,bck,bk->b", n_BC, squared_BCC, n_BC) / (n_B * (n_B - 1))
    return (o_BCC * squared_BCC).sum(axis=(1, 2)) / n_B, expected_B


def _midranks(n: Floats) -> Floats:
    """The mean rank of the answers of each category, (…, C): Σ_{g=c}^{k} n_g − (n_c+n_k)/2 is the difference of two."""
    ranks: Floats = np.cumsum(n, axis=-1) - n / 2
    return ranks


def _squared(x: Floats) -> Floats:
    """The squared differences of numbers (…, C), (…, C, C)."""
    squared: Floats = (x[..., :, None] - x[..., None, :]) ** 2
    return squared


_Statistic = Callable[[Floats], tuple[Floats, Floats]]
_STATISTICS: dict[Distance, _Statistic] = {"nominal": _nominal, "ordinal": _ordinal, "interval": _interval}


def _bootstrap(sums_KS: Floats, statistic: _Statistic, rng: np.random.Generator, resamples: int) -> Floats:
    """α of each resample of the clusters in which it is defined."""
    # Clusters of the same sums are interchangeable, so drawing how often each kind comes up is the same bootstrap, and quick:
    # a hundred thousand pairs of three categories are of a dozen kinds.
    first_J, times_J = _kinds(np.round(sums_KS, 9))
    kinds_JS = sums_KS[first_J]
    block, found = max(1, 4_000_000 // (len(kinds_JS) + sums_KS.shape[1])), []
    for start in range(0, resamples, block):
        drawn_BJ = rng.multinomial(len(sums_KS), times_J / times_J.sum(), size=min(block, resamples - start))
        observed_B, expected_B = statistic(drawn_BJ @ kinds_JS)
        defined_B = expected_B > 0
        found.append(1 - observed_B[defined_B] / expected_B[defined_B])
    return np.concatenate(found)


def _kinds(rows_KS: Floats) -> tuple[Ints, Ints]:
    """The first row of each kind of equal rows, and how many there are."""
    base_S = rows_KS.max(axis=0) + 1
    if np.all(rows_KS == np.rint(rows_KS)) and np.all(rows_KS >= 0) and np.prod(base_S) < 2.0**53:
        # Small counts are the digits of one number, and numbers sort quickly.
        kind_K = rows_KS @ np.concatenate([[1.0], np.cumprod(base_S)[:-1]])
    else:
        kind_K = np.zeros(len(rows_KS))
        for column in rows_KS.T:
            _, place_K = np.unique(column, return_inverse=True)
            _, kind_K = np.unique(kind_K * len(rows_KS) + place_K, return_inverse=True)
    _, first_J, times_J = np.unique(kind_K, return_index=True, return_counts=True)
    return first_J, times_J


# ------------------------------------------------------------------------------------------------- other coefficients


def gwet_ac(answers: ArrayLike | Tally, weights: Weights = "identity") -> Coefficient:
    """Gwet's AC₁ (`weights` "identity") or AC₂ (the others): agreement beyond chance that survives skewed answers.

        γ = (p_a − p_e)/(1 − p_e),   p_e = T_w/(C(C−1))·Σ_c π_c(1−π_c),   T_w = Σ_ck w_ck
        p_a = mean over units with m ≥ 2 of Σ_c c_u(Σ_k w_ck k_u − 1)/(m_u(m_u−1)),   π_c = mean over units of c_u/m_u

    Gwet 2008, "Computing inter-rater reliability and its variance in the presence of high agreement", for
    missing answers as in his Handbook of Inter-Rater Reliability (2014). C counts the categories that were used. `se` is the
    linearised one; where some units have a single answer p_a is a ratio and is linearised as one, so that chance in how many
    units are answered twice is not counted; the Handbook counts it. The interval is the wider, on each side, of γ ± 1.96·se and
    Wilson's of p_a carried through the first equation. Undefined as α is.
    """
    found = (answers if isinstance(answers, Tally) else tally(answers)).used()
    counts_UC, m_U = found.counts_UC, found.counts_UC.sum(axis=1)
    twice_U = m_U >= 2
    n_units, n_pairs = int(twice_U.sum()), int((m_U * (m_U - 1)).sum() / 2)
    if n_units == 0:
        return Coefficient(None, None, None, None, 0, 0, NO_OVERLAP)
    c = counts_UC.shape[1]
    if c < 2:
        return Coefficient(None, None, None, None, n_units, n_pairs, ONE_CATEGORY)
    w_CC = agreement_weights(c, weights)
    agreed_U = (counts_UC * (counts_UC @ w_CC - 1)).sum(axis=1) / np.maximum(m_U * (m_U - 1), 1)
    p_a = float(agreed_U[twice_U].mean())
    share_UC = counts_UC / m_U[:, None]
    pi_C = share_UC.mean(axis=0)
    scale = float(w_CC.sum()) / (c * (c - 1))
    p_e = scale * float((pi_C * (1 - pi_C)).sum())
    value = (p_a - p_e) / (1 - p_e)
    expected_U = scale * (share_UC @ (1 - pi_C))
    influence_U = np.where(twice_U, (agreed_U - p_a) * len(m_U) / n_units, 0.0) - 2 * (1 - value) * (expected_U - p_e)
    per_K = _per_cluster(influence_U / (1 - p_e), found.cluster_U)
    se = _standard_error(per_K, len(m_U))
    ends = [(p - p_e) / (1 - p_e) for p in _percent_interval(agreed_U, twice_U, found.cluster_U, n_pairs)]
    low, high = min(ends[0], value - Z95 * se), max(ends[1], value + Z95 * se)
    return Coefficient(value, max(-p_e / (1 - p_e), low), min(1.0, high), se, n_units, n_pairs)


def percent_agreement(answers: ArrayLike | Tally) -> Coefficient:
    """Raw agreement: the share of pairs of answers to a unit that are the same, mean over the units with two or more.

    Gwet 2008. The interval is Wilson's for as many independent units as would tell as much.
    """
    found = (answers if isinstance(answers, Tally) else tally(answers)).used()
    m_U = found.counts_UC.sum(axis=1)
    twice_U = m_U >= 2
    n_units, n_pairs = int(twice_U.sum()), int((m_U * (m_U - 1)).sum() / 2)
    if n_units == 0:
        return Coefficient(None, None, None, None, 0, 0, NO_OVERLAP)
    agreed_U = (found.counts_UC * (found.counts_UC - 1)).sum(axis=1) / np.maximum(m_U * (m_U - 1), 1)
    value = float(agreed_U[twice_U].mean())
    se = _standard_error(_per_cluster(np.where(twice_U, agreed_U - value, 0.0), found.cluster_U, twice_U), n_units)
    return Coefficient(value, *_percent_interval(agreed_U, twice_U, found.cluster_U, n_pairs), se, n_units, n_pairs)


def cohen_kappa(first_U: ArrayLike, second_U: ArrayLike) -> Coefficient:
    """Cohen's κ of two raters (U,), NaN where one did not answer.

        κ = (p_o − p_e)/(1 − p_e),   p_e = Σ_c p_c· p_·c

    Cohen 1960; `se` is the large-sample one of Fleiss, Cohen & Everitt 1969 with n−1 for n. The interval is the wider, on each
    side, of κ ± 1.96·se and Wilson's of p_o carried through the equation. Undefined when no unit has both answers or both
    raters gave but one category. Raises ValueError when the columns have two lengths.
    """
    a_U, b_U = np.asarray(first_U, dtype=np.float64), np.asarray(second_U, dtype=np.float64)
    if a_U.ndim != 1 or a_U.shape != b_U.shape:
        raise ValueError(f"two raters need columns of one length, not shapes {a_U.shape} and {b_U.shape}")
    both_U = ~np.isnan(a_U) & ~np.isnan(b_U)
    a, b = a_U[both_U], b_U[both_U]
    n = len(a)
    if n == 0:
        return Coefficient(None, None, None, None, 0, 0, NO_OVERLAP)
    values, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    i_U, j_U = place[:n], place[n:]
    p_C, q_C = np.bincount(i_U, minlength=len(values)) / n, np.bincount(j_U, minlength=len(values)) / n
    p_e = float(p_C @ q_C)
    if len(values) < 2:
        return Coefficient(None, None, None, None, n, n, ONE_CATEGORY)
    same_U = (i_U == j_U).astype(np.float64)
    p_o = float(same_U.mean())
    value = (p_o - p_e) / (1 - p_e)
    influence_U = (same_U - p_o - (1 - value) * (q_C[i_U] + p_C[j_U] - 2 * p_e)) / (1 - p_e)
    se = _standard_error(influence_U, n)
    ends = [(p - p_e) / (1 - p_e) for p in wilson(p_o, n)]
    low, high = min(ends[0], value - Z95 * se), max(ends[1], value + Z95 * se)
    return Coefficient(value, max(-p_e / (1 - p_e), low), min(1.0, high), se, n, n)


def agreement_weights(c: int, kind: Weights) -> Floats:
    """How much two of `c` ordered categories count as the same, (C, C): 1 on the diagonal.

    With d = |k − l|: "linear" 1 − d/(C−1), "quadratic" 1 − d²/(C−1)², "ordinal" 1 − d(d+1)/(C(C−1)) (Gwet 2014, chapter 3).
    Raises ValueError for another kind.
    """
    d_CC: Floats = np.abs(np.arange(c)[:, None] - np.arange(c)[None, :]).astype(np.float64)
    far = max(1, c - 1)
    off_CC = {
        "identity": np.sign(d_CC),
        "ordinal": d_CC * (d_CC + 1) / (far * (far + 1)),
        "linear": d_CC / far,
        "quadratic": (d_CC / far) ** 2,
    }
    if kind not in off_CC:
        raise ValueError(f"unknown weights {kind!r}; use {', '.join(off_CC)}")
    return 1 - off_CC[kind]


# ------------------------------------------------------------------------------------------------- inside


def _per_cluster(values: Floats, cluster_U: Ints | None, kept_U: NDArray[np.bool_] | None = None) -> Floats:
    """Sums per cluster, of the units kept; clusters without any are left out."""
    if kept_U is not None:
        values, cluster_U = values[kept_U], None if cluster_U is None else cluster_U[kept_U]
    if cluster_U is None:
        return values
    _, place_U = np.unique(cluster_U, return_inverse=True)
    if values.ndim == 1:
        return np.bincount(place_U, weights=values).astype(np.float64)
    return np.column_stack([np.bincount(place_U, weights=column) for column in values.T])


def _standard_error(influence_K: Floats, n: int) -> float:
    """√(K/(K−1)·Σ influence²)/n, the influences being sums over clusters; 0 for a single cluster, about which it says nothing."""
    k = len(influence_K)
    return math.sqrt(float((influence_K**2).sum()) * k / (k - 1)) / n if k > 1 else 0.0


def _effective(hits_K: Floats, totals_K: Floats, most: float) -> float:
    """How many independent trials would tell as much as K clusters: m(1−m)/Var(m); K where no variance can be seen."""
    k, n = len(hits_K), float(totals_K.sum())
    m = float(hits_K.sum()) / n
    if k == 1:
        return 1.0
    variance = float(((hits_K - m * totals_K) ** 2).sum()) / n**2 * k / (k - 1)
    trial = m * (1 - m)
    return max(1.0, min(most, trial / variance)) if trial > 0 and variance > 1e-12 * trial else float(k)


def _percent_interval(agreed_U: Floats, twice_U: NDArray[np.bool_], cluster_U: Ints | None, n_pairs: int) -> tuple[float, float]:
    """Wilson's interval of raw agreement."""
    agreed_K = _per_cluster(agreed_U, cluster_U, twice_U)
    units_K = _per_cluster(np.ones(len(agreed_U)), cluster_U, twice_U)
    return wilson(float(agreed_K.sum() / units_K.sum()), _effective(agreed_K, units_K, n_pairs))
