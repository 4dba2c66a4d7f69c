"""Partial pooling: what it reduces to, that it finds planted tastes, and that it beats both pooling all and pooling none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.maths.logistic import logistic, sigmoid
from backflip.maths.pooling import pooled_bradley_terry


def people(
    seed: int, j: int = 20, f: int = 5, each: int = 30, spread: float = 1.0, error: float = 0.0
) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=f) + spread * rng.normal(size=(j, f))
    gap, person = rng.normal(size=(j * each, f)), np.repeat(np.arange(j), each)
    p = sigmoid(np.einsum("nf,nf->n", gap, taste[person]))
    said = np.where(rng.random(len(p)) < error, rng.random(len(p)) < 0.5, rng.random(len(p)) < p)
    return gap, person, said.astype(float), taste


def distance(found: Any, taste: Any) -> float:
    return float(((found.taste_JF - taste) ** 2).mean())


def test_no_spread_is_one_logistic_regression_and_one_person_too() -> None:
    gap, person, p, _ = people(0)
    all_alike = pooled_bradley_terry(gap, person, p, n_people=20, spread=0.0, ridge=0.1, tolerance=1e-12)
    assert all_alike.shared_F == pytest.approx(logistic(gap, p, ridge=0.1).coef_F, abs=1e-6)
    assert not all_alike.own_JF.any()
    assert all_alike.log_loss == pytest.approx(logistic(gap, p, ridge=0.1).log_loss)


def test_endless_spread_is_a_regression_of_each_person_alone() -> None:
    gap, person, p, _ = people(1, j=4, each=200)
    alone = pooled_bradley_terry(gap, person, p, n_people=4, spread=math.inf, tolerance=1e-13)
    for j in range(4):
        own = logistic(gap[person == j], p[person == j], ridge=1e-9)
        assert alone.taste_JF[j] == pytest.approx(own.coef_F, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_pooling_in_part_is_nearer_the_truth_than_all_or_none(seed: int) -> None:
    gap, person, p, taste = people(seed)
    partly = pooled_bradley_terry(gap, person, p, n_people=20)
    assert partly.converged
    assert partly.spread == pytest.approx(1.0, abs=0.4)
    for other in (0.0, math.inf):
        assert distance(partly, taste) < distance(pooled_bradley_terry(gap, person, p, n_people=20, spread=other), taste)


def test_the_spread_is_found_small_where_tastes_are_alike() -> None:
    gap, person, p, _ = people(3, each=100, spread=0.0)
    assert pooled_bradley_terry(gap, person, p, n_people=20).spread < 0.3


def test_who_answered_nothing_has_everybodys_taste() -> None:
    gap, person, p, _ = people(4, j=5)
    found = pooled_bradley_terry(gap, person, p, n_people=7)
    assert found.own_JF[5:] == pytest.approx(np.zeros((2, 5)), abs=1e-9)
    assert found.taste_JF[6] == pytest.approx(found.shared_F)


def test_careless_people_are_found() -> None:
    gap, person, p, _ = people(5, j=10, each=400)
    rng = np.random.default_rng(0)
    careless = person < 3
    p = np.where(careless & (rng.random(len(p)) < 0.5), (rng.random(len(p)) < 0.5).astype(float), p)
    found = pooled_bradley_terry(gap, person, p, n_people=10, error=None)
    assert found.error_J[:3].min() > found.error_J[3:].max()
    assert found.error_J[:3].mean() > 2 * found.error_J[3:].mean()


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_order_and_sides_do_not_matter(seed: int) -> None:
    gap, person, p, _ = people(seed, j=3, f=2, each=8)
    first = pooled_bradley_terry(gap, person, p, n_people=3, tolerance=1e-10)
    order = np.random.default_rng(seed).permutation(len(p))
    mixed = pooled_bradley_terry(gap[order], person[order], p[order], n_people=3, tolerance=1e-10)
    swapped = pooled_bradley_terry(-gap, person, 1 - p, n_people=3, tolerance=1e-10)
    for other in (mixed, swapped):
        assert other.taste_JF == pytest.approx(first.taste_JF, abs=1e-6)


def test_half_a_belief_is_half_an_answer_each_way() -> None:
    gap, person, p, _ = people(6, j=3, each=10)
    soft = np.random.default_rng(0).random(len(p))
    found = pooled_bradley_terry(gap, person, soft, n_people=3, spread=1.0, tolerance=1e-12)
    z = np.einsum("nf,nf->n", gap, found.taste_JF[person])
    # At the maximum the pull of the comparisons on each person is balanced by the prior.
    for j in range(3):
        own = person == j
        assert gap[own].T @ (soft[own] - sigmoid(z[own])) == pytest.approx(found.own_JF[j], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person_N": [0, 9]}, "person outside"),
        ({"p_left_N": [0.5, 1.5]}, "beliefs between"),
        ({"gap_NF": [[math.nan], [1.0]]}, "finite"),
        ({"gap_NF": [[1.0]]}, "a belief each"),
        ({"ridge": 0.0}, "ridge is above 0"),
        ({"spread": -1.0}, "spread not below 0"),
        ({"error": 1.0}, "error a probability"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, Any], message: str) -> None:
    given_ = {"gap_NF": [[1.0], [2.0]], "person_N": [0, 1], "p_left_N": [1.0, 0.0], "n_people": 2} | change
    with pytest.raises(ValueError, match=message):
        pooled_bradley_terry(**given_)
