"""Logistic regression: a table by hand, another way to the same maximum, coverage, and what separates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.logistic import logistic, sigmoid


def test_one_column_of_ones_is_the_log_odds() -> None:
    found = logistic(np.ones((10, 1)), [1] * 7 + [0] * 3, ridge=0.0)
    assert found.coef_F == pytest.approx([math.log(7 / 3)])
    # The variance of a log-odds is 1/a + 1/b; the clustered one has K/(K−1) in front and the same middle.
    assert found.se_F == pytest.approx([math.sqrt((1 / 7 + 1 / 3) * 10 / 9)])
    assert found.log_loss == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)))
    assert found.low_F < found.coef_F < found.high_F


def test_agrees_with_gradient_ascent() -> None:
    rng = np.random.default_rng(0)
    x, p, w = rng.normal(size=(80, 3)), rng.random(80), rng.random(80)
    beta = np.zeros(3)
    for _ in range(20000):
        beta += 0.02 * (x.T @ (w * (p - 1 / (1 + np.exp(-(x @ beta))))) - 0.3 * beta)
    assert logistic(x, p, weight_N=w, ridge=0.3).coef_F == pytest.approx(beta, abs=1e-9)


def test_a_row_of_weight_two_is_two_rows_and_half_a_belief_is_half_a_row_each_way() -> None:
    rng = np.random.default_rng(1)
    x, p = rng.normal(size=(40, 2)), (rng.random(40) < 0.5).astype(float)
    twice = logistic(np.concatenate([x, x]), np.concatenate([p, p]))
    assert logistic(x, p, weight_N=np.full(40, 2.0)).coef_F == pytest.approx(twice.coef_F)
    soft = rng.random(40)
    split = logistic(np.concatenate([x, x]), np.repeat([1.0, 0.0], 40), weight_N=np.concatenate([soft, 1 - soft]))
    assert logistic(x, soft).coef_F == pytest.approx(split.coef_F)


def test_what_separates_stays_finite_and_its_interval_is_wide() -> None:
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    found = logistic(x, [0, 0, 1, 1])
    assert 0 < found.coef_F[0] < 10
    assert found.se_F[0] > 0.5
    with pytest.raises(ValueError, match="do not determine a fit"):
        logistic(np.ones((4, 2)), [0, 1, 0, 1], ridge=0.0)


def test_repeating_the_rows_of_a_cluster_tells_nothing_new() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 1))
    p = (rng.random(60) < sigmoid(x[:, 0])).astype(float)
    once = logistic(x, p, ridge=1e-9)
    copied = logistic(np.repeat(x, 5, axis=0), np.repeat(p, 5), ridge=1e-9, cluster_N=np.repeat(np.arange(60), 5))
    naive = logistic(np.repeat(x, 5, axis=0), np.repeat(p, 5), ridge=1e-9)
    assert copied.se_F == pytest.approx(once.se_F, rel=0.15)
    assert naive.se_F[0] < 0.6 * once.se_F[0]


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    rng, held = np.random.default_rng(3), 0
    for _ in range(400):
        x = np.column_stack([np.ones(80), rng.normal(size=80)])
        p = (rng.random(80) < sigmoid(x @ [0.2, 0.8])).astype(float)
        found = logistic(x, p, ridge=1e-6)
        held += bool(found.low_F[1] <= 0.8 <= found.high_F[1])
    assert 0.92 <= held / 400 <= 0.99


@given(st.floats(-700, 700))
def test_the_sigmoid_neither_overflows_nor_leaves_its_range(z: float) -> None:
    low, high = sigmoid(np.array([z, -z])).tolist()
    assert 0 <= low <= 1
    assert low + high == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "p", "w"),
    [
        ([[1.0]], [2.0], [1.0]),
        ([[1.0]], [0.5], [-1.0]),
        ([[math.nan]], [0.5], [1.0]),
        ([[1.0]], [0.5, 0.5], [1.0]),
        ([[1.0]], [], []),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: list[list[float]], p: list[float], w: list[float]) -> None:
    with pytest.raises(ValueError, match=r"fit beliefs|columns are finite"):
        logistic(np.array(x), p, weight_N=w)
