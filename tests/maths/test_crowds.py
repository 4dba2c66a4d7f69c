"""Dawid–Skene and the one-coin model: planted raters are found again, trivial cases are majority votes, EM only ever climbs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from backflip.maths.crowds import dawid_skene, one_coin

# Dawid & Skene 1979, table 1: 45 patients, five anaesthetists, of whom the first saw each patient three times; grades 1 to 4.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3|232 2 2 2 3
444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2
222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1
111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def patients() -> dict[str, Any]:
    rows = [
        (unit, rater, int(grade) - 1)
        for unit, patient in enumerate(PATIENTS.replace("\n", "|").strip("|").split("|"))
        for rater, grades in enumerate(patient.split())
        for grade in grades
    ]
    unit, rater, category = zip(*rows, strict=True)
    return {"unit_N": unit, "rater_N": rater, "category_N": category, "n_units": 45, "n_raters": 5, "n_categories": 4}


def simulated(
    seed: int, confusion_RCC: np.ndarray, prior: list[float], units: int, answers: int
) -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(seed)
    r, c, _ = confusion_RCC.shape
    truth = rng.choice(c, size=units, p=prior)
    unit = np.repeat(np.arange(units), answers)
    rater = np.concatenate([rng.choice(r, answers, replace=False) for _ in range(units)])
    bound = confusion_RCC[rater, truth[unit]].cumsum(axis=1)
    category = (rng.random(len(unit))[:, None] > bound[:, :-1]).sum(axis=1)
    sizes = {"n_units": units, "n_raters": r, "n_categories": c}
    return {"unit_N": unit, "rater_N": rater, "category_N": category, **sizes}, truth


def slow_em(data: dict[str, Any], rounds: int, smoothing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dawid–Skene with loops, every unit by itself: posterior, confusion, prior after so many rounds."""
    u, r, c = data["n_units"], data["n_raters"], data["n_categories"]
    rows = list(zip(data["unit_N"], data["rater_N"], data["category_N"], strict=True))
    q = np.zeros((u, c))
    for unit, _, category in rows:
        q[unit, category] += 1
    q = np.where(q.sum(axis=1, keepdims=True) > 0, q / np.maximum(q.sum(axis=1, keepdims=True), 1), 1 / c)
    for _ in range(rounds):
        confusion = np.full((r, c, c), smoothing)
        for unit, rater, category in rows:
            confusion[rater, :, category] += q[unit]
        confusion /= confusion.sum(axis=2, keepdims=True)
        prior = (q.sum(axis=0) + smoothing) / (u + c * smoothing)
        q = np.tile(prior, (u, 1))
        for unit, rater, category in rows:
            q[unit] *= confusion[rater, :, category]
        q /= q.sum(axis=1, keepdims=True)
    return q, confusion, prior


# ------------------------------------------------------------------------------------------------ Dawid–Skene


def test_the_anaesthetists_of_1979() -> None:
    # Their table 4 (no smoothing): class shares 0.40, 0.42, 0.11, 0.07, and patient by patient a clear grade for nearly all.
    found = dawid_skene(**patients(), smoothing=1e-6, tolerance=1e-9, limit=1000)
    assert found.converged
    assert found.prior_C == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.01)
    grades = found.posterior_UC.argmax(axis=1) + 1
    assert [int(grades[i]) for i in (0, 1, 10, 12)] == [1, 4, 4, 1]
    assert (found.posterior_UC.max(axis=1) > 0.95).sum() >= 40
    # Table 2 there: the first of them, given a patient of grade 1, says 1 in 89 of 100 cases and 2 in 11.
    assert found.confusion_RCC[0, 0] == pytest.approx([0.89, 0.11, 0, 0], abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed: int) -> None:
    confusion = np.random.default_rng(seed).dirichlet(np.ones(3), size=(4, 3))
    data, _ = simulated(seed, confusion, [0.5, 0.2, 0.3], units=30, answers=3)
    data["n_units"] += 2  # two units that nobody answered
    q, pi, p = slow_em(data, rounds=7, smoothing=0.5)
    found = dawid_skene(**data, smoothing=0.5, tolerance=0.0, limit=7)
    assert found.iterations == 7
    assert found.posterior_UC == pytest.approx(q, abs=1e-12)
    assert found.confusion_RCC == pytest.approx(pi, abs=1e-12)
    assert found.prior_C == pytest.approx(p, abs=1e-12)
    assert found.posterior_UC[-1] == pytest.approx(p)


def test_planted_confusions_are_found_again() -> None:
    biased = np.array([[0.95, 0.03, 0.02], [0.5, 0.4, 0.1], [0.45, 0.05, 0.5]])  # says left far too often
    careful = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]])
    careless = np.full((3, 3), 1 / 3)
    planted = np.stack([careful, biased, careless, careful, careful])
    prior = [0.4, 0.2, 0.4]
    data, truth = simulated(0, planted, prior, units=4000, answers=4)
    found = dawid_skene(**data)
    assert found.converged
    assert found.confusion_RCC == pytest.approx(planted, abs=0.06)
    assert found.prior_C == pytest.approx(prior, abs=0.03)
    assert found.reliability_R == pytest.approx(np.einsum("rcc,c->r", planted, prior), abs=0.04)
    majority = np.zeros((4000, 3))
    np.add.at(majority, (data["unit_N"], data["category_N"]), 1)
    right = (found.posterior_UC.argmax(axis=1) == truth).mean()
    assert right > (majority.argmax(axis=1) == truth).mean() + 0.02
    # The posterior means what it says: of the units it is not sure of, as many are right as it expects.
    sure = found.posterior_UC.max(axis=1)
    unsure = sure < 0.95
    assert unsure.sum() > 200
    assert (found.posterior_UC.argmax(axis=1) == truth)[unsure].mean() == pytest.approx(sure[unsure].mean(), abs=0.06)


def test_where_all_agree_the_posterior_is_the_majority() -> None:
    category = np.repeat([0, 1, 2, 1, 0, 2, 2, 0], 3)
    unit, rater = np.repeat(np.arange(8), 3), np.tile(np.arange(3), 8)
    for fit in (dawid_skene, one_coin):
        found = fit(unit, rater, category, n_units=8, n_raters=3, n_categories=3)
        assert np.array_equal(found.posterior_UC.argmax(axis=1), category[::3])
        assert np.all(found.posterior_UC.max(axis=1) > 0.8)


@pytest.mark.parametrize("fit", [dawid_skene, one_coin])
def test_every_round_climbs(fit: Any) -> None:
    data, _ = simulated(1, np.random.default_rng(1).dirichlet(np.ones(3), size=(5, 3)), [0.3, 0.3, 0.4], 200, 3)
    # With hardly any smoothing the likelihood itself may not fall; with more, the penalised one would be it.
    climbed = [fit(**data, smoothing=1e-9, tolerance=0.0, limit=k).log_likelihood for k in range(1, 40)]
    assert all(after >= before - 1e-7 for before, after in itertools.pairwise(climbed))
    assert climbed[-1] > climbed[0] + 1


@pytest.mark.parametrize("fit", [dawid_skene, one_coin])
def test_order_and_names_do_not_matter_and_nothing_is_random(fit: Any) -> None:
    data, _ = simulated(2, np.random.default_rng(2).dirichlet([3, 1, 1], size=(6, 3)), [0.3, 0.3, 0.4], 100, 3)
    once, rng = fit(**data), np.random.default_rng(0)
    assert all(np.array_equal(a, b) for a, b in zip(once, fit(**data), strict=True))
    order, units, raters, names = (rng.permutation(n) for n in (300, 100, 6, 3))
    moved = fit(
        units[data["unit_N"][order]], raters[data["rater_N"][order]], names[data["category_N"][order]],
        n_units=100, n_raters=6, n_categories=3,
    )  # fmt: skip
    assert moved.posterior_UC[units][:, names] == pytest.approx(once.posterior_UC, abs=1e-9)
    assert moved.reliability_R[raters] == pytest.approx(once.reliability_R, abs=1e-9)
    assert moved.log_likelihood == pytest.approx(once.log_likelihood)


def test_few_answers_make_nobody_infallible() -> None:
    found = dawid_skene([0, 0, 1], [0, 1, 0], [1, 1, 0], n_units=2, n_raters=3, n_categories=2)
    assert np.all(found.reliability_R < 0.75)
    assert found.reliability_R[2] == pytest.approx(0.5)  # who said nothing is a coin
    none = dawid_skene([], [], [], n_units=2, n_raters=1, n_categories=2)
    assert none.posterior_UC == pytest.approx(np.full((2, 2), 0.5))
    assert none.converged


# ------------------------------------------------------------------------------------------------ one coin


def test_planted_coins_are_found_again() -> None:
    p_R = np.array([0.95, 0.8, 0.6, 0.35, 0.9])
    planted = np.stack([np.where(np.eye(3) == 1, p, (1 - p) / 2) for p in p_R])
    data, truth = simulated(3, planted, [1 / 3] * 3, units=3000, answers=4)
    found = one_coin(**data)
    assert found.reliability_R == pytest.approx(p_R, abs=0.03)
    assert (found.posterior_UC.argmax(axis=1) == truth).mean() > 0.9
    full = dawid_skene(**data)
    assert full.reliability_R == pytest.approx(found.reliability_R, abs=0.04)


def test_one_coin_by_hand() -> None:
    # Two raters who agree on one unit of two categories; every round by the equations.
    q = 1.0
    for _ in range(50):
        p = (1 + q) / (2 + 1)
        q = p * p / (p * p + (1 - p) ** 2)
    found = one_coin([0, 0], [0, 1], [1, 1], n_units=1, n_raters=2, n_categories=2, tolerance=1e-12)
    assert found.posterior_UC[0, 1] == pytest.approx(q)
    assert found.reliability_R == pytest.approx([p, p])
    assert found.log_likelihood == pytest.approx(math.log((p * p + (1 - p) ** 2) / 2))


@pytest.mark.parametrize("fit", [dawid_skene, one_coin])
def test_what_cannot_be_is_refused(fit: Any) -> None:
    sizes = {"n_units": 2, "n_raters": 2, "n_categories": 2}
    with pytest.raises(ValueError, match="one length"):
        fit([0], [0, 1], [0], **sizes)
    with pytest.raises(ValueError, match="names a category outside 0…1"):
        fit([0], [0], [2], **sizes)
    with pytest.raises(ValueError, match="names a rater outside 0…1"):
        fit([0], [-1], [0], **sizes)
    with pytest.raises(ValueError, match="smoothing is above 0"):
        fit([0], [0], [0], **sizes, smoothing=0.0)
