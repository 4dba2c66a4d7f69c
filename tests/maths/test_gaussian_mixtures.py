"""Mixtures of one dimension: a normal by hand, planted opinions, EM that climbs, and how seldom one opinion passes for two."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from backflip.maths.mixtures import Mixtures, components, fit_mixtures, log_density


def test_one_component_is_the_mean_and_the_spread() -> None:
    x = np.array([[1.0, 2.0, 4.0, np.nan], [0.0, 0.0, 0.0, 0.0]])
    fit = fit_mixtures(x, 1, floor=0.5)
    assert fit.mean_BK[:, 0] == pytest.approx([7 / 3, 0])
    assert fit.sd_BK[:, 0] == pytest.approx([np.std([1, 2, 4]), 0.5])
    assert fit.weight_BK[:, 0] == pytest.approx([1, 1])
    by_hand = np.mean([-0.5 * ((v - 7 / 3) / np.std([1, 2, 4])) ** 2 for v in (1, 2, 4)]) - math.log(
        np.std([1, 2, 4]) * math.sqrt(2 * math.pi)
    )
    assert fit.log_likelihood_B[0] == pytest.approx(by_hand)
    density = log_density(x, fit)
    assert np.nanmean(density[0]) == pytest.approx(by_hand)
    assert np.isnan(density[0, 3])


def test_two_opinions_are_found_again() -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random((5, 400)) < 0.3, rng.normal(-1.5, 0.4, (5, 400)), rng.normal(1.0, 0.6, (5, 400)))
    fit = fit_mixtures(x, 2)
    low = fit.mean_BK.argmin(axis=1)
    rows = np.arange(5)
    assert fit.mean_BK[rows, low] == pytest.approx(np.full(5, -1.5), abs=0.2)
    assert fit.weight_BK[rows, low] == pytest.approx(np.full(5, 0.3), abs=0.08)
    assert fit.sd_BK[rows, 1 - low] == pytest.approx(np.full(5, 0.6), abs=0.1)


def test_more_rounds_only_climb_and_rows_do_not_touch_each_other() -> None:
    x = np.random.default_rng(1).normal(size=(4, 30))
    likelihoods = [fit_mixtures(x, 3, limit=limit, tolerance=0.0).log_likelihood_B for limit in (1, 3, 10, 30)]
    assert all(np.all(b >= a - 1e-12) for a, b in itertools.pairwise(likelihoods))
    whole, alone = fit_mixtures(x, 2, tolerance=0.0), fit_mixtures(x[2:3], 2, tolerance=0.0)
    assert whole.mean_BK[2] == pytest.approx(alone.mean_BK[0])


def test_one_opinion_is_mostly_told_from_two() -> None:
    rng = np.random.default_rng(2)
    one = rng.normal(size=(60, 40))
    two = np.where(rng.random((60, 40)) < 0.5, -1.2, 1.2) + rng.normal(0, 0.4, (60, 40))
    alone, parted = components(one, rng=rng), components(two, rng=rng)
    assert (alone.best_B == 1).mean() > 0.7
    assert (parted.best_B > 1).mean() > 0.95
    assert (parted.second_B > 0.2).mean() > 0.95
    assert parted.held_out_BK.shape == (60, 3)
    again = components(one, rng=np.random.default_rng(5))
    same = components(one, rng=np.random.default_rng(5))
    assert again.best_B.tolist() == same.best_B.tolist()


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [([[1.0, math.nan]], 2, "as many answers"), ([[math.inf, 1.0]], 1, "finite"), ([[1.0, 2.0]], 0, "finite")],
)
def test_what_cannot_be_fitted_is_refused(x: list[list[float]], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_mixtures(x, k)
    with pytest.raises(ValueError, match="more answers"):
        components([[1.0, 2.0]], rng=np.random.default_rng(0))


def test_a_component_that_nobody_needs_does_no_harm() -> None:
    fit = Mixtures(np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]]), np.array([[1.0, 1.0]]), np.zeros(1))
    assert log_density([[0.0]], fit)[0, 0] == pytest.approx(-0.5 * math.log(2 * math.pi))
