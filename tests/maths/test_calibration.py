"""Temperature, calibration, slopes and strangeness: by hand, against planted values, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.calibration import (
    calibration_bins,
    fit_temperature,
    log_loss,
    logistic_slope,
    ranking_area,
    strangeness,
    usual,
)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(planted: float) -> None:
    gaps = np.random.default_rng(0).normal(0, 2, 500)
    found = fit_temperature(gaps, sigmoid(gaps / planted))
    assert found.value == pytest.approx(planted, rel=1e-6)
    assert found.after <= found.before + 1e-12
    assert found.before == pytest.approx(log_loss(gaps, sigmoid(gaps / planted)))


def test_the_temperature_is_where_the_loss_is_least() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.normal(0, 3, 300)
    answers = (rng.random(300) < sigmoid(gaps / 2)).astype(float)
    found = fit_temperature(gaps, answers)
    grid = [log_loss(gaps / t, answers) for t in np.geomspace(found.value / 2, found.value * 2, 201)]
    assert found.after <= min(grid) + 1e-9


def test_answers_that_always_or_never_fit_leave_a_bound() -> None:
    assert fit_temperature([1.0, -2.0], [1.0, 0.0]).value == pytest.approx(1e-3)
    assert fit_temperature([1.0, -2.0], [0.0, 1.0]).value == pytest.approx(1e3)
    assert fit_temperature([0.0, 0.0], [1.0, 0.0]).before == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="two columns of one length"):
        fit_temperature([1.0], [1.0, 0.0])


def test_bins_by_hand() -> None:
    found = calibration_bins([2.0, 2.0, 0.0], [1.0, 0.0, 1.0], bins=4)
    top = 1 / (1 + math.exp(-2))
    assert [(b.n, b.observed) for b in found] == [(2, 0.5), (2, 0.5), (2, 0.5)]
    assert [b.predicted for b in found] == pytest.approx([1 - top, 0.5, top])


@pytest.mark.parametrize("planted", [-0.8, 0.0, 1.3])
def test_a_planted_slope_is_found_and_covered(planted: float) -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        x = rng.normal(0, 5, 300)
        found = logistic_slope(x, (rng.random(300) < sigmoid(planted * x / np.sqrt(np.mean(x * x)))).astype(float))
        covered += found.low <= planted <= found.high
    assert 0.88 * 200 <= covered <= 200
    x = rng.normal(0, 1, 1000)
    exact = logistic_slope(x, sigmoid(planted * x / np.sqrt(np.mean(x * x))))
    assert exact.value == pytest.approx(planted, abs=1e-4)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=2, max_size=20), st.floats(0.1, 9))
def test_sides_and_units_change_no_slope(rows: list[tuple[float, float]], unit: float) -> None:
    x, p = np.array(rows).T
    x = np.where(np.abs(x) < 1e-3, 0.0, x)
    there, swapped, scaled = logistic_slope(x, p), logistic_slope(-x, 1 - p), logistic_slope(unit * x, p)
    assert swapped.value == pytest.approx(there.value, abs=1e-6)
    assert scaled.value == pytest.approx(there.value, abs=1e-6)


def test_no_variation_has_no_slope_and_separation_stays_finite() -> None:
    assert logistic_slope([0.0, 0.0], [1.0, 0.0]) == (0.0, 0.0, 0.0)
    assert 3 < logistic_slope([1.0, -1.0, 1.0], [1.0, 0.0, 1.0]).value < 30


def test_a_text_that_breaks_a_rule_is_stranger_than_one_that_is_merely_far() -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(0, 1, 2000)
    known = usual(np.stack([first, first + rng.normal(0, 0.1, 2000)], axis=1), shrinkage=0.0)
    far, broken = strangeness([[3.0, 3.0], [1.0, -1.0]], known)
    assert broken > 100 > far
    x = np.array([[0.5, -0.2]])
    hand = (x - known.mean_D) @ known.precision_DD @ (x - known.mean_D).T - (((x - known.mean_D) ** 2) / known.variance_D).sum()
    assert strangeness(x, known)[0] == pytest.approx(hand.item())


def test_fewer_texts_than_dimensions_are_enough_and_one_is_not() -> None:
    known = usual(np.random.default_rng(4).normal(size=(5, 40)))
    assert np.isfinite(strangeness(np.ones((2, 40)), known)).all()
    with pytest.raises(ValueError, match="two texts or more"):
        usual(np.ones((1, 3)))


def test_the_area_by_hand() -> None:
    assert ranking_area([0, 1], [2, 3]) == 1.0
    assert ranking_area([0, 1, 2], [1]) == pytest.approx(0.5)
    assert ranking_area([2], [0, 2, 5]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="both sides"):
        ranking_area([], [1])
