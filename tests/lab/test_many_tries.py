"""Estimates from many tries against enumeration of every subset, and fits against lines known by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backflip.errors import ConfigError
from backflip.lab.arithmetic_base import Borrowed, base_of
from backflip.lab.clock import Clock
from backflip.lab.many_tries import as_curve, averaged, difference, doublings, log_linear, majority_at_k, pass_at_k
from backflip.lab.tables import signed, table
from backflip.maths.ratings import best_of_n


def over_subsets(n: int, k: int, of: Callable[[tuple[int, ...]], float]) -> float:
    """The mean of a figure over all subsets of k of n tries."""
    found = [of(chosen) for chosen in itertools.combinations(range(n), k)]
    return sum(found) / len(found)


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (6, 0), (6, 1), (6, 4), (6, 6)])
def test_pass_at_k_is_the_mean_over_all_subsets(n: int, c: int) -> None:
    for k in range(1, n + 1):
        expected = over_subsets(n, k, lambda chosen: float(any(i < c for i in chosen)))
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_an_exact_checker_picks_what_pass_at_k_counts() -> None:
    right = np.array([1.0, 0, 0, 1, 0, 0, 0])
    for k in (1, 2, 5, 7):
        assert best_of_n(right, right, k) == pytest.approx(pass_at_k(7, 2, k), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_what_cannot_be_estimated_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be estimated"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    "votes",
    [
        ["a", "a", "b", "c", None, "b", "b"],
        ["b", "b", "a", "a", "a", None],
        [None, None, None],
        ["c", "c", "b"],
    ],
)
def test_the_vote_of_k_is_the_mean_over_all_subsets(votes: list[str | None]) -> None:
    def won(chosen: tuple[int, ...]) -> float:
        counts = Counter(votes[i] for i in chosen if votes[i] is not None)
        if not counts:
            return 0.0
        winners = [vote for vote, n in counts.items() if n == max(counts.values())]
        return float("a" in winners) / len(winners)

    ks = list(range(1, len(votes) + 1))
    found = majority_at_k(votes, "a", ks, draws=6000, generator=np.random.default_rng(0))
    for k, value in zip(ks, found, strict=True):
        expected = over_subsets(len(votes), k, won)
        assert value == pytest.approx(expected, abs=1e-12 if k in (1, len(votes)) else 0.03), k


def test_a_vote_may_weigh_more_than_another() -> None:
    votes, weights = ["a", "b", "b", "a", None], [3.0, 1.0, 1.5, 0.25, 9.0]

    def won(chosen: tuple[int, ...]) -> float:
        sums = {name: sum(weights[i] for i in chosen if votes[i] == name) for name in "ab"}
        return float(sums["a"] > sums["b"])

    found = majority_at_k(votes, "a", [1, 2, 3, 5], draws=4000, generator=np.random.default_rng(0), weights=weights)
    for k, value in zip([1, 2, 3, 5], found, strict=True):
        assert value == pytest.approx(over_subsets(5, k, won), abs=0.03), k


def test_a_vote_follows_from_its_generator() -> None:
    votes = ["a", "b", "b", "a", "c", "a", None, "b"]
    first, second = (majority_at_k(votes, "a", [2, 3, 4], draws=50, generator=np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_a_doubling_is_worth_the_slope() -> None:
    found = log_linear([1, 2, 4, 8], [0.1, 0.3, 0.5, 0.7])
    assert found == pytest.approx((0.2, 0.1, 1.0))
    # Deviations +e, −e, −e, +e are at right angles to the line: R² = 1 − 4e²/(4e² + 5·0.2²).
    bent = log_linear([1, 2, 4, 8], [0.15, 0.25, 0.45, 0.75])
    assert bent == pytest.approx((0.2, 0.1, 1 - 0.01 / 0.21))
    assert log_linear([1, 2], [0.5, 0.5]).r2 == 1.0
    with pytest.raises(ValueError, match="two different"):
        log_linear([2, 2], [0.1, 0.2])


def test_intervals_hold_what_they_are_of() -> None:
    values = np.random.default_rng(0).random(100)
    found, gap = averaged(values), difference((values - 0.5).tolist())
    assert (found["value"], gap["value"]) == pytest.approx((values.mean(), values.mean() - 0.5))
    for interval in (found, gap):
        assert interval["low"] < interval["value"] < interval["high"]
    # The standard error of the mean of 100 uniform numbers is 0.029.
    assert gap["high"] - gap["low"] == pytest.approx(4 * 0.029, rel=0.2)
    assert averaged([1.0] * 20)["low"] < 1.0


def test_a_curve_has_a_point_for_every_k() -> None:
    ks = doublings(20)
    assert ks == [1, 2, 4, 8, 16]
    found = as_curve(ks, [[pass_at_k(16, c, k) for k in ks] for c in (0, 1, 8)])
    assert found["x"] == ks
    assert found["value"][0] == pytest.approx(9 / 48)
    assert found["value"][-1] == pytest.approx(2 / 3)
    assert as_curve([1], [[0.5]])["fit"] is None


def test_tables_are_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert (signed(-1.26, 1), signed(2), signed(-0.01, 1)) == ("−1.3", "+2", "+0.0")


def test_a_borrowed_base_model_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run r1-zero --out"):
        base_of(Borrowed(base=str(tmp_path)), 1, tmp_path, True)
    model = tmp_path / "seed1" / "base" / "model"
    model.mkdir(parents=True)
    assert base_of(Borrowed(base=str(tmp_path)), 1, tmp_path, True) == model


def test_a_clock_counts_what_it_reads(tmp_path: Path) -> None:
    readings = iter([10.0, 12.5, 20.0, 21.0])
    path = tmp_path / "seed0" / "clock.json"
    for _ in range(2):
        with Clock(path, lambda: next(readings)).running("training"):
            pass
    assert Clock(path).seconds == {"training": 3.5}
