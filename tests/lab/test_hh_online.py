"""`hh-online`: the line and its bend by hand, gaps at one KL, calibration, bars that can be missed, and all of it very small."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments import before_and_again, spoilt

from backflip.lab import hh_online
from backflip.lab.guard_recorder import Seen
from backflip.lab.hh_online_figures import calibration_error, curve, elo, gaps, law, slopes_apart
from backflip.lab.hh_online_report import report, tables
from backflip.lab.hh_online_settings import Settings
from backflip.lab.many_rounds_settings import ONLINE, STATIC
from backflip.runs.watching import Look


def test_a_line_that_bends_is_fitted_up_to_the_bend() -> None:
    x = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    y = [1 + 2 * min(v, 2.0) - 0.5 * max(0.0, v - 2.0) for v in x]
    found = law(x, y)
    assert (found.intercept, found.slope, found.r2, found.bend) == pytest.approx((1.0, 2.0, 1.0, 2.0))
    order = [3, 0, 7, 1, 5, 2, 6, 4]
    assert law([x[i] for i in order], [y[i] for i in order]) == found, "the order of the looks says nothing"


def test_a_curve_that_turns_upwards_has_no_bend_and_is_no_line() -> None:
    x = np.linspace(0, 3, 9)
    found = law(x, x**4)
    assert found.bend == 3.0
    assert found.r2 < 0.95


@pytest.mark.parametrize(("x", "y"), [([0, 1, 2], [0, 1, 2]), ([1, 1, 1, 1], [0, 1, 2, 3]), ([0, 1, 2, 3], [0, 1, 2])])
def test_too_little_for_a_line(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 4 points"):
        law(x, y)


@given(st.floats(-5, 5), st.floats(0.1, 5), st.integers(4, 12))
def test_any_rising_line_is_found_whole(intercept: float, slope: float, n: int) -> None:
    x = np.linspace(0, 3, n)
    found = law(x, intercept + slope * x)
    assert found.slope == pytest.approx(slope)
    assert found.intercept == pytest.approx(intercept, abs=1e-6)
    assert found.r2 == pytest.approx(1.0)


def look(step: int, train: list[float], test: list[float], kl: list[float]) -> Seen:
    texts = [str(i) for i in range(len(train))]
    return Seen(
        Look(
            step=step, prompts=texts, completions=texts, proxy=train, kl=kl, entropy=1.0, lengths=[1] * len(train),
            finished=[True] * len(train), judges={"test": test},
        ),
        [float(step)] * len(train),
    )  # fmt: skip


def test_a_run_by_hand() -> None:
    seen = [look(0, [-2.0, 2.0], [-10.0, 10.0], [0.0, -0.2]), look(4, [2.0, 4.0], [0.0, 10.0], [3.0, 5.0])]
    found = curve(seen)
    assert found["root kl"] == [0.0, 2.0], "a KL that noise has made negative is none"
    assert (found["train"], found["test"]) == ([0.0, 1.5], [0.0, 0.5])
    assert found["gap"] == [0.0, 1.0]
    assert found["error"] == [0.0, 0.0]
    assert found["gold"] == [0.0, 4.0]


def test_gaps_are_compared_where_both_have_come() -> None:
    far = {"root kl": [0.0, 1.0, 2.0, 3.0], "gap": [0.0, 0.1, 0.4, 0.9], "error": [0.0, 0.1, 0.1, 0.1]}
    near = {"root kl": [0.0, 1.0, 2.1], "gap": [0.0, 0.0, 0.2], "error": [0.0, 0.1, 0.05]}
    a, b = gaps([far, near])
    assert (a.mean, a.kl) == (0.4, 4.0)
    assert (b.mean, b.error) == (0.2, 0.05)


def test_calibration_elo_and_slopes() -> None:
    gap = math.log(3.0)  # σ = ¾
    assert calibration_error([gap] * 4, [1.0, 1.0, 1.0, 0.0]) == pytest.approx(0.0)
    assert calibration_error([gap] * 4, [0.0, 0.0, 0.0, 1.0]) == pytest.approx(0.5)
    assert elo(1.0, 10) < 1000, "finite"
    assert elo(0.25, 100) == pytest.approx(-elo(0.75, 100))
    assert slopes_apart([2.0, 2.0]) == 0.0


RUN = {
    "step": [0.0, 4.0], "root kl": [0.0, 1.0], "train": [0.0, 2.0], "test": [0.0, 1.0], "gap": [0.0, 1.0], "error": [0.0, 0.1],
    "gold": [0.0, 1.0],
}  # fmt: skip
FEW = dataclasses.replace(Settings(), sizes=(48, 96), models=(16, 64))
SEED: dict[str, Any] = {
    "seed": 0, "accuracy": {f"{m} {half}": 0.7 for m in (16, 64) for half in ("train", "test")},
    "runs": {"48 against 64": RUN, "96 against 64": RUN, "96 against 16": RUN},
    "laws": {
        "48": {"intercept": 0.0, "slope": 2.0, "r2": 0.97, "bend": 1.0},
        "96": {"intercept": 0.0, "slope": 2.2, "r2": 0.99, "bend": 1.0},
    },
    "gaps": {"16": {"mean": 1.0, "error": 0.1, "kl": 9.0}, "64": {"mean": 0.5, "error": 0.1, "kl": 9.0}},
    "met": {
        "wins": {"mean": 0.6, "low": 0.55, "high": 0.65, "n": 200}, "elo": 70.0,
        "gold": {"first": 0.0, "online": 2.0, "static": 1.5}, "low": {"online": 0.05, "static": 0.05},
        "high": {"online": 0.05, "static": 0.1},
    },
    "seconds": {"policies": 60.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("laws", "48", "r2"), 0.9, "R²"),
        (("laws", "48", "slope"), 1.5, "slopes"),
        (("gaps", "16", "error"), 0.6, "standard errors"),
        (("gaps", "64", "mean"), 1.1, "less that of the larger"),
        (("met", "wins", "mean"), 0.5, "meetings"),
        (("met", "elo"), 40.0, "Elo"),
        (("met", "gold", "static"), 2.1, "gold"),
        (("met", "high", "online"), 0.2, "calibration"),
        (("seconds", "policies"), 900.0, "minutes"),
    ],
)
def test_every_bar_can_be_missed(path: tuple[str, ...], value: Any, line: str) -> None:
    assert all(found.passed for found in hh_online.judge([SEED], FEW))
    missed = [found.name for found in hh_online.judge([spoilt(SEED, path, value)], FEW) if not found.passed]
    assert any(line in name for name in missed), missed


def test_two_seeds_have_an_interval_whose_low_end_counts() -> None:
    found = hh_online.judge([SEED, spoilt(SEED, ("met", "gold", "static"), 1.99)], FEW)
    [gold] = [line for line in found if line.name.startswith("gold")]
    assert gold.value < 0
    assert not gold.passed


def test_both_arms_have_as_many_comparisons_updates_and_nats() -> None:
    arms = Settings().asking.arms()
    totals = {(arms[a].rounds * arms[a].comparisons, arms[a].rounds * arms[a].ppo.steps) for a in (ONLINE, STATIC)}
    assert totals == {(900, 48)}


def test_the_report_and_the_tables_of_one_seed() -> None:
    told = report([SEED], hh_online.judge([SEED], FEW), FEW)
    assert [chart.title for chart in told.charts][:4] == ["Score of the train model", "Width 16", "Width 64", "The gap"]
    assert "slope 2.20, R² 0.990" in told.charts[0].explanation
    assert "| 16 | 0.70 | 0.70 | 1.00 | 10.0 | 9.0 |" in tables([SEED])
    assert "60 %; Elo by seed: +70." in tables([SEED])


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    hh_online.run(hh_online.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    [seed] = result["figures"]["seeds"]
    assert set(seed["runs"]) == {"16 against 16", "32 against 16", "32 against 8"}
    assert all(curve["root kl"][0] == 0.0 for curve in seed["runs"].values()), "the first look is at the reference itself"
    assert seed["met"]["wins"]["n"] <= hh_online.QUICK.asking.loop.arena_prompts
    halves = json.loads((tmp_path / "seed0" / "comparisons.json").read_text())
    assert len(next(iter(halves.values()))) == 2 * hh_online.QUICK.comparisons
    first, second = before_and_again(tmp_path, lambda: hh_online.run(hh_online.QUICK, tmp_path, True), "minutes a seed, slowest")
    assert first == second
