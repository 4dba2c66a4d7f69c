"""`active-loop`: when each arm asks, how old its comparisons are, bars that can be missed, and the whole at a small size."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments import before_and_again, spoilt

from backflip.lab import active_loop
from backflip.lab.active_loop_figures import ages, plan, slope, staleness
from backflip.lab.active_loop_report import at_random, groups, tables
from backflip.lab.active_loop_settings import ONCE, Arm, Settings
from backflip.rounds.asking import check_asking

MINUTES = "minutes of a core a seed, slowest"


def test_when_and_about_whom_an_arm_asks() -> None:
    assert plan(Arm(portions=1), 8) == {0: 0}
    assert plan(Arm(portions=2), 8) == {0: 0, 4: 4}
    assert plan(Arm(portions=4, delay=2), 8) == {0: 0, 2: 0, 4: 0, 6: 2}
    assert plan(Arm(portions=8, delay=1), 8) == {0: 0, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6}
    with pytest.raises(ValueError, match="3 portions"):
        plan(Arm(portions=3), 8)


def test_ages_by_hand() -> None:
    # Everything asked about the first policy is one leg older with each leg.
    assert ages({0: 0}, {0: 480}, 4) == [0, 1, 2, 3]
    # Four equal portions of the policy of the moment: at leg 3 they are 3, 2, 1 and 0 legs old.
    assert ages({0: 0, 1: 1, 2: 2, 3: 3}, dict.fromkeys(range(4), 60), 4) == [0, 0.5, 1, 1.5]
    # A leg late: at leg 2 there are portions about 0, 0 and 1, which are 2, 2 and 1 legs old.
    assert ages(plan(Arm(portions=4, delay=1), 4), dict.fromkeys(range(4), 60), 4)[2] == pytest.approx(5 / 3)
    assert staleness({"ages": [0.0, 0.5, 1.0, 1.5]}) == 0.75


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 9))
def test_a_later_answer_is_never_younger(portions: int, delay: int) -> None:
    counts = dict.fromkeys(range(8), 60)
    sooner, later = (ages(plan(Arm(portions=portions, delay=d), 8), counts, 8) for d in (delay, delay + 1))
    assert all(a <= b for a, b in zip(sooner, later, strict=True))
    assert all(0 <= b <= leg for leg, b in enumerate(later)), "nobody asks about what is not there yet"


def test_all_arms_ask_as_often_in_all() -> None:
    settings = Settings()
    arms = settings.arms()
    assert list(arms) == [
        ONCE, "2 portions", "4 portions", "8 portions", "8 portions, 1 late", "8 portions, 2 late", "8 portions, near ties",
    ]  # fmt: skip
    for arm in arms.values():
        asking = settings.asking(arm)
        check_asking(asking)
        assert asking.comparisons * arm.portions == settings.comparisons
        assert len(plan(arm, settings.legs)) == arm.portions
    assert settings.freshest == "8 portions"
    assert groups(settings)["later or sooner"] == ["8 portions", "8 portions, 1 late", "8 portions, 2 late"]
    assert at_random(settings) == list(arms)[:-1]


def arm(ages: list[float], gold: float) -> dict[str, Any]:
    return {"ages": ages, "gold": gold, "accuracy": 0.75, "kl": 5.0, "comparisons": 480}


SEED: dict[str, Any] = {
    "seed": 0, "seconds": {"policy": 60.0},
    "arms": {
        ONCE: arm([0, 1, 2, 3], 1.0), "2 portions": arm([0, 1, 1, 2], 2.0), "2 portions, 1 late": arm([0, 1, 2, 3], 1.0),
        "2 portions, near ties": arm([0, 1, 1, 2], 9.0),
    },
}  # fmt: skip
FEW = dataclasses.replace(Settings(), portions=(1, 2), delays=(1,))


def test_the_slope_is_of_gold_over_staleness() -> None:
    assert slope(SEED, at_random(FEW)) == pytest.approx(-2.0), "from 1 policy old to 1.5 gold falls from 2 to 1"
    assert slope(SEED, ["2 portions", ONCE]) == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        (("arms", "2 portions, 1 late", "gold"), 4.0, ["older"]),
        (("arms", "2 portions", "gold"), 0.5, ["older", "freshest"]),
        (("seconds", "policy"), 361.0, ["minutes"]),
    ],
)
def test_every_bar_can_be_missed(path: tuple[str, ...], value: Any, lines: list[str]) -> None:
    assert all(found.passed for found in active_loop.judge([SEED], FEW))
    missed = [found.name for found in active_loop.judge([spoilt(SEED, path, value)], FEW) if not found.passed]
    assert len(missed) == len(lines)
    assert all(line in name for line, name in zip(lines, missed, strict=True)), missed


def test_two_seeds_have_an_interval_whose_nearer_end_counts() -> None:
    other = spoilt(SEED, ("arms", "2 portions", "gold"), 1.01)
    costs, better, _ = active_loop.judge([SEED, other], FEW)
    assert costs.value > 0
    assert better.value < 0
    assert not costs.passed
    assert not better.passed


def test_the_table_has_a_row_for_every_arm() -> None:
    told = tables([SEED, spoilt(SEED, ("arms", ONCE, "gold"), 2.0)], FEW)
    assert "| once | 1.50 (1.50 to 1.50) | 1.50 (1.00 to 2.00) | 75 (75 to 75) | 5.0 (5.0 to 5.0) | 480 (480 to 480) |" in told
    assert told.count("\n") == 2 + len(FEW.arms())


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    quick = active_loop.QUICK
    active_loop.run(quick, tmp_path, True)
    [seed] = json.loads((tmp_path / "result.json").read_text())["figures"]["seeds"]
    assert list(seed["arms"]) == list(quick.arms())
    for found in seed["arms"].values():
        assert 0 < found["comparisons"] <= quick.comparisons
        assert all(len(values) == quick.legs and all(map(math.isfinite, values)) for values in found["legs"].values())
        assert 0 <= found["accuracy"] <= 1
    assert staleness(seed["arms"]["2 portions"]) < staleness(seed["arms"]["2 portions, 1 late"])
    assert seed["arms"][ONCE]["ages"] == [0, 1]
    place = tmp_path / "seed0"
    sides = [json.loads((place / name / "asked0.json").read_text()) for name in ("2-portions", "2-portions-1-late")]
    assert sides[0] == sides[1], "before the first leg there is only the first policy to ask about"
    assert "| 2 portions, near ties |" in (tmp_path / "tables.md").read_text()
    assert "What staleness costs" in (tmp_path / "report.html").read_text()
    # One that lost its last leg makes it again as it was, from what is kept of the rest.
    shutil.rmtree(place / "2-portions" / "leg1")
    (place / "2-portions" / "measured.json").unlink()
    before = (place / "2-portions" / "leg0" / "metrics.jsonl").stat().st_mtime_ns
    first, second = before_and_again(tmp_path, lambda: active_loop.run(quick, tmp_path, True), MINUTES)
    assert first == second
    assert (place / "2-portions" / "leg0" / "metrics.jsonl").stat().st_mtime_ns == before
