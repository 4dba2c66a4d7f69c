"""Distances to a distribution: by hand, invariance, and planted points that only the relative one finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.maths.outliers import fit_gaussian, mahalanobis, relative_mahalanobis


def test_by_hand_in_one_dimension() -> None:
    gaussian = fit_gaussian([[0.0], [2.0]], shrink=0.0)
    assert mahalanobis([[1.0], [3.0], [0.0]], gaussian) == pytest.approx([0.0, 4.0, 1.0], rel=1e-5)
    assert relative_mahalanobis([[3.0]], gaussian) == pytest.approx([0.0], abs=1e-9), "one dimension has no correlations"


def test_by_hand_in_two_dimensions() -> None:
    # Corners of a rhombus along the diagonal: S = [[½, ⅖], [⅖, ½]]·… so that both eigenvectors are diagonals.
    points = np.array([[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]])
    gaussian = fit_gaussian(points, shrink=0.0)
    # S has 5 on its diagonal and 4 beside it: eigenvalue 9 along (1, 1), 1 along (1, −1).
    along, across = [[2.0, 2.0]], [[2.0, -2.0]]
    assert mahalanobis(along, gaussian) == pytest.approx([8 / 9], rel=1e-4)
    assert mahalanobis(across, gaussian) == pytest.approx([8.0], rel=1e-4)
    assert relative_mahalanobis(across, gaussian) == pytest.approx([8.0 - 8 / 5], rel=1e-4)
    assert relative_mahalanobis(along, gaussian) == pytest.approx([8 / 9 - 8 / 5], rel=1e-4)


@given(seed=st.integers(0, 50), shift=st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_fitted_points_are_as_far_as_they_have_dimensions(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 4)) + shift
    found = mahalanobis(points, fit_gaussian(points, shrink=0.0))
    assert found.mean() == pytest.approx(4.0, rel=1e-3)
    assert (found >= 0).all()
    moved = mahalanobis(points + 7.0, fit_gaussian(points + 7.0, shrink=0.0))
    assert moved == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_points_that_break_the_correlations_stand_out() -> None:
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((3, 16))
    usual = rng.standard_normal((128, 3)) @ mix + 0.1 * rng.standard_normal((128, 16))
    fresh = rng.standard_normal((200, 3)) @ mix + 0.1 * rng.standard_normal((200, 16))
    odd = usual[rng.permutation(128)].copy()
    for column in range(16):
        odd[:, column] = rng.permutation(odd[:, column])  # every coordinate as usual, not their combination
    gaussian = fit_gaussian(usual)
    near, far = relative_mahalanobis(fresh, gaussian), relative_mahalanobis(odd, gaussian)
    auroc = float((far[:, None] > near[None, :]).mean())
    assert auroc > 0.95
    spread = (((odd - gaussian.mean_D) ** 2) @ gaussian.diagonal_D).mean()
    assert spread == pytest.approx((((usual - gaussian.mean_D) ** 2) @ gaussian.diagonal_D).mean())


def test_more_dimensions_than_points_are_no_trouble() -> None:
    rng = np.random.default_rng(2)
    gaussian = fit_gaussian(rng.standard_normal((8, 32)))
    assert np.isfinite(mahalanobis(rng.standard_normal((5, 32)), gaussian)).all()


@pytest.mark.parametrize(
    ("points", "shrink", "words"),
    [([[1.0, 2.0]], 0.1, "two points"), ([1.0, 2.0], 0.1, "two points"), ([[1.0], [1.0]], 0.1, "all the same"),
     ([[1.0], [2.0]], 1.5, "between 0 and 1")],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(points: list[list[float]], shrink: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_gaussian(points, shrink=shrink)
