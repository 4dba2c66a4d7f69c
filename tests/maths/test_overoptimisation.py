"""Best of n under noise: tails by hand, enumeration against order statistics, small worlds and samples; the two forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.overoptimisation import (
    BON,
    RL,
    Enumerated,
    Part,
    Survival,
    enumerate_world,
    fit,
    laplace,
    normal,
    student2,
    student3,
)
from backflip.maths.ratings import best_of_n

NOISES = {"normal": normal, "laplace": laplace, "student3": student3, "student2": student2}


@pytest.mark.parametrize(
    ("survival", "x", "value"),
    [
        (normal(), 1.959963984540054, 0.025),
        (normal(2.0), 2 * 1.959963984540054, 0.025),
        (laplace(), math.log(2), 0.25),
        (laplace(3.0), -3 * math.log(2), 0.75),
        (student3(), 3.182446305284263, 0.025),  # the printed 97.5 % points of Student's t
        (student2(), 4.302652729911275, 0.025),
        (student2(), math.sqrt(2), (1 - math.sqrt(0.5)) / 2),
    ],
)  # fmt: skip
def test_tails_by_hand(survival: Survival, x: float, value: float) -> None:
    assert float(survival(np.array([x]))[0]) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", NOISES)
@given(x=st.floats(-1e5, 1e5))
def test_a_tail_is_symmetric_and_falls(name: str, x: float) -> None:
    below, above, further = (float(NOISES[name]()(np.array([y]))[0]) for y in (-x, x, x + 1.0))
    assert below + above == pytest.approx(1.0, abs=1e-12)
    assert 0.0 <= further <= above <= 1.0


@pytest.mark.parametrize(("name", "power", "factor"), [("student3", 3, 2 * math.sqrt(3) / math.pi), ("student2", 2, 0.5)])
def test_heavy_tails_fall_as_a_power_and_keep_their_digits(name: str, power: int, factor: float) -> None:
    x = np.array([1e3, 1e4, 1e5])
    assert NOISES[name]()(x) * x**power == pytest.approx(factor, rel=1e-4)
    near = np.linspace(80.0, 95.0, 400)  # across the place where Student's t(3) goes over to its series
    ratio = np.diff(np.log(NOISES[name]()(near))) / np.diff(np.log(near))
    assert ratio == pytest.approx(-power, rel=1e-3)


def test_gaussian_noise_is_the_order_statistic_of_a_gaussian() -> None:
    world = enumerate_world([Part(1.0, normal())])
    assert world.best_of(1) == pytest.approx(0.0, abs=1e-9)
    assert world.best_of(2) == pytest.approx(1 / math.sqrt(math.pi) / math.sqrt(2), abs=1e-4)
    assert world.best_of(3) == pytest.approx(1.5 / math.sqrt(math.pi) / math.sqrt(2), abs=1e-4)
    assert world.best_of(30_000) == pytest.approx(4.11369 / math.sqrt(2), abs=2e-3)
    exact = enumerate_world([Part(1.0, normal(1e-6))])  # no noise: the largest of n standard normals
    assert exact.best_of(10) == pytest.approx(1.5387527308351729, abs=1e-3)  # tables of normal order statistics


@pytest.mark.parametrize("name", NOISES)
def test_finer_cells_change_nothing_that_is_told(name: str) -> None:
    parts = [Part(1.0, NOISES[name]())]
    rough, fine = enumerate_world(parts, cells=4000), enumerate_world(parts, cells=12_000, step=0.005)
    for n in (2, 20, 300, 30_000):
        assert rough.best_of(n) == pytest.approx(fine.best_of(n), abs=1e-3)


def test_a_small_world_is_what_drawing_every_combination_says() -> None:
    # Three cells of probability ½, ¼, ¼ whose gold is 1, 3, −5: every triple, the last cell winning.
    world = Enumerated(np.log(np.array([0.5, 0.75, 1.0])), np.array([1.0, 3.0, -5.0]))
    share, gold = (0.5, 0.25, 0.25), (1.0, 3.0, -5.0)
    for n in (1, 2, 3):
        by_hand = sum(math.prod(share[c] for c in cells) * gold[max(cells)] for cells in itertools.product(range(3), repeat=n))
        assert world.best_of(n) == pytest.approx(by_hand, abs=1e-12)
    with pytest.raises(ValueError, match="n starts at 1"):
        world.best_of(0)


def test_enumeration_is_the_mean_of_samples() -> None:
    rng = np.random.default_rng(0)
    world = enumerate_world([Part(0.9, laplace()), Part(0.1, laplace(), gold=-2.0, proxy=3.0)])
    found = {n: [] for n in (1, 5, 40)}
    for _ in range(40):
        gold = rng.standard_normal(4000)
        proxy, hack = gold + rng.laplace(size=4000), rng.random(4000) < 0.1
        for n, values in found.items():
            values.append(best_of_n(proxy + 3.0 * hack, gold - 2.0 * hack, n))
    for n, values in found.items():
        error = float(np.std(values)) / math.sqrt(len(values))
        assert abs(float(np.mean(values)) - world.best_of(n)) < 4 * error


def test_what_a_part_adds_to_everything_is_added() -> None:
    plain, moved = enumerate_world([Part(1.0, laplace())]), enumerate_world([Part(1.0, laplace(), gold=2.5, proxy=1.0)])
    for n in (1, 7, 1000):
        assert moved.best_of(n) == pytest.approx(plain.best_of(n) + 2.5, abs=2e-3)
    halves = enumerate_world([Part(0.25, laplace()), Part(0.75, laplace())])
    assert halves.best_of(50) == pytest.approx(plain.best_of(50), abs=1e-12)


def test_shares_that_are_not_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 0\.5"):
        enumerate_world([Part(0.5, normal())])


@given(alpha=st.floats(-2, 2), beta=st.floats(0.01, 2), form=st.sampled_from([BON, RL]))
def test_a_form_is_found_again(alpha: float, beta: float, form: object) -> None:
    assert form in (BON, RL)
    chosen = BON if form is BON else RL
    d = np.linspace(0.0, 3.0, 12)
    found = fit(chosen, d, chosen(d, alpha, beta))
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-8)
    assert found.at(0.0) == 0.0
    assert found.r2 == pytest.approx(1.0) or math.isnan(found.r2)


def test_peaks_are_where_the_forms_are_largest() -> None:
    best = fit(BON, [1.0, 2.0, 3.0], BON([1.0, 2.0, 3.0], 1.2, 0.3))
    assert best.peak == pytest.approx(2.0)
    assert best.at(best.peak) == pytest.approx(1.2**2 / (4 * 0.3))
    learned = fit(RL, [1.0, 2.0, 3.0], RL([1.0, 2.0, 3.0], 0.9, 0.5))
    assert learned.peak == pytest.approx(math.exp(0.9 / 0.5 - 1))
    assert learned.at(learned.peak) == pytest.approx(0.5 * learned.peak)
    for found in (best, learned):
        d = np.linspace(0.01, 3 * found.peak, 999)
        assert found.at(d).max() <= float(found.at(found.peak)) + 1e-9
    assert fit(BON, [1.0, 2.0], [1.0, 3.0]).peak == math.inf, "a curve that bends upwards has no peak"
    assert fit(RL, [1.0, 2.0], RL([1.0, 2.0], 1.0, 1e-6)).peak == math.inf


def test_r2_by_hand_and_what_cannot_be_fitted() -> None:
    found = fit(BON, [1.0, 1.0, 2.0], [0.0, 2.0, 2.0])
    assert found.at([1.0, 2.0]) == pytest.approx([1.0, 2.0])
    assert found.r2 == pytest.approx(1 - 2 / (8 / 3))
    assert math.isnan(fit(RL, [1.0, 2.0], [1.0, 1.0]).r2)
    for d, gold in (([1.0, 1.0], [1.0, 2.0]), ([0.0, 1.0], [0.0, 1.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="two distances"):
            fit(BON, d, gold)
