"""Shares with intervals and the exact test of a coin: by hand, against plain sums, and what clusters do to them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.ratings import wilson
from backflip.maths.shares import Share, binomial_p, shares, wilson_share


def test_wilson_by_hand() -> None:
    # Wilson 1927: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²))/(1 + z²/n) for 8 of 10.
    assert wilson_share(8, 10) == pytest.approx((0.8, 0.4901625, 0.9433178, 10), abs=1e-6)
    assert wilson_share(10, 10)[:3] == pytest.approx((1.0, 0.7224672, 1.0), abs=1e-6)
    assert wilson_share(0, 0) == Share(None, None, None, 0)


def test_independent_trials_have_wilsons_interval() -> None:
    hits, totals = [1, 0, 1, 1, 0, 1], [1] * 6
    assert shares([0, 0, 0, 0, 0, 2], hits, totals, 3) == [
        pytest.approx(wilson_share(3, 5)),
        Share(None, None, None, 0),
        pytest.approx(wilson_share(1, 1)),
    ]
    assert shares([], [], [], 2) == [Share(None, None, None, 0)] * 2


def test_trials_that_all_went_together_are_one() -> None:
    # Four rows of six trials each, all hits or none: as much as four trials, and no more.
    [found] = shares([0] * 4, [6, 6, 0, 6], [6] * 4, 1)
    assert (found.value, found.n) == (0.75, 24)
    low, high = wilson(0.75, 4)
    assert found.low == pytest.approx(low, abs=0.06)
    assert found.high == pytest.approx(high, abs=0.06)
    assert found.low < wilson(0.75, 24)[0] - 0.1
    # Without variance to be seen, the number of rows.
    [sure] = shares([0] * 4, [6] * 4, [6] * 4, 1)
    assert (sure.low, sure.high) == pytest.approx(wilson(1.0, 4))
    [level] = shares([0] * 4, [3] * 4, [6] * 4, 1)
    assert (level.low, level.high) == pytest.approx(wilson(0.5, 4))
    [single] = shares([0], [3], [6], 1)
    assert (single.low, single.high) == pytest.approx(wilson(0.5, 1))


def test_intervals_of_clustered_shares_hold_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        p = np.where(rng.random(40) < 0.5, 0.9, 0.4)
        [found] = shares(np.zeros(40, int), rng.binomial(6, p), np.full(40, 6), 1)
        held += found.low <= 0.65 <= found.high
    assert held >= 273  # of 285 expected, less three standard deviations


def test_shares_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="one length"):
        shares([0], [1, 1], [1, 1], 1)
    with pytest.raises(ValueError, match="more hits than trials"):
        shares([0], [2], [1], 1)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_coin_agrees_with_exact_fractions(hits: int, misses: int) -> None:
    n = hits + misses
    terms = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    # The method of small p-values: everything no likelier than what was seen.
    exact = float(sum(term for term in terms if term <= terms[hits]))
    assert binomial_p(hits, n) == pytest.approx(exact, rel=1e-12)
    assert binomial_p(hits, n) == binomial_p(misses, n)


def test_the_coin_by_hand_and_far_out() -> None:
    assert binomial_p(0, 0) == 1.0
    assert binomial_p(9, 10) == 22 / 1024
    assert binomial_p(5, 10) == 1.0
    assert binomial_p(60, 100) == pytest.approx(0.05688793, abs=1e-8)
    assert binomial_p(0, 5000) == 0.0  # 2^−4999 is below the smallest number
    assert binomial_p(500, 1001) == 1.0
    # Where n is large the normal curve with its continuity correction is as good as exact.
    z = (50_500 - 0.5 - 50_000) / math.sqrt(25_000)
    assert binomial_p(50_500, 100_000) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-4)
    # The two ways to work out the largest term meet at n = 1000.
    assert binomial_p(470, 1000) < binomial_p(471, 1001) * 1.1
    with pytest.raises(ValueError, match="11 heads in 10 throws"):
        binomial_p(11, 10)


@pytest.mark.parametrize("n", [999, 1000, 1001, 2500])
def test_the_coin_agrees_with_a_sum_of_logarithms(n: int) -> None:
    for hits in (0, n // 3, n // 2 - 20, n // 2 - 1):
        logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(hits + 1)]
        assert binomial_p(hits, n) == pytest.approx(2 * math.fsum(map(math.exp, logs)), rel=1e-9)
