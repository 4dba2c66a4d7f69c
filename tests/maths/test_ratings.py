"""Ratings from several sides: tables worked by hand, a fit by another method, real votes, invariances, coverage."""

from __future__ import annotations

import csv
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.ratings import (
    ELO_PER_NAT,
    Votes,
    best_of_n,
    best_of_n_kl,
    bootstrap_ratings,
    bradley_terry_ratings,
    components,
    elo_to_reward,
    elo_update,
    wilson,
    win_rate,
)

outcomes = st.sampled_from([0.0, 0.5, 1.0])


def elo(wins: object, anchor: int | None = None) -> np.ndarray:
    found = bradley_terry_ratings(wins, anchor=anchor).elo_M
    assert found is not None
    return found


def random_votes(seed: int, m: int = 4, b: int = 400, prompts: int = 100) -> tuple[Votes, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 0.8, m)
    left = rng.integers(m, size=b)
    right = (left + rng.integers(1, m, size=b)) % m
    won = (rng.random(b) < 1 / (1 + np.exp(theta[right] - theta[left]))).astype(float)
    return Votes(left, right, won, np.arange(b) % prompts, m), theta


def ascent(wins: np.ndarray, steps: int = 20_000) -> np.ndarray:
    """Bradley–Terry by plain gradient ascent, with nothing of the module under test."""
    theta = np.zeros(len(wins))
    rate = 2.0 / (wins + wins.T).sum(axis=1).max()
    for _ in range(steps):
        p = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
        theta = theta + rate * (wins - (wins + wins.T) * p).sum(axis=1)
    return theta - theta.mean()


# ------------------------------------------------------------------------------------------------ Bradley–Terry


@pytest.mark.parametrize(("won", "lost"), [(3, 1), (1, 3), (7, 7), (999, 1), (2.5, 0.5), (10**12, 1)])
def test_two_players_closed_form(won: float, lost: float) -> None:
    a, b = elo([[0, won], [lost, 0]])
    assert a - b == pytest.approx(400 * math.log10(won / lost), abs=1e-6)
    assert (a + b) / 2 == pytest.approx(1000)


def test_three_players_by_hand() -> None:
    # Strengths 4 : 2 : 1 expect 2/3, 4/5 and 2/3; with 3, 5 and 3 votes that is exactly 2–1, 4–1 and 2–1.
    a, b, c = elo([[0, 2, 4], [1, 0, 2], [1, 1, 0]])
    assert a - b == pytest.approx(400 * math.log10(2))
    assert b - c == pytest.approx(400 * math.log10(2))


def test_a_circle_of_wins_is_level() -> None:
    assert elo([[0, 5, 0], [0, 0, 5], [5, 0, 0]]) == pytest.approx([1000] * 3)


def test_the_anchor_stands_at_1000() -> None:
    wins = [[0, 2, 4], [1, 0, 2], [1, 1, 0]]
    assert elo(wins, anchor=2) == pytest.approx(elo(wins) - elo(wins)[2] + 1000)
    assert elo(wins, anchor=2)[2] == 1000
    with pytest.raises(ValueError, match="anchor 3"):
        bradley_terry_ratings(wins, anchor=3)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_gradient_ascent(seed: int) -> None:
    wins = random_votes(seed, m=5, b=300)[0].win_matrix()
    assert elo(wins) == pytest.approx(1000 + ELO_PER_NAT * ascent(wins), abs=1e-6)


@pytest.mark.realdata
def test_agrees_with_a_public_implementation_on_real_votes(shared_data: Path) -> None:
    with (shared_data / "llmfao-golden.csv").open() as file:
        scores = {r["item"]: float(r["score"]) for r in csv.DictReader(file) if r["algorithm"] == "bradley_terry"}
    with (shared_data / "llmfao.csv").open() as file:
        rows = list(csv.DictReader(file))
    place = {name: i for i, name in enumerate(scores)}
    votes = Votes(
        np.array([place[r["left"]] for r in rows]),
        np.array([place[r["right"]] for r in rows]),
        np.array([{"left": 1.0, "right": 0.0, "tie": 0.5}[r["winner"]] for r in rows]),
        np.array([int(r["prompt"]) for r in rows]),
        len(scores),
    )
    theirs = np.log(list(scores.values()))
    assert len(scores) == 59
    assert elo(votes.win_matrix()) == pytest.approx(1000 + ELO_PER_NAT * (theirs - theirs.mean()), abs=1e-6)


def test_ties_count_half_and_all_ties_are_level() -> None:
    ties = Votes(np.array([0, 1, 2]), np.array([1, 2, 0]), np.array([0.5] * 3), np.arange(3), 3)
    assert ties.win_matrix().tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    fit = bradley_terry_ratings(ties.win_matrix())
    assert fit.elo_M == pytest.approx([1000] * 3)
    assert not fit.regularised


def test_undefeated_is_finite_ahead_and_said_so() -> None:
    fit = bradley_terry_ratings([[0, 10, 4], [0, 0, 3], [0, 3, 0]])
    assert fit.regularised
    assert fit.elo_M is not None
    assert np.all(np.isfinite(fit.elo_M))
    assert fit.elo_M[0] > max(fit.elo_M[1:]) + 100
    more = bradley_terry_ratings([[0, 100, 40], [0, 0, 30], [0, 30, 0]])
    assert more.elo_M is not None
    assert more.elo_M[0] - more.elo_M[1] > fit.elo_M[0] - fit.elo_M[1], "more wins without a loss say more"


def test_the_prior_is_the_documented_one() -> None:
    (a, b), d = elo([[0, 10], [0, 0]]), 0.0
    for _ in range(10_000):  # gradient of 10·log σ(d) − 0.1/2·2·(d/2)², in d
        d += 0.1 * (10 / (1 + math.exp(d)) - 0.05 * d)
    assert a - b == pytest.approx(ELO_PER_NAT * d, abs=1e-6)


def test_an_undefeated_group_is_noticed_though_everybody_won_and_lost() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = wins[0, 2] = 1
    assert bradley_terry_ratings(wins).regularised
    wins[3, 1] = 1
    assert not bradley_terry_ratings(wins).regularised


def test_disconnected_groups_have_no_ratings() -> None:
    wins = np.zeros((5, 5))
    wins[0, 3] = wins[3, 0] = wins[1, 2] = 2
    fit = bradley_terry_ratings(wins)
    assert fit.elo_M is None
    assert fit.components == components(wins) == ((0, 3), (1, 2), (4,))


def test_a_chain_connects_policies_that_never_met() -> None:
    m = 17
    wins = np.diag([2.0] * (m - 1), 1) + np.diag([1.0] * (m - 1), -1)
    assert components(wins) == (tuple(range(m)),)
    assert np.diff(elo(wins)) == pytest.approx([-400 * math.log10(2)] * (m - 1))


@given(st.permutations(range(4)), st.integers(0, 5))
def test_relabelling_the_policies_relabels_the_ratings(order: list[int], seed: int) -> None:
    wins = random_votes(seed)[0].win_matrix()
    assert elo(wins[np.ix_(order, order)]) == pytest.approx(elo(wins)[order], abs=1e-6)


@given(st.randoms(use_true_random=False))
def test_the_order_of_games_and_sides_does_not_matter(random: object) -> None:
    votes, _ = random_votes(1)
    order = list(range(len(votes.p_left_B)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed = Votes(votes.right_B[order], votes.left_B[order], 1 - votes.p_left_B[order], votes.prompt_B[order], votes.n_policies)
    assert np.array_equal(mixed.win_matrix(), votes.win_matrix())


@given(st.integers(2, 6), st.data())
def test_any_table_of_votes_gives_finite_ratings_or_none(m: int, data: st.DataObject) -> None:
    pairs = list(itertools.permutations(range(m), 2))
    wins = np.zeros((m, m))
    for i, j in pairs:
        wins[i, j] = data.draw(st.sampled_from([0, 0, 0.5, 1, 30, 1000]))
    fit = bradley_terry_ratings(wins)
    assert (fit.elo_M is None) == (len(fit.components) > 1)
    if fit.elo_M is not None:
        assert np.all(np.isfinite(fit.elo_M))
        assert fit.elo_M.mean() == pytest.approx(1000)


@pytest.mark.parametrize(
    "wins",
    [[[0, 1]], [[0, -1], [1, 0]], [[1, 1], [1, 0]], [[0, math.nan], [1, 0]], np.zeros((0, 0)), [[0, math.inf], [1, 0]]],
)
def test_a_bad_table_is_refused(wins: object) -> None:
    with pytest.raises(ValueError):
        bradley_terry_ratings(wins)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (([0], [2], [1.0], [0]), "outside"),
        (([-1], [1], [1.0], [0]), "outside"),
        (([1], [1], [1.0], [0]), "itself"),
        (([0], [1], [1.5], [0]), "probability"),
        (([0], [1], [math.nan], [0]), "probability"),
        (([0, 1], [1, 0], [1.0], [0, 0]), "one length"),
    ],
)
def test_bad_votes_are_refused(columns: tuple[list[float], ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Votes(*map(np.array, columns), n_policies=2)


# ---------------------------------------------------------------------------------------------------- intervals


def duel(won: list[float], prompts: list[int]) -> Votes:
    n = len(won)
    return Votes(np.zeros(n, int), np.ones(n, int), np.array(won), np.array(prompts), 2)


def width(votes: Votes) -> float:
    bounds = bootstrap_ratings(votes, rng=np.random.default_rng(0))
    return float(bounds.high_M[0] - bounds.low_M[0])


def test_rating_intervals_cover_the_truth_95_times_in_100() -> None:
    # Three votes on each prompt share its leaning towards policy 0, so they are worth less than three.
    inside, n, truth = 0, 40, 0.7
    for seed in range(200):
        rng = np.random.default_rng(seed)
        leaning = rng.beta(3 * truth, 3 * (1 - truth), size=n)
        won = (rng.random((n, 3)) < leaning[:, None]).astype(float).ravel()
        bounds = bootstrap_ratings(duel(won.tolist(), np.repeat(np.arange(n), 3).tolist()), rng=rng, resamples=200)
        inside += bool(bounds.low_M[0] <= 1000 + 200 * math.log10(truth / (1 - truth)) <= bounds.high_M[0])
    assert 180 <= inside <= 198  # 95 % ± 4 standard errors, rounded


def test_win_rate_intervals_cover_and_those_that_ignore_prompts_do_not() -> None:
    inside = naive = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        leaning = rng.beta(2.1, 0.9, size=40)
        won = (rng.random((40, 3)) < leaning[:, None]).astype(float).ravel()
        rate = win_rate(won, np.repeat(np.arange(40), 3).tolist(), resamples=300)
        inside += rate.low <= 0.7 <= rate.high
        naive += win_rate(won).low <= 0.7 <= win_rate(won).high
    assert 180 <= inside <= 198
    assert naive < inside - 5


def test_repeating_a_vote_on_its_prompt_does_not_shrink_the_interval() -> None:
    won, prompts = [1.0] * 20 + [0.0] * 10, list(range(30))
    assert width(duel(won * 10, prompts * 10)) == pytest.approx(width(duel(won, prompts)), rel=1e-9)
    # The same 300 votes on 300 prompts are 300 independent facts.
    assert width(duel(won * 10, list(range(300)))) < 0.5 * width(duel(won, prompts))
    once, often = win_rate(won, prompts), win_rate(won * 10, prompts * 10)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.02)
    assert often.n == 300


@pytest.mark.parametrize("copies", [1, 10])
def test_an_undefeated_policy_has_a_wide_interval_not_a_point(copies: int) -> None:
    votes = duel([1.0] * 10 * copies, list(range(10)) * copies)
    bounds = bootstrap_ratings(votes, rng=np.random.default_rng(0))
    # Jeffreys' interval of 10 out of 10 is [0.783, 1.000]: between 111 points above the mean of two, and far above.
    assert bounds.low_M[0] == pytest.approx(1000 + 200 * math.log10(0.783 / 0.217), abs=25)
    assert bounds.high_M[0] > 1400
    assert bounds.better_MM[0, 1] > 0.99


def test_bootstrap_is_anchored_reproducible_and_refuses_what_is_not_comparable() -> None:
    votes, _ = random_votes(3)
    first, again = (bootstrap_ratings(votes, rng=np.random.default_rng(7), resamples=50, anchor=1) for _ in range(2))
    assert np.array_equal(first.low_M, again.low_M)
    assert first.low_M[1] == first.high_M[1] == 1000
    assert np.all(first.better_MM + first.better_MM.T == 1)
    apart = Votes(np.array([0, 2]), np.array([1, 3]), np.array([1.0, 1.0]), np.arange(2), 4)
    with pytest.raises(ValueError, match="no common scale"):
        bootstrap_ratings(apart, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one resample"):
        bootstrap_ratings(votes, rng=np.random.default_rng(0), resamples=0)


def test_a_policy_met_on_one_prompt_is_uncertain_not_missing() -> None:
    left, right = np.array([0] * 30 + [0]), np.array([1] * 30 + [2])
    won = np.array([1.0, 0.0] * 15 + [1.0])
    bounds = bootstrap_ratings(Votes(left, right, won, np.arange(31), 3), rng=np.random.default_rng(0), anchor=0)
    assert np.all(np.isfinite(bounds.low_M))
    assert bounds.high_M[2] - bounds.low_M[2] > 2 * (bounds.high_M[1] - bounds.low_M[1])
    assert bounds.better_MM[2, 0] < 0.5


def test_a_thousand_resamples_of_twenty_thousand_votes_take_seconds() -> None:
    votes, theta = random_votes(0, m=20, b=20_000, prompts=20_000)
    start = time.process_time()
    bounds = bootstrap_ratings(votes, rng=np.random.default_rng(0))
    assert time.process_time() - start < 3
    truth = 1000 + ELO_PER_NAT * (theta - theta.mean())
    assert np.sum((bounds.low_M <= truth) & (truth <= bounds.high_M)) >= 15


def test_wilson_against_the_table() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for won, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(won / n, n) == pytest.approx((low, high), abs=5e-5)
    with pytest.raises(ValueError, match="at least one vote"):
        wilson(0.5, 0)


@pytest.mark.parametrize("clusters", [None, list(range(10))])
def test_ten_wins_of_ten_do_not_prove_certainty(clusters: list[int] | None) -> None:
    rate = win_rate([1] * 10, clusters)
    assert rate == pytest.approx((1.0, 0.7225, 1.0, 10), abs=1e-4)


def test_one_prompt_says_almost_nothing_however_often_it_is_read() -> None:
    rate = win_rate([1] * 50, ["same"] * 50)
    assert rate.low < 0.25
    split = win_rate([1, 0] * 25, ["same"] * 50)
    assert split.high - split.low > 0.8


@given(st.lists(st.tuples(outcomes, st.integers(0, 5)), min_size=1, max_size=40))
def test_win_rates_of_the_two_sides_mirror(votes: list[tuple[float, int]]) -> None:
    won, prompts = [v for v, _ in votes], [p for _, p in votes]
    ours, theirs = win_rate(won, prompts, resamples=50), win_rate([1 - v for v in won], prompts, resamples=50)
    assert ours.mean + theirs.mean == pytest.approx(1)
    assert theirs == pytest.approx(ours.swap())
    assert 0 <= ours.low <= ours.mean <= ours.high <= 1
    assert ours.low < ours.high


def test_bad_outcomes_are_refused() -> None:
    for won, prompts in (([], None), ([2.0], None), ([math.nan], None), ([1.0, 0.0], [1])):
        with pytest.raises(ValueError):
            win_rate(won, prompts)


# ---------------------------------------------------------------------------------------------- Elo and best-of-n


def test_elo_update_by_hand() -> None:
    assert elo_update(1000, 1000, 1.0, k=32) == (1016, 984)
    a, b = elo_update(1400, 1000, 0.0, k=11)  # the favourite (10 to 1) loses: 10/11 of k changes hands
    assert (a, b) == pytest.approx((1390, 1010))
    with pytest.raises(ValueError, match="between 0 and 1"):
        elo_update(1000, 1000, 2.0)


@given(st.floats(0, 3000), st.floats(0, 3000), outcomes)
def test_elo_update_keeps_the_sum_and_has_no_sides(a: float, b: float, score: float) -> None:
    after, mirrored = elo_update(a, b, score), elo_update(b, a, 1 - score)
    assert sum(after) == pytest.approx(a + b)
    assert after == pytest.approx((mirrored.b, mirrored.a))


def test_elo_as_reward_predicts_the_chance_of_winning() -> None:
    reward = elo_to_reward([1400, 1000, 900])
    assert reward.mean() == pytest.approx(0)
    assert 1 / (1 + math.exp(reward[1] - reward[0])) == pytest.approx(10 / 11)


def test_best_of_n_kl_values() -> None:
    assert best_of_n_kl(1) == 0
    assert [best_of_n_kl(n) for n in (2, 16, 64, 256)] == pytest.approx([0.193, 1.835, 3.175, 4.549], abs=5e-4)
    with pytest.raises(ValueError, match="starts at 1"):
        best_of_n_kl(0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(n)
    proxy, gold = rng.normal(size=6), rng.normal(size=6)
    subsets = [max(subset, key=lambda i: proxy[i]) for subset in itertools.combinations(range(6), n)]
    assert best_of_n(proxy, gold, n) == pytest.approx(np.mean(gold[subsets]))


def test_best_of_n_shares_ties_and_does_not_depend_on_order() -> None:
    assert best_of_n([1, 1, 0], [3, 5, 0], 3) == best_of_n([1, 1, 0], [5, 3, 0], 3) == 4
    assert best_of_n([0, 2, 1], [0, 7, 3], 2) == pytest.approx((7 + 7 + 3) / 3)
    assert best_of_n(np.zeros(2000), np.arange(2000.0), 700) == pytest.approx(999.5)
    for proxy, gold, n in (([1], [1, 2], 1), ([1, 2], [1, 2], 3), ([1, 2], [1, 2], 0)):
        with pytest.raises(ValueError):
            best_of_n(proxy, gold, n)
