"""Noisy Bradley–Terry: an answer by hand, planted people are found again, EM only climbs, and what it reduces to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.maths.noisy_bradley_terry import answer_log_likelihood, noisy_bradley_terry
from backflip.maths.ratings import RIDGE, _newton

Data = dict[str, Any]


def planted(seed: int, items: int = 25, raters: int = 20, n: int = 6000, otherwise: str = "habit") -> tuple[Data, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    theta, eta, habit = rng.normal(size=items) * 1.5, rng.uniform(0.2, 1.0, raters), rng.uniform(0.1, 0.9, raters)
    left = rng.integers(items, size=n)
    right = (left + rng.integers(1, items, size=n)) % items
    rater = rng.integers(raters, size=n)
    by_judging = rng.random(n) < 1 / (1 + np.exp(theta[right] - theta[left]))
    other = rng.random(n) < habit[rater] if otherwise == "habit" else ~by_judging
    p = np.where(rng.random(n) < eta[rater], by_judging, other).astype(float)
    data = {"left_N": left, "right_N": right, "rater_N": rater, "p_left_N": p, "n_items": items, "n_raters": raters}
    return data, theta, eta, habit


def r(a: Any, b: Any) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_planted_reliabilities_are_found_again(seed: int) -> None:
    data, theta, eta, habit = planted(seed)
    found = noisy_bradley_terry(**data)
    assert found.converged
    assert r(found.reliability_R, eta) >= 0.9
    assert r(found.theta_I, theta) >= 0.95
    careless = eta < 0.6  # of those who always judge nothing is known of what they do otherwise
    assert r(found.habit_R[careless], habit[careless]) >= 0.8


@pytest.mark.parametrize("seed", range(3))
def test_who_answers_the_opposite_is_found(seed: int) -> None:
    data, theta, eta, _ = planted(seed, otherwise="opposite")
    found = noisy_bradley_terry(**data, otherwise="opposite")
    assert r(found.reliability_R, eta) >= 0.9
    assert r(found.theta_I, theta) >= 0.95


def test_one_answer_by_hand() -> None:
    # σ(ln 3) = ¾: judges with 0.8, else says left with ¼.
    found = answer_log_likelihood([math.log(3), 0], [0.8], [0.25], [0, 0], [1, 1], [0, 0], [1.0, 0.0])
    assert found == pytest.approx(math.log(0.8 * 0.75 + 0.2 * 0.25) + math.log(0.8 * 0.25 + 0.2 * 0.75))
    half = answer_log_likelihood([math.log(3), 0], [0.8], [0.25], [0], [1], [0], [0.5])
    assert half == pytest.approx(found / 2)


def test_the_likelihood_is_the_one_that_is_told_and_more_rounds_only_climb() -> None:
    data, *_ = planted(0, n=600)
    columns = [data[name] for name in ("left_N", "right_N", "rater_N", "p_left_N")]
    before = -math.inf
    for limit in (1, 2, 4, 8, 16, 32):
        found = noisy_bradley_terry(**data, limit=limit, tolerance=0.0)
        assert found.iterations == limit
        parameters = (found.theta_I, found.reliability_R, found.habit_R)
        assert found.log_likelihood == pytest.approx(answer_log_likelihood(*parameters, *columns))
        e, b = found.reliability_R, found.habit_R
        prior = (2 * np.log(e) + np.log1p(-e) + np.log(b) + np.log1p(-b)).sum() - 0.05 * (found.theta_I**2).sum()
        assert found.log_likelihood + prior >= before - 1e-9, "expectation maximisation never goes down"
        before = found.log_likelihood + prior


def test_everybody_reliable_is_bradley_terry() -> None:
    data, *_ = planted(1, items=8)
    wins = np.zeros((8, 8))
    np.add.at(wins, (data["left_N"], data["right_N"]), data["p_left_N"])
    np.add.at(wins, (data["right_N"], data["left_N"]), 1 - data["p_left_N"])
    # A prior of ever so many judgements holds everybody at η = ⅔ of them judging; "opposite" is then a flatter sigmoid, and
    # with one rater whom nothing else is known of, η near 1 is Bradley–Terry itself.
    judge = {**data, "rater_N": np.zeros_like(data["rater_N"]), "n_raters": 1}
    found = noisy_bradley_terry(**judge, smoothing=1e-9, ridge=RIDGE, tolerance=1e-9, limit=300)
    plain = _newton(wins[None], RIDGE)[0]
    assert r(found.theta_I, plain) > 0.999


def test_exchanging_sides_exchanges_habits_and_nothing_else() -> None:
    data, *_ = planted(2, n=800)
    there = noisy_bradley_terry(**data)
    swapped = {**data, "left_N": data["right_N"], "right_N": data["left_N"], "p_left_N": 1 - data["p_left_N"]}
    back = noisy_bradley_terry(**swapped)
    assert back.theta_I == pytest.approx(there.theta_I, abs=1e-6)
    assert back.reliability_R == pytest.approx(there.reliability_R, abs=1e-6)
    assert back.habit_R == pytest.approx(1 - there.habit_R, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_order_of_answers_does_not_matter(seed: int) -> None:
    data, *_ = planted(seed, items=5, raters=3, n=40)
    order = np.random.default_rng(seed).permutation(40)
    columns = ("left_N", "right_N", "rater_N", "p_left_N")
    mixed = {**data, **{name: data[name][order] for name in columns}}
    a, b = noisy_bradley_terry(**data), noisy_bradley_terry(**mixed)
    assert b.theta_I == pytest.approx(a.theta_I, abs=1e-6)
    assert b.judged_N == pytest.approx(a.judged_N[order], abs=1e-6)


def test_items_that_share_no_answers_and_a_winner_of_everything_stay_finite() -> None:
    found = noisy_bradley_terry([0, 0, 2], [1, 1, 3], [0, 1, 0], [1, 1, 0.5], n_items=5, n_raters=3)
    assert np.all(np.isfinite(found.theta_I))
    assert found.theta_I[0] > 0 > found.theta_I[1]
    assert found.theta_I[2:] == pytest.approx([0, 0, 0], abs=0.1)
    assert found.theta_I[4] == 0
    assert found.reliability_R[2] == pytest.approx(2 / 3), "of whom nothing is known the prior says all"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0], [0], [0], [1.0]), "with itself"),
        (([0], [9], [0], [1.0]), "item outside"),
        (([0], [1], [9], [1.0]), "rater outside"),
        (([0], [1], [0], [1.5]), "probability"),
        (([0], [1], [0], [math.nan]), "probability"),
        (([0, 1], [1], [0], [1.0]), "one length"),
    ],
)
def test_what_is_no_answer_is_refused(columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noisy_bradley_terry(*columns, n_items=3, n_raters=2)
    with pytest.raises(ValueError, match="above 0"):
        noisy_bradley_terry([0], [1], [0], [1.0], n_items=3, n_raters=2, ridge=0.0)
