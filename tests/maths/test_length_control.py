"""Length taken out of ratings: by hand, against another method, reduced to the plain fit, and with the bias planted."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from backflip.maths import length_control
from backflip.maths.length_control import bootstrap_length_controlled, length_controlled_ratings, length_difference
from backflip.maths.ratings import ELO_PER_NAT, RIDGE, Floats, Votes, bootstrap_ratings, bradley_terry_ratings


def planted(
    seed: int, *, m: int = 5, b: int = 4000, effect: float = 1.0, prompts: int | None = None
) -> tuple[Votes, Floats, Floats]:
    """Votes that follow strength and length, the differences in length, and the strengths. The weakest writes the most."""
    rng = np.random.default_rng(seed)
    theta, wordy = np.linspace(1.0, 0.0, m), np.linspace(0.0, 1.2, m)
    left = rng.integers(m, size=b)
    right = (left + rng.integers(1, m, size=b)) % m
    d = length_difference(*(np.exp(4 + wordy[side] + rng.normal(0, 0.4, b)).round() for side in (left, right)))
    z = theta[left] - theta[right] + effect * d / math.sqrt(np.mean(d * d))
    won = (rng.random(b) < 1 / (1 + np.exp(-z))).astype(float)
    return Votes(left, right, won, np.arange(b) % (prompts or b), m), d, theta


def objective(votes: Votes, x: Floats, theta: Floats, gamma: float) -> float:
    """What the docstring says is maximised, where no policy is undefeated."""
    z = theta[votes.left_B] - theta[votes.right_B] + gamma * x
    return float(-(votes.p_left_B * np.logaddexp(0, -z) + (1 - votes.p_left_B) * np.logaddexp(0, z)).sum() - RIDGE / 2 * gamma**2)


def elo(votes: Votes, d: Floats, anchor: int | None = None) -> Floats:
    found = length_controlled_ratings(votes, d, anchor=anchor).elo_M
    assert found is not None
    return found


def plain(votes: Votes, anchor: int | None = None) -> Floats:
    found = bradley_terry_ratings(votes.win_matrix(), anchor=anchor).elo_M
    assert found is not None
    return found


def test_the_difference_in_length_by_hand() -> None:
    assert length_difference([300, 100, 0, 0, 7], [100, 300, 0, 5, 7]).tolist() == [0.5, -0.5, 0, -1, 0]
    with pytest.raises(ValueError, match="none below zero"):
        length_difference([1], [-1])
    with pytest.raises(ValueError, match="one size"):
        length_difference([1], [1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_taste_for_length_is_found_and_removed(seed: int) -> None:
    votes, d, theta = planted(seed, b=8000)
    fit = length_controlled_ratings(votes, d)
    truth = 1000 + ELO_PER_NAT * (theta - theta.mean())
    assert fit.coefficient == pytest.approx(1.0, abs=0.12)
    assert elo(votes, d) == pytest.approx(truth, abs=35)
    assert np.abs(plain(votes) - truth).max() > 100, "the plain fit takes length for strength"
    assert fit.typical == pytest.approx(math.sqrt(np.mean(d * d)))
    assert not fit.regularised


def test_where_length_does_nothing_nothing_is_taken_out() -> None:
    votes, d, _ = planted(0, effect=0.0)
    assert length_controlled_ratings(votes, d).coefficient == pytest.approx(0, abs=0.1)
    assert elo(votes, d) == pytest.approx(plain(votes), abs=25)


@pytest.mark.parametrize("anchor", [None, 2])
def test_equal_lengths_are_the_plain_fit(anchor: int | None) -> None:
    votes, d, _ = planted(1)
    fit = length_controlled_ratings(votes, np.zeros_like(d), anchor=anchor)
    assert (fit.coefficient, fit.typical) == (0.0, 1.0)
    assert fit.elo_M == pytest.approx(plain(votes, anchor), abs=1e-9)
    undefeated = Votes(np.array([0, 0, 1, 2]), np.array([1, 2, 2, 1]), np.ones(4), np.arange(4), 3)
    fit = length_controlled_ratings(undefeated, np.zeros(4))
    assert fit.regularised
    assert fit.elo_M == pytest.approx(plain(undefeated), abs=1e-9)


def test_a_coefficient_of_zero_is_the_plain_fit() -> None:
    # Every vote twice, its lengths once the other way round: length cannot be what decided.
    votes, d, _ = planted(2, b=500)
    columns = (votes.left_B, votes.right_B, votes.p_left_B, votes.prompt_B)
    twice = Votes(*(np.concatenate([column, column]) for column in columns), votes.n_policies)
    fit = length_controlled_ratings(twice, np.concatenate([d, -d]))
    # What is maximised is the same for γ and −γ, and it is concave, so its top is at 0.
    assert fit.coefficient == pytest.approx(0, abs=1e-6)
    assert fit.elo_M == pytest.approx(plain(twice), abs=1e-6)


def test_the_gradient_vanishes_at_the_fit_and_nowhere_else() -> None:
    votes, d, _ = planted(3, m=4, b=300)
    fit = length_controlled_ratings(votes, d)
    assert fit.elo_M is not None
    x, theta, gamma, step = d / fit.typical, (fit.elo_M - 1000) / ELO_PER_NAT, fit.coefficient, 1e-5
    best = objective(votes, x, theta, gamma)
    for i in range(4):
        moved = [objective(votes, x, theta + sign * step * np.eye(4)[i], gamma) for sign in (1, -1)]
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(0, abs=1e-4)
        assert max(moved) < best
    along = [objective(votes, x, theta, gamma + sign * step) for sign in (1, -1)]
    assert (along[0] - along[1]) / (2 * step) == pytest.approx(0, abs=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert objective(votes, x, theta + rng.normal(0, 0.3, 4), gamma + rng.normal(0, 0.3)) < best


def test_agrees_with_gradient_ascent() -> None:
    votes, d, _ = planted(4, m=4, b=200)
    fit = length_controlled_ratings(votes, d)
    x, theta, gamma = d / fit.typical, np.zeros(4), 0.0
    for _ in range(20_000):
        z = theta[votes.left_B] - theta[votes.right_B] + gamma * x
        surplus = votes.p_left_B - 1 / (1 + np.exp(-z))
        theta = theta + 0.005 * (np.bincount(votes.left_B, surplus, 4) - np.bincount(votes.right_B, surplus, 4))
        gamma += 0.005 * float(surplus @ x - RIDGE * gamma)
    assert fit.coefficient == pytest.approx(gamma, abs=1e-6)
    assert fit.elo_M == pytest.approx(1000 + ELO_PER_NAT * (theta - theta.mean()), abs=1e-4)


def test_sides_names_and_order_change_nothing() -> None:
    votes, d, _ = planted(5, b=600, prompts=60)
    columns = (votes.left_B, votes.right_B, votes.p_left_B, votes.prompt_B)
    swapped = Votes(votes.right_B, votes.left_B, 1 - votes.p_left_B, votes.prompt_B, 5)
    order, names = np.random.default_rng(0).permutation(600), np.array([3, 0, 4, 1, 2])
    shuffled = Votes(*(column[order] for column in columns), 5)
    renamed = Votes(names[votes.left_B], names[votes.right_B], votes.p_left_B, votes.prompt_B, 5)
    assert elo(swapped, -d) == pytest.approx(elo(votes, d), abs=1e-6)
    assert elo(shuffled, d[order]) == pytest.approx(elo(votes, d), abs=1e-6)
    assert elo(renamed, d)[names] == pytest.approx(elo(votes, d), abs=1e-6)
    assert elo(votes, d, anchor=3)[3] == 1000

    def low(votes: Votes, d: Floats) -> Floats:
        return bootstrap_length_controlled(votes, d, rng=np.random.default_rng(1), resamples=50).ratings.low_M

    assert low(swapped, -d) == pytest.approx(low(votes, d), abs=1e-6)
    assert low(shuffled, d[order]) == pytest.approx(low(votes, d), abs=1e-6)


def test_groups_that_never_met_have_no_ratings() -> None:
    votes = Votes(np.array([0, 2]), np.array([1, 3]), np.array([1.0, 0.5]), np.arange(2), 4)
    fit = length_controlled_ratings(votes, [0.1, 0.2])
    assert fit.elo_M is None
    assert fit.components == ((0, 1), (2, 3))
    with pytest.raises(ValueError, match="no common scale"):
        bootstrap_length_controlled(votes, [0.1, 0.2], rng=np.random.default_rng(0))


def test_intervals_hold_the_truth_and_the_plain_ones_do_not() -> None:
    inside = naive = length = 0
    for seed in range(30):
        votes, d, theta = planted(seed, m=3, b=400)
        truth = 1000 + ELO_PER_NAT * (theta - theta.mean())
        bounds = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(seed), resamples=200)
        inside += int(np.sum((bounds.ratings.low_M <= truth) & (truth <= bounds.ratings.high_M)))
        length += bounds.low <= 1.0 <= bounds.high
        raw = bootstrap_ratings(votes, rng=np.random.default_rng(seed), resamples=200)
        naive += int(np.sum((raw.low_M <= truth) & (truth <= raw.high_M)))
    assert inside >= 0.9 * 90
    assert length >= 0.85 * 30
    assert naive < 0.5 * 90


def test_equal_lengths_have_the_plain_intervals() -> None:
    votes, d, _ = planted(6, b=400, prompts=80)
    found = bootstrap_length_controlled(votes, 0 * d, rng=np.random.default_rng(3), resamples=200, anchor=1)
    expected = bootstrap_ratings(votes, rng=np.random.default_rng(3), resamples=200, anchor=1)
    assert found.ratings.low_M == pytest.approx(expected.low_M, abs=0.1)
    assert found.ratings.high_M == pytest.approx(expected.high_M, abs=0.1)
    assert np.array_equal(found.ratings.better_MM, expected.better_MM)
    assert (found.low, found.high) == pytest.approx((-6.2, 6.2), abs=1.2), "nothing is known about length: the prior is left"
    assert found.ratings.low_M[1] == found.ratings.high_M[1] == 1000


def test_rounding_lengths_moves_intervals_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, d, _ = planted(7, b=2000)
    rounded = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0), resamples=300)
    monkeypatch.setattr(length_control, "LEVELS", 10_000)
    exact = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0), resamples=300)
    width = exact.ratings.high_M - exact.ratings.low_M
    assert np.all(np.abs(rounded.ratings.low_M - exact.ratings.low_M) < 0.06 * width)
    assert np.all(np.abs(rounded.ratings.high_M - exact.ratings.high_M) < 0.06 * width)
    assert rounded.high - rounded.low == pytest.approx(exact.high - exact.low, rel=0.06)


def test_votes_on_one_prompt_are_not_independent() -> None:
    votes, d, _ = planted(8, m=3, b=200)
    columns = (votes.left_B, votes.right_B, votes.p_left_B, votes.prompt_B)
    often = Votes(*(np.tile(column, 6) for column in columns), 3)
    widths = []
    for given, by in ((votes, d), (often, np.tile(d, 6))):
        bounds = bootstrap_length_controlled(given, by, rng=np.random.default_rng(0), resamples=200)
        widths.append(bounds.ratings.high_M - bounds.ratings.low_M)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_strength_that_cannot_be_told_from_length_is_wide_not_wrong() -> None:
    # Policy 0 writes exactly twice as much as policy 1, always: whether it won by that, nobody can say.
    n = 200
    won = np.array([1.0] * 150 + [0.0] * 50)
    votes = Votes(np.zeros(n), np.ones(n), won, np.arange(n), 2)
    d = np.full(n, 1 / 3)
    mixed = np.where(np.arange(n) % 2, d, -d)
    wide = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0), resamples=200)
    clear = bootstrap_length_controlled(votes, mixed, rng=np.random.default_rng(0), resamples=200)
    assert np.all(np.isfinite(wide.ratings.low_M))
    assert length_controlled_ratings(votes, mixed).elo_M == pytest.approx(plain(votes), abs=15)
    assert clear.ratings.low_M[0] > 1000
    assert wide.ratings.low_M[0] < 1000 < wide.ratings.high_M[0]
    assert wide.ratings.better_MM[0, 1] < 0.9 < clear.ratings.better_MM[0, 1]
    assert wide.low < -2
    assert wide.high > 2


def test_undefeated_and_separated_votes_stay_finite() -> None:
    # The longer text always won, and policy 0 never lost.
    left, right = np.array([0, 0, 1, 1, 2, 2] * 5), np.array([1, 2, 2, 2, 1, 1] * 5)
    d = np.array([0.5, 0.4, 0.2, -0.2, 0.3, -0.3] * 5)
    votes = Votes(left, right, (d > 0).astype(float), np.arange(30), 3)
    fit = length_controlled_ratings(votes, d)
    assert fit.regularised
    assert fit.elo_M is not None
    assert np.all(np.isfinite(fit.elo_M))
    assert fit.coefficient > 1
    bounds = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0), resamples=200)
    assert np.all(np.isfinite([bounds.ratings.low_M, bounds.ratings.high_M]))
    assert np.all(bounds.ratings.low_M < bounds.ratings.high_M)


def test_what_does_not_fit_is_refused() -> None:
    votes, d, _ = planted(0, b=50)
    with pytest.raises(ValueError, match="as many differences"):
        length_controlled_ratings(votes, d[1:])
    with pytest.raises(ValueError, match="between −1 and 1"):
        length_controlled_ratings(votes, d * 100)
    with pytest.raises(ValueError, match="anchor 9"):
        length_controlled_ratings(votes, d, anchor=9)
    with pytest.raises(ValueError, match="at least one resample"):
        bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0), resamples=0)


def test_a_thousand_resamples_of_twenty_thousand_votes_take_a_second_or_two() -> None:
    votes, d, theta = planted(0, m=20, b=20_000, prompts=1000)
    start = time.process_time()
    bounds = bootstrap_length_controlled(votes, d, rng=np.random.default_rng(0))
    assert time.process_time() - start < 4
    truth = 1000 + ELO_PER_NAT * (theta - theta.mean())
    assert np.sum((bounds.ratings.low_M <= truth) & (truth <= bounds.ratings.high_M)) >= 15
