"""Paired differences and cumulative sums: by hand, what cancels, and how seldom noise rings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.sequential import Difference, cusum, luck, paired


def test_pairs_by_hand() -> None:
    found = paired([3.0, 5.0, 10.0], [1.0, 4.0, 7.0])
    assert found.mean == 2.0
    assert found.error == pytest.approx(1.0 / math.sqrt(3))
    assert found.z == pytest.approx(2 * math.sqrt(3))
    assert Difference(0.0, 0.0).z == 0.0
    assert Difference(-1.0, 0.0).z == -math.inf
    for wrong in (([1.0], [1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="pairs are two columns"):
            paired(*wrong)


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20), st.floats(-10, 10))
def test_what_both_sides_share_cancels(hard: list[float], gain: float) -> None:
    found = paired([h + gain for h in hard], hard)
    assert found.mean == pytest.approx(gain, abs=1e-9)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_a_sum_by_hand() -> None:
    total, seen = 0.0, []
    for z in (0.5, 3.0, 9.0, -5.0, 2.0):
        total = cusum(total, z, allowance=1.0, cap=4.0)
        seen.append(total)
    assert seen == [0.0, 2.0, 5.0, 0.0, 1.0]


@given(st.lists(st.floats(-10, 10), max_size=30))
def test_it_is_never_negative_and_grows_by_the_cap_at_most(zs: list[float]) -> None:
    total = 0.0
    for z in zs:
        new = cusum(total, z, allowance=1.0, cap=4.0)
        assert 0.0 <= new <= total + 3.0 + 1e-12
        total = new


def test_luck_is_what_the_best_of_many_looks_has() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 10, 40):
        largest = rng.standard_normal((4000, n)).max(axis=1).mean() / math.sqrt(2)  # in errors of a difference between two
        assert largest < luck(n) < largest + 0.7
    assert luck(1) == 0.0
    with pytest.raises(ValueError, match="no best of 0"):
        luck(0)


def test_noise_seldom_rings_and_a_fall_soon_does() -> None:
    rng = np.random.default_rng(0)

    def first(shift: float, looks: int = 60) -> int | None:
        total = 0.0
        for i in range(looks):
            total = cusum(total, shift + rng.standard_normal(), allowance=1.0, cap=4.0)
            if total > 5.0:
                return i
        return None

    assert sum(first(0.0) is not None for _ in range(400)) <= 4
    fell = [first(3.0) for _ in range(400)]
    assert all(i is not None for i in fell)
    assert float(np.mean([i for i in fell if i is not None])) < 4
