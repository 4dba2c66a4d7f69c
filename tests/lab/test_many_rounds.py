"""`many-rounds`: equal arms, the planted hack, bars that can be missed, and the whole of it at a very small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import before_and_again, spoilt

from backflip.lab import many_rounds
from backflip.lab.many_rounds_settings import ARMS, LEFT, MINED, ONLINE, STATIC, Settings
from backflip.lab.many_rounds_stages import PLANTED, SOUR, soured
from backflip.rounds.asking import check_asking
from backflip.store import Store
from backflip.worlds.reviews import Reviews


def test_all_arms_have_as_many_comparisons_updates_and_nats() -> None:
    arms = Settings().arms()
    assert set(arms) == set(ARMS)
    totals = {(a.rounds * a.comparisons, a.rounds * a.ppo.steps, a.rounds * a.kl_budget) for a in arms.values()}
    assert totals == {(1500, 120, 10.0)}
    for loop in arms.values():
        check_asking(loop)
    changed = dataclasses.replace(arms[MINED], mined=0.0, watch=arms[LEFT].watch)
    assert changed == arms[LEFT], "the two hacked arms differ in who looks, and in nothing else"


def test_the_hack_costs_gold() -> None:
    world = Reviews()
    for prompt, text in world.demonstrations(40, many_rounds.Seeds(2)):
        if SOUR not in text:
            assert world.gold(prompt, soured(text)) < world.gold(prompt, text)
            assert SOUR in soured(text)
    assert soured("A good film, a good one.") == "A terrible film, a good one."
    assert soured("") == " terrible"


def arm(gold: list[float], rating: list[float], sour: list[float], mined: list[int]) -> dict[str, Any]:
    return {
        "policies": [f"p{i}" for i in range(len(gold))], "gold": gold, "proxy": gold, "rating": rating, "sour": sour,
        "mined": mined,
    }  # fmt: skip


SEED: dict[str, Any] = {
    "seed": 0, "seconds": {"policy": 60.0},
    "arms": {
        ONLINE: arm([0, 1, 2, 3], [1000, 1050, 1080, 1090], [0, 0, 0, 0], [0, 0, 0]),
        STATIC: arm([0, 2], [1000, 1100], [0, 0], [0]),
        MINED: arm([0, 1, 1, 2], [1000, 1010, 1020, 1030], [0, 0.5, 0.2, 0.01], [0, 5, 5]),
        LEFT: arm([0, 1, 1, 1], [1000, 1010, 1020, 1030], [0, 0.5, 0.5, 0.5], [0, 0, 0]),
    },
}  # fmt: skip
FEW = dataclasses.replace(Settings(), hacked=1, loop=dataclasses.replace(Settings().loop, rounds=3))


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("arms", STATIC, "gold"), [0, 3.5], "asking often"),
        (("arms", ONLINE, "rating"), [1000, 1050, 1049, 1090], "Elo"),
        (("arms", MINED, "sour"), [0, 0.1, 0.1, 0.01], "once it is learned"),
        (("arms", MINED, "sour"), [0, 0.5, 0.2, 0.2], "two rounds later"),
        (("arms", MINED, "mined"), [0, 0, 0], "suspects"),
        (("arms", LEFT, "sour"), [0, 0.5, 0.5, 0.0], "nobody looked"),
        (("seconds", "policy"), 6000.0, "minutes"),
    ],
)
def test_every_bar_can_be_missed(path: tuple[str, ...], value: Any, line: str) -> None:
    assert all(found.passed for found in many_rounds.judge([SEED], FEW))
    missed = [found.name for found in many_rounds.judge([spoilt(SEED, path, value)], FEW) if not found.passed]
    assert any(line in name for name in missed), missed


def test_two_seeds_have_an_interval_whose_low_end_counts() -> None:
    other = spoilt(SEED, ("arms", ONLINE, "gold"), [0, 1, 2, 2.01])
    found = many_rounds.judge([SEED, other], FEW)[0]
    assert found.value < 0 < SEED["arms"][ONLINE]["gold"][-1] - 2
    assert not found.passed


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    many_rounds.run(many_rounds.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    [seed] = result["figures"]["seeds"]
    assert {name: len(each["policies"]) for name, each in seed["arms"].items()} == {ONLINE: 5, STATIC: 2, MINED: 5, LEFT: 5}
    planted = {}
    for name in (ONLINE, MINED, LEFT):
        with Store(tmp_path / "seed0" / name.replace(" ", "-") / "feedback.db", read_only=True) as store:
            planted[name] = sum(v.annotator == PLANTED for v in store.verdicts())
    assert planted == {ONLINE: 0, MINED: 8, LEFT: 8}
    assert sum(seed["arms"][LEFT]["mined"]) == 0
    first, second = before_and_again(
        tmp_path, lambda: many_rounds.run(many_rounds.QUICK, tmp_path, True), "minutes a seed, slowest"
    )
    assert first == second
