"""Circles: counted by hand and by loops, coins make a quarter, strengths make few, and planted circles are noticed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.cycles import COIN, cycles


def test_a_circle_and_a_line_by_hand() -> None:
    circle = cycles([[0, 6, 4], [4, 0, 6], [6, 4, 0]], rng=np.random.default_rng(0))
    assert (circle.triples, circle.cyclic, circle.share) == (1, 1, 1.0)
    # No order of three agrees with more than 16 of the 30 votes; strengths that are level agree with half. Majorities: 18.
    assert circle.transitive == pytest.approx(0.5)
    assert circle.pairwise == pytest.approx(0.6)
    line = cycles([[0, 6, 6], [4, 0, 6], [4, 4, 0]], rng=np.random.default_rng(0))
    assert (line.triples, line.cyclic, line.share) == (1, 0, 0.0)
    assert line.transitive == line.pairwise == pytest.approx(0.6)


def test_a_pair_without_a_winner_makes_no_triple() -> None:
    for wins in ([[0, 1, 1], [1, 0, 1], [0, 0, 0]], [[0, 1, 0], [0, 0, 1], [0, 0, 0]], np.zeros((3, 3)), np.zeros((0, 0))):
        none = cycles(wins, rng=np.random.default_rng(0))
        assert (none.triples, none.cyclic, none.share, none.p) == (0, 0, None, None)


@given(st.integers(0, 10**6), st.integers(3, 7))
def test_agrees_with_loops_over_triples(seed: int, m: int) -> None:
    wins = np.random.default_rng(seed).integers(0, 3, size=(m, m)).astype(float)
    np.fill_diagonal(wins, 0)
    above = wins > wins.T
    triples = [
        t for t in itertools.combinations(range(m), 3) if all(wins[i, j] != wins[j, i] for i, j in itertools.combinations(t, 2))
    ]
    circles = [t for t in triples if sorted(int(above[i, list(t)].sum()) for i in t) == [1, 1, 1]]
    counted = cycles(wins, rng=np.random.default_rng(0), simulations=2)
    assert (counted.triples, counted.cyclic) == (len(triples), len(circles))


def test_coins_make_a_quarter() -> None:
    rng = np.random.default_rng(1)
    upper = np.triu(rng.random((60, 60)) < 0.5, 1).astype(float)
    wins = upper + np.tril(1 - upper.T, -1)
    assert cycles(wins, rng=rng, simulations=2).share == pytest.approx(COIN, abs=0.02)


def test_one_scale_with_errors_is_not_accused_and_planted_circles_are() -> None:
    rng, p_values = np.random.default_rng(2), []
    for _ in range(20):
        theta = rng.normal(size=10)
        wins = np.zeros((10, 10))
        for i, j in itertools.combinations(range(10), 2):
            won = rng.binomial(9, 1 / (1 + np.exp(theta[j] - theta[i])))
            wins[i, j], wins[j, i] = won, 9 - won
        p_values.append(cycles(wins, rng=rng, simulations=200).p)
    assert sum(p < 0.05 for p in p_values if p is not None) <= 3
    # Nine items in three kinds that beat each other in a circle, six votes of ten.
    kind = np.arange(9) % 3
    wins = np.zeros((9, 9))
    for i, j in itertools.permutations(range(9), 2):
        wins[i, j] = {0: 5, 1: 7, 2: 3}[int((kind[j] - kind[i]) % 3)]
    planted = cycles(wins, rng=rng, simulations=500)
    assert planted.share == 1.0
    assert planted.p is not None
    assert planted.p < 0.01
    assert planted.transitive is not None
    assert planted.pairwise is not None
    assert planted.pairwise > planted.transitive + 0.05


@pytest.mark.parametrize("wins", [[[0, 1]], [[1, 0], [0, 0]], [[0, -1], [0, 0]], [[0, float("nan")], [0, 0]]])
def test_what_is_no_tournament_is_refused(wins: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"square matrix|finite and not negative"):
        cycles(wins, rng=np.random.default_rng(0))
