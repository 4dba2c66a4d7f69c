"""`generator-gap`: writers and judges, each bar met and missed, and the whole of it at a very small size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import spoilt

from backflip.lab import generator_gap
from backflip.lab.generator_gap import QUICK, Settings, judge
from backflip.lab.generator_gap_stages import WRITERS, _written
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews


def test_experts_write_what_gold_likes_and_typical_people_do_not() -> None:
    world, gold = Reviews(), {}
    for writer in WRITERS:
        rows = _written(writer, 300, Seeds(0))
        assert rows == _written(writer, 300, Seeds(0))
        assert all(world.split_of(prompt) == "train" for prompt, _ in rows)
        gold[writer] = np.array([world.gold(prompt, text) for prompt, text in rows])
    assert abs(gold["typical"].mean()) < 0.3
    assert gold["expert"].mean() > 2
    assert (gold["typical"] >= Settings().good).mean() < 0.4 < 0.8 < (gold["expert"] >= Settings().good).mean()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generator-gap")
    generator_gap.run(QUICK, folder, True)
    return folder


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(ran: Path) -> None:
    result = json.loads((ran / "result.json").read_text())
    assert len(result["accept"]) == 4
    [seed] = result["figures"]["seeds"]
    assert list(seed["policies"]) == [
        "base", "demonstrations, typical", "demonstrations, expert", "comparisons, noise 0", "comparisons, noise 0.8",
    ]  # fmt: skip
    for found in seed["gap"]["judges"].values():
        assert list(found["tries"]) == ["2", "4"]
        assert all(tries["good"] <= tries["any"] for tries in found["tries"].values())
        assert found["tries"]["2"]["any"] <= found["tries"]["4"]["any"]
    assert "Easier to pick" in (ran / "report.html").read_text()
    times = {path: path.stat().st_mtime_ns for path in ran.rglob("metrics.jsonl")}
    assert len(times) == 1 + 2 + 4
    generator_gap.run(QUICK, ran, True)
    assert {path: path.stat().st_mtime_ns for path in ran.rglob("metrics.jsonl")} == times
    [again] = json.loads((ran / "result.json").read_text())["figures"]["seeds"]
    assert again["policies"] == seed["policies"]


def test_each_bar_can_be_met_and_missed(ran: Path) -> None:
    [seed] = json.loads((ran / "result.json").read_text())["figures"]["seeds"]
    gold = {
        "demonstrations, typical": 0.0,
        "demonstrations, expert": 3.0,
        "comparisons, noise 0": 2.0,
        "comparisons, noise 0.8": 1.0,
    }
    for name, value in gold.items():
        seed = spoilt(seed, ("policies", name, "gold"), value)
    seed = spoilt(seed, ("gap", "judges", "0", "tries", "4", "picked"), seed["gap"]["good"] + 0.5)

    def met(path: tuple[str, ...], value: Any) -> list[bool]:
        return [line.passed for line in judge([seed, spoilt(seed, path, value)])]

    assert [line.passed for line in judge([seed])] == [True] * 4
    assert met(("gap", "good"), 0.99) == [False, True, True, True]
    assert met(("policies", "demonstrations, typical", "gold"), 2.5) == [True, False, True, True]
    assert met(("policies", "demonstrations, expert", "gold"), 1.5) == [True, True, False, True]
    assert met(("policies", "comparisons, noise 0.8", "gold"), 2.5) == [True, True, True, False]
