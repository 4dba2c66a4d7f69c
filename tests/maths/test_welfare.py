"""Welfare and juries: small tables by hand, the limits of one another, and compositions that decide."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.welfare import JURORS, equal_share, jury, median_voter, seats

OPTIONS = np.array([[0.9, 0.9, 0.1], [0.6, 0.6, 0.6], [1.0, 0.2, 0.2]])
tables = st.lists(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array)


def test_what_counts_decides_which_option_wins() -> None:
    assert equal_share(OPTIONS, 0) == pytest.approx([1.9 / 3, 0.6, 1.4 / 3])
    assert equal_share(OPTIONS, 1) == pytest.approx([0.081 ** (1 / 3), 0.6, 0.04 ** (1 / 3)])
    assert equal_share(OPTIONS, math.inf) == pytest.approx([0.1, 0.6, 0.2])
    assert [int(equal_share(OPTIONS, a).argmax()) for a in (0, 1, 2, math.inf)] == [0, 1, 1, 1]
    assert median_voter(OPTIONS) == pytest.approx([0.9, 0.6, 0.2])
    assert equal_share(OPTIONS, 2)[0] == pytest.approx(3 / (1 / 0.9 + 1 / 0.9 + 1 / 0.1)), "the harmonic mean"


@given(tables)
def test_more_inequality_aversion_never_raises_and_the_extremes_are_its_limits(u: np.ndarray) -> None:
    shares = [equal_share(u, a) for a in (0, 0.5, 1, 2, 10, math.inf)]
    assert all(np.all(b <= a + 1e-9) for a, b in itertools.pairwise(shares))
    assert equal_share(u, 1 + 1e-7) == pytest.approx(equal_share(u, 1), rel=1e-4)
    assert equal_share(u, 5000) == pytest.approx(u.min(axis=1), rel=2e-3)


@given(tables, st.floats(0.1, 10))
def test_the_unit_and_the_order_of_people_do_not_matter(u: np.ndarray, scale: float) -> None:
    for a in (0, 1, 3, math.inf):
        assert equal_share(u * scale, a) == pytest.approx(equal_share(u, a) * scale)
        assert equal_share(u[:, ::-1], a) == pytest.approx(equal_share(u, a))


def test_a_jury_says_what_its_median_juror_says() -> None:
    belief = np.array([[0.9, 0.8, 0.1, 0.2, 0.3], [0.4, 0.4, 0.6, 0.6, 0.6]])
    group = [0, 0, 1, 1, 1]
    whole = jury(belief, group, [2, 3], rng=np.random.default_rng(0), draws=5)
    assert whole.median_N == pytest.approx([0.3, 0.6]), "everybody sits"
    assert whole.above_N.tolist() == [0.0, 1.0]
    first = jury(belief, group, [12, 0], rng=np.random.default_rng(0), draws=200)
    assert first.above_N.tolist() == [1.0, 0.0]
    assert first.median_N == pytest.approx([0.85, 0.4], abs=0.06)
    even = jury(np.array([[0.5, 0.5]]), [0, 0], [1], rng=np.random.default_rng(0))
    assert even.above_N.tolist() == [0.5]


def test_the_composition_of_a_jury_is_what_was_asked_for() -> None:
    belief = np.array([[1.0] * 60 + [0.0] * 40])
    group = [0] * 60 + [1] * 40
    for share, verdict in ((7, 1.0), (5, 0.0)):
        said = jury(belief, group, [share, JURORS - share], rng=np.random.default_rng(1), draws=20)
        assert said.above_N.tolist() == [verdict]


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6).filter(lambda s: sum(s) > 0.01), st.integers(1, 40))
def test_every_seat_is_given_and_nobody_is_a_whole_seat_from_their_share(share: list[float], jurors: int) -> None:
    found = seats(share, jurors)
    assert found.sum() == jurors
    assert np.all(np.abs(found - jurors * np.array(share) / sum(share)) < 1 + 1e-9)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        equal_share([[0.0, 1.0]], 1)
    with pytest.raises(ValueError, match="inequality"):
        equal_share([[0.5]], -1)
    with pytest.raises(ValueError, match="finite numbers"):
        equal_share([[math.nan]], 0)
    with pytest.raises(ValueError, match="no people"):
        jury([[0.5]], [0], [1, 1], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="a seat at least"):
        jury([[0.5]], [0], [0], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="not negative"):
        seats([-1, 2])
