"""Two ways on the same things: a published interval, McNemar's test by hand, and what the sides do to each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.shares import paired, wilson_share


def columns(both: int, lost: int, gained: int, neither: int) -> tuple[list[int], list[int]]:
    first = [1] * both + [1] * lost + [0] * gained + [0] * neither
    second = [1] * both + [0] * lost + [1] * gained + [0] * neither
    return first, second


def test_newcombes_own_examples() -> None:
    # Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    # table II, method 10: 36, 12, 2, 0 gives 0.0569 to 0.3404 for first less second.
    found = paired(*columns(36, 12, 2, 0))
    assert (-found.high, -found.low) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert found.difference == pytest.approx(-0.2)


def test_mcnemar_by_hand() -> None:
    found = paired(*columns(5, 1, 6, 3))
    assert (found.gained, found.lost) == (6, 1)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)
    assert found.first == wilson_share(6, 15)
    assert found.second == wilson_share(11, 15)


@given(*[st.integers(0, 30)] * 4)
def test_exchanging_the_two_turns_the_sign_and_the_interval_holds_the_difference(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        return
    first, second = columns(a, b, c, d)
    there, back = paired(first, second), paired(second, first)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert -1 <= there.low - 1e-9 <= there.difference <= there.high + 1e-9 <= 1 + 2e-9
    assert there.p == back.p
    assert math.isfinite(there.low)


@pytest.mark.parametrize(("first", "second"), [([1], [1, 0]), ([], []), ([0.5], [1])])
def test_what_is_no_pair_of_columns_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="0 and 1 of one length"):
        paired(first, second)
