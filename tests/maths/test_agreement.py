"""Coefficients of agreement from several sides: published tables, tables by hand, invariances, what they reduce to, coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.agreement import (
    NO_OVERLAP,
    ONE_CATEGORY,
    Alpha,
    Distance,
    Tally,
    agreement_weights,
    cohen_kappa,
    gwet_ac,
    krippendorff_alpha,
    percent_agreement,
    tally,
)

NAN = math.nan
DISTANCES: tuple[Distance, ...] = ("nominal", "ordinal", "interval")

# Krippendorff 2011, part D: four observers, twelve units, some answers missing. Gwet 2014 uses the same table.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def two_raters(table: list[list[int]]) -> np.ndarray:
    """Answers (U, 2) that make a contingency table of the first rater's categories by the second's."""
    return np.array([(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)], dtype=float)


# Gwet 2014: two abstractors, 100 subjects, three categories.
ABSTRACTORS = two_raters([[13, 0, 0], [0, 20, 7], [0, 4, 56]])


def alpha(answers: object, distance: Distance = "nominal", resamples: int = 200) -> Alpha:
    return krippendorff_alpha(answers, distance, rng=np.random.default_rng(0), resamples=resamples)


def slow_alpha(answers: np.ndarray, distance: Distance) -> float:
    """α by its definition with loops over pairs of answers, and nothing of the module under test."""
    units = [[float(x) for x in row if not math.isnan(x)] for row in answers]
    units = [unit for unit in units if len(unit) > 1]
    pooled = sorted(x for unit in units for x in unit)

    def squared(a: float, b: float) -> float:
        if distance == "nominal":
            return float(a != b)
        if distance == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = sum(low <= x <= high for x in pooled)
        return 0.0 if a == b else (between - (pooled.count(a) + pooled.count(b)) / 2) ** 2

    observed = sum(
        sum(squared(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(pooled)  # fmt: skip
    expected = sum(squared(a, b) for a, b in itertools.permutations(pooled, 2)) / (len(pooled) * (len(pooled) - 1))
    return 1 - observed / expected


# ------------------------------------------------------------------------------------------------ published tables


@pytest.mark.parametrize(("distance", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_worked_example(distance: Distance, published: float) -> None:
    found = alpha(OBSERVERS, distance)
    assert found.value == pytest.approx(published, abs=5e-4)
    assert (found.n_units, found.n_pairs, found.why) == (11, 55, "")
    assert found.low < found.value < found.high
    assert alpha(tally(OBSERVERS), distance).value == pytest.approx(found.value, abs=1e-12)


def test_krippendorffs_two_observers() -> None:
    # Krippendorff 2011, parts A and B: binary data of two observers, ten units (0.095); five categories, twelve units (0.692).
    binary = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]).T
    assert alpha(binary).value == pytest.approx(0.095, abs=5e-4)
    letters = np.array([[1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1], [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]]).T
    assert alpha(letters).value == pytest.approx(0.692, abs=5e-4)


def test_gwets_two_abstractors() -> None:
    # Published with the variance's n where ours has n − 1, and for α and κ by the same author's formulas.
    as_published = math.sqrt(1 - 1 / 100)
    ac1, kappa, raw = gwet_ac(ABSTRACTORS), cohen_kappa(*ABSTRACTORS.T), percent_agreement(ABSTRACTORS)
    assert ac1.value == pytest.approx(0.8493305, abs=5e-8)
    assert ac1.se * as_published == pytest.approx(0.04321747, abs=5e-9)
    assert kappa.value == pytest.approx(0.7964094, abs=5e-8)
    assert kappa.se * as_published == pytest.approx(0.05891072, abs=5e-9)
    assert raw.value == pytest.approx(0.89)
    assert raw.se * as_published == pytest.approx(0.03128898, abs=5e-9)
    assert alpha(ABSTRACTORS).value == pytest.approx(0.7972585, abs=5e-8)


def test_gwets_four_raters_with_missing_answers() -> None:
    assert gwet_ac(OBSERVERS).value == pytest.approx(0.77544, abs=5e-6)
    assert percent_agreement(OBSERVERS).value == pytest.approx(9 / 11)
    # The Handbook's standard error counts the chance of a unit with one answer as well; by hand it is 0.14295, ours is less.
    counts = tally(OBSERVERS).counts_UC
    m, n = counts.sum(axis=1), len(counts)
    p_a = np.where(m > 1, (counts * (counts - 1)).sum(axis=1) / np.maximum(m * (m - 1), 1), 0)
    share = counts / m[:, None]
    pi = share.mean(axis=0)
    p_e = (pi * (1 - pi)).sum() / 4
    value = (p_a[m > 1].mean() - p_e) / (1 - p_e)
    per_unit = n / (m > 1).sum() * (p_a - p_e * (m > 1)) / (1 - p_e)
    per_unit -= 2 * (1 - value) * ((share @ (1 - pi)) / 4 - p_e) / (1 - p_e)
    assert math.sqrt(((per_unit - value) ** 2).sum() / (n * (n - 1))) == pytest.approx(0.14295, abs=5e-6)
    assert 0.10 < gwet_ac(OBSERVERS).se < 0.14295


@pytest.mark.parametrize("weights", ["identity", "ordinal", "quadratic"])
def test_the_standard_error_is_that_of_the_jackknife(weights: str) -> None:
    rng = np.random.default_rng(2)
    answers = rng.integers(0, 3, (400, 3)).astype(float)
    answers[:, 1] = np.where(rng.random(400) < 0.5, answers[:, 0], answers[:, 1])
    answers[rng.random(answers.shape) < 0.4] = NAN
    answers = answers[~np.isnan(answers).all(axis=1)]
    found = gwet_ac(answers, weights)
    without = np.array([gwet_ac(np.delete(answers, i, axis=0), weights).value for i in range(len(answers))])
    jackknife = math.sqrt((len(answers) - 1) / len(answers) * ((without - without.mean()) ** 2).sum())
    assert found.se == pytest.approx(jackknife, rel=0.03)


def test_gwets_weights() -> None:
    third = 2 / 3
    assert agreement_weights(3, "ordinal") == pytest.approx(np.array([[1, third, 0], [third, 1, third], [0, third, 1]]))
    assert agreement_weights(3, "linear")[0] == pytest.approx([1, 0.5, 0])
    assert agreement_weights(3, "quadratic")[0] == pytest.approx([1, 0.75, 0])
    assert agreement_weights(4, "ordinal")[0] == pytest.approx([1, 5 / 6, 0.5, 0])
    assert np.array_equal(agreement_weights(2, "identity"), np.eye(2))
    with pytest.raises(ValueError, match="unknown weights 'cubic'"):
        agreement_weights(3, "cubic")


# ------------------------------------------------------------------------------------------------ by hand


def test_ac1_by_hand() -> None:
    # Two raters, categories 0 and 1: 40 both 0, 9 and 1 split, 0 both 1. p_a = 0.8, π_0 = 0.9, p_e = 2·0.9·0.1 = 0.18.
    table = two_raters([[40, 9], [1, 0]])
    assert percent_agreement(table).value == pytest.approx(0.8)
    assert gwet_ac(table).value == pytest.approx((0.8 - 0.18) / 0.82)
    # κ of the same table is below chance: what Gwet's coefficient is for.
    p_e = (49 * 41 + 1 * 9) / 50**2
    assert cohen_kappa(*table.T).value == pytest.approx((0.8 - p_e) / (1 - p_e))
    assert cohen_kappa(*table.T).value < 0 < 0.75 < gwet_ac(table).value


def test_alpha_by_hand() -> None:
    # Units (0,0), (0,1), (1,1): n = 6, n_0 = n_1 = 3, o_01 = 1, so α = 1 − 5·2/(2·9).
    assert alpha([[0, 0], [0, 1], [1, 1]]).value == pytest.approx(1 - 10 / 18)
    # Three answers to a unit weigh 1/(3−1) each: (0,0,1) gives o_01 = 1, and with (1,1): n = 5, n_0 = 2, n_1 = 3.
    assert alpha([[0, 0, 1], [1, 1, NAN]]).value == pytest.approx(1 - 4 * 2 / (2 * 6))


def test_ac2_forgives_near_misses() -> None:
    near, far = [[0, 1], [1, 2], [2, 2], [0, 0]], [[0, 2], [0, 2], [1, 1], [1, 1]]
    assert gwet_ac(near, "ordinal").value > gwet_ac(near).value
    assert gwet_ac(far, "ordinal").value < gwet_ac(near, "ordinal").value
    # Mean weight of (0,1), (1,2), (2,2), (0,0) is (2/3 + 2/3 + 1 + 1)/4; π = (3/8, 2/8, 3/8); T_w = 3 + 4·2/3.
    p_a, p_e = 5 / 6, (3 + 8 / 3) / 6 * (2 * 15 / 64 + 12 / 64)
    assert gwet_ac(near, "ordinal").value == pytest.approx((p_a - p_e) / (1 - p_e))


# ------------------------------------------------------------------------------------------------ undefined is not 1


@pytest.mark.parametrize("answers", [np.zeros((0, 3)), [[0, NAN], [NAN, 1]], [[NAN, NAN]], np.zeros((3, 0))])
def test_without_overlap_nothing_is_defined(answers: object) -> None:
    for distance in DISTANCES:
        assert alpha(answers, distance) == Alpha(None, None, None, 0, 0, NO_OVERLAP)
    for found in (gwet_ac(answers), percent_agreement(answers)):
        assert (found.value, found.low, found.high, found.se, found.why) == (None, None, None, None, NO_OVERLAP)
    assert cohen_kappa([0, NAN], [NAN, 1]).why == NO_OVERLAP


def test_unanimous_answers_of_one_category_are_undefined_and_not_perfect() -> None:
    same = np.full((50, 3), 2.0)
    for distance in DISTANCES:
        assert alpha(same, distance) == Alpha(None, None, None, 50, 150, ONE_CATEGORY)
    assert gwet_ac(same)[:4] == (None, None, None, None)
    assert gwet_ac(same).why == cohen_kappa(same[:, 0], same[:, 1]).why == ONE_CATEGORY
    assert percent_agreement(same).value == 1.0
    # A second category that stands alone on a unit tells α nothing; Gwet's coefficient does see it.
    alone = np.vstack([same, [[1.0, NAN, NAN]]])
    assert alpha(alone).why == ONE_CATEGORY
    assert gwet_ac(alone).value == pytest.approx(1.0)


def test_rounding_is_no_disagreement_among_equal_numbers() -> None:
    assert alpha(np.full((40, 3), 0.1), "interval").why == ONE_CATEGORY
    assert alpha(np.full((40, 3), 1e9 + 0.1), "interval").why == ONE_CATEGORY


# ------------------------------------------------------------------------------------------------ invariances


def random_answers(seed: int, units: int = 30, raters: int = 4, categories: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(categories, size=(units, 1))
    answers = np.where(rng.random((units, raters)) < 0.5, truth, rng.integers(categories, size=(units, raters))).astype(float)
    answers[rng.random(answers.shape) < 0.3] = NAN
    return answers


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distance", DISTANCES)
def test_alpha_agrees_with_loops_over_pairs(seed: int, distance: Distance) -> None:
    answers = random_answers(seed, categories=2 + seed) ** 2
    assert alpha(answers, distance).value == pytest.approx(slow_alpha(answers, distance), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_order_and_names_do_not_matter(seed: int) -> None:
    answers, rng = random_answers(seed), np.random.default_rng(seed)
    moved = answers[rng.permutation(30)][:, rng.permutation(4)]
    renamed = np.select([answers == 0, answers == 1, answers == 2], [7.0, -3.0, 1.0], NAN)
    for distance in DISTANCES:
        assert alpha(moved, distance).value == pytest.approx(alpha(answers, distance).value, abs=1e-12)
    assert alpha(renamed).value == pytest.approx(alpha(answers).value, abs=1e-12)
    assert alpha(renamed, "ordinal").value != pytest.approx(alpha(answers, "ordinal").value, abs=1e-3)
    assert alpha(2 * answers - 9, "interval").value == pytest.approx(alpha(answers, "interval").value, abs=1e-12)
    assert alpha(np.exp(answers), "ordinal").value == pytest.approx(alpha(answers, "ordinal").value, abs=1e-12)
    for coefficient in (gwet_ac, percent_agreement):
        assert coefficient(moved)[:4] == pytest.approx(coefficient(answers)[:4], abs=1e-12)
        assert coefficient(renamed)[:4] == pytest.approx(coefficient(answers)[:4], abs=1e-12)
    assert cohen_kappa(*answers[:, :2].T)[:4] == pytest.approx(cohen_kappa(*renamed[:, 1::-1].T)[:4], abs=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_interval_alpha_does_not_know_the_unit(scale: float) -> None:
    answers = np.random.default_rng(5).normal(size=(40, 1)) + np.random.default_rng(6).normal(size=(40, 3))
    assert alpha(scale * answers + 5 * scale, "interval")[:3] == pytest.approx(alpha(answers, "interval")[:3], abs=1e-6)


def test_two_categories_have_one_alpha() -> None:
    answers = random_answers(0, categories=2)
    nominal = alpha(answers).value
    assert alpha(answers, "ordinal").value == pytest.approx(nominal)
    assert alpha(answers, "interval").value == pytest.approx(nominal)
    assert gwet_ac(answers, "ordinal")[:4] == pytest.approx(gwet_ac(answers)[:4])


@pytest.mark.parametrize("seed", range(3))
def test_alpha_of_two_raters_is_scotts_pi_with_a_small_sample_correction(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(3, size=(2, 60)).astype(float)
    pooled = np.array([((a == c).sum() + (b == c).sum()) / 120 for c in range(3)])
    pi = ((a == b).mean() - (pooled**2).sum()) / (1 - (pooled**2).sum())
    assert alpha(np.stack([a, b], axis=1)).value == pytest.approx(1 - (1 - pi) * 119 / 120)
    # And Gwet's coefficient of two raters and two categories is the one with p_e = 2π(1−π).
    a, b = np.minimum(a, 1), np.minimum(b, 1)
    share = (a.sum() + b.sum()) / 120
    p_e = 2 * share * (1 - share)
    assert gwet_ac(np.stack([a, b], axis=1)).value == pytest.approx(((a == b).mean() - p_e) / (1 - p_e))


tables = st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), min_size=3, max_size=3), min_size=1, max_size=8)


@given(tables, st.sampled_from(DISTANCES))
def test_alpha_is_one_exactly_when_all_agree_on_two_categories_or_more(table: list[list[float]], distance: Distance) -> None:
    answers = np.array(table)
    found = alpha(answers, distance, resamples=20)
    units = [row[~np.isnan(row)] for row in answers if (~np.isnan(row)).sum() > 1]
    used = set(np.concatenate([np.zeros(0), *units]))
    assert (found.value is None) == (len(used) < 2)
    assert found.n_units == len(units)
    if found.value is not None:
        perfect = all(len(set(unit)) == 1 for unit in units)
        assert -1 <= found.low <= found.value <= found.high <= 1 + 1e-12
        assert (found.value > 1 - 1e-9) == perfect
        assert found.low < 1
        assert found.value == pytest.approx(slow_alpha(answers, distance), abs=1e-9)


@given(tables)
def test_the_other_coefficients_stay_in_their_bounds(table: list[list[float]]) -> None:
    answers = np.array(table)
    for found in (gwet_ac(answers), gwet_ac(answers, "ordinal"), percent_agreement(answers), cohen_kappa(*answers[:, :2].T)):
        assert (found.value is None) == bool(found.why)
        if found.value is not None:
            assert found.low <= found.value + 1e-12
            assert found.value <= found.high + 1e-12 <= 1 + 2e-12
            assert found.low < found.high


# ------------------------------------------------------------------------------------------------ intervals


def test_a_few_answers_that_all_agree_are_no_certainty() -> None:
    answers = np.repeat([[0.0], [1.0]], 5, axis=0) * np.ones(2)
    # Wilson: none of ten is no more than 0.278; D_e is 2·10·10/(20·19).
    assert alpha(answers) == pytest.approx((1.0, 1 - 0.27753 / (200 / 380), 1.0, 10, 10, ""), abs=1e-4)
    assert gwet_ac(answers)[:3] == pytest.approx((1.0, (0.72247 - 0.5) / 0.5, 1.0), abs=1e-4)
    assert percent_agreement(answers)[:3] == pytest.approx((1.0, 0.72247, 1.0), abs=1e-4)
    many = np.repeat(answers, 100, axis=0)
    assert alpha(many).low > 0.99


def test_more_units_narrow_the_interval_and_the_generator_decides_it() -> None:
    few, many = random_answers(0, units=40), random_answers(0, units=4000)
    narrow, wide = alpha(many), alpha(few)
    assert (narrow.high - narrow.low) < (wide.high - wide.low) / 5
    assert alpha(few) == alpha(few)
    other = krippendorff_alpha(few, rng=np.random.default_rng(1), resamples=200)
    assert other.value == wide.value
    assert other.low == pytest.approx(wide.low, abs=0.1)


def test_copies_within_a_cluster_tell_nothing_new() -> None:
    answers = random_answers(3, units=60)
    once = tally(answers)
    copied = Tally(np.tile(once.counts_UC, (5, 1)), once.values_C, np.tile(np.arange(60), 5))
    alone = Tally(copied.counts_UC, once.values_C)
    for coefficient in (gwet_ac, percent_agreement):
        assert coefficient(copied)[:4] == pytest.approx(coefficient(once)[:4], rel=1e-9)
        assert coefficient(alone).se < coefficient(copied).se / 2
    for distance in DISTANCES:
        clustered, plain, split = (alpha(x, distance, resamples=2000) for x in (copied, once, alone))
        assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=0.15)
        assert split.high - split.low < (clustered.high - clustered.low) * 0.6


@pytest.mark.parametrize(("accuracy", "prior"), [(0.0, 0.45), (0.5, 0.45), (0.9, 0.45), (0.9, 0.85)])
def test_intervals_hold_the_truth_nearly_as_often_as_they_say(accuracy: float, prior: float) -> None:
    rng = np.random.default_rng(7)
    p = [prior, 0.95 - prior, 0.05]

    def draw(units: int) -> np.ndarray:
        truth = rng.choice(3, units, p=p)
        answers = np.where(rng.random((units, 2)) < accuracy, truth[:, None], rng.choice(3, (units, 2), p=p)).astype(float)
        answers[units // 2 :, 1] = NAN  # half the units have one answer
        return answers

    large = draw(100_000)
    truths = [krippendorff_alpha(large, rng=rng, resamples=1).value, gwet_ac(large).value, percent_agreement(large).value]
    held, tried = np.zeros(3), 0
    while tried < 100:
        answers = draw(60)
        found = [krippendorff_alpha(answers, rng=rng, resamples=200), gwet_ac(answers), percent_agreement(answers)]
        if found[0].value is not None:  # of answers that are nearly always the same, a few samples hold one category only
            held += [f.low <= truth <= f.high for f, truth in zip(found, truths, strict=True)]
            tried += 1
    assert np.all(held >= 89)  # of 95 expected, less three standard deviations


def test_the_bootstrap_is_the_plain_one_over_units() -> None:
    answers = random_answers(1, units=200)
    rng = np.random.default_rng(3)
    plain = [alpha(answers[rng.integers(200, size=200)], resamples=1).value for _ in range(400)]
    found = alpha(answers, resamples=4000)
    assert found.low == pytest.approx(np.percentile(plain, 2.5), abs=0.04)
    assert found.high == pytest.approx(np.percentile(plain, 97.5), abs=0.04)


# ------------------------------------------------------------------------------------------------ refused


def test_what_makes_no_sense_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="array of units and raters"):
        tally([1, 2])
    with pytest.raises(ValueError, match="infinite"):
        krippendorff_alpha([[1.0, math.inf]], "interval", rng=rng)
    with pytest.raises(ValueError, match="unknown distance 'ratio'"):
        krippendorff_alpha([[1, 2]], "ratio", rng=rng)
    with pytest.raises(ValueError, match="at least one resample"):
        krippendorff_alpha([[1, 2]], rng=rng, resamples=0)
    with pytest.raises(ValueError, match="100 ordinal categories"):
        krippendorff_alpha(np.repeat(np.arange(100.0), 2).reshape(-1, 2), "ordinal", rng=rng)
    with pytest.raises(ValueError, match="one length"):
        cohen_kappa([1, 2], [1])
    with pytest.raises(ValueError, match="do not fit"):
        Tally(np.ones((2, 3)), np.arange(2.0))
    with pytest.raises(ValueError, match="ascending"):
        Tally(np.ones((2, 2)), np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="2 units but the clusters"):
        Tally(np.ones((2, 2)), np.arange(2.0), np.arange(3))
