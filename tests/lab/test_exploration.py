"""`exploration`: what is counted is counted right, runs differ in one thing, bars are judged by the worst seed; it runs small."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments import spoilt

from backflip.lab import exploration_stages
from backflip.lab.exploration import QUICK, judge, run
from backflip.lab.exploration_figures import compared, counted, crossing, passes
from backflip.lab.exploration_settings import NAMES, Settings
from backflip.records import Prompt, Sample
from backflip.settings import Sampling, Tiny

torch.set_num_threads(1)

SUM = Prompt("d4c8b2a1+D9C3B7A5=", {"answer": "e1d4c1b9a6"})
RIGHT = "<think></think><answer>e1d4c1b9a6</answer>"
MICRO = dataclasses.replace(
    QUICK, documents=64, problems=2, tries=4, tiny=Tiny(hidden_size=16, layers=1, heads=2, context=128),
    grpo=dataclasses.replace(
        QUICK.grpo, steps=2, save_every=1, batch_size=8, num_generations=4,
        sampling=Sampling(temperature=1.0, max_new_tokens=16, slots=64),
    ),
)  # fmt: skip


def sample(text: str, logps: tuple[float, ...], *, finished: bool = True) -> Sample:
    return Sample(SUM, text, tokens=(0,) * len(logps), logps=logps, finished=finished)


def test_completions_are_counted_by_hand() -> None:
    groups = [
        [sample(RIGHT, (-0.5, -0.1)), sample(RIGHT, (-0.2,), finished=False)],
        [sample("x", (-1.0,)), sample(RIGHT.replace("a6", "a7"), (-0.2,))],
    ]
    found = counted(groups)
    assert (found["right"], found["tries"]) == ([1, 0], 2)
    assert found["entropy"] == pytest.approx(2.0 / 5)
    assert (found["length"], found["format"]) == (5 / 4, 2 / 4)
    assert passes(found) == [[0.5, 1.0], [0.0, 0.0]]


def test_two_curves_are_compared_over_the_same_problems() -> None:
    # Before: half of the tries at one problem. After: all of the tries at the other one, and a quarter of those at the first.
    before, after = {"right": [2, 0], "tries": 4}, {"right": [1, 4], "tries": 4}
    found = compared(before, after)
    assert found["curve"]["x"] == [1, 2, 4]
    assert found["gain"]["value"] == pytest.approx([(1 - 0.25) / 2, (1 - (5 / 6 - 3 / 6)) / 2, 0.5])
    assert found["crossing"] is None
    assert not found["lost"]
    worse = compared({"right": [2] * 8, "tries": 4}, {"right": [4] * 3 + [0] * 5, "tries": 4})
    assert worse["gain"]["value"] == pytest.approx([-1 / 8, 3 / 8 - 5 / 6, -5 / 8])
    assert worse["crossing"] == 1.0
    assert worse["lost"]


def test_where_curves_cross() -> None:
    assert crossing([1, 4, 16], [0.2, 0.1, -0.1]) == pytest.approx(8.0)
    assert crossing([1, 2, 4], [0.3, 0.0, 0.0]) is None
    assert crossing([1, 2, 4], [0.3, -0.1, 0.2]) == pytest.approx(2**0.75)
    assert crossing([1, 2], [-0.1, 0.2]) == 1.0


def test_every_run_differs_from_the_plain_one_in_one_thing() -> None:
    arms = {name: dataclasses.asdict(online) for name, online in Settings().arms().items()}
    assert list(arms) == list(NAMES)
    differing = {name: {key for key in arm if arm[key] != arms["plain"][key]} for name, arm in arms.items() if name != "plain"}
    assert differing == {
        "entropy": {"entropy_coef"}, "clip-higher": {"cliprange_high"}, "hotter": {"sampling"}, "kl": {"kl_coef"},
    }  # fmt: skip
    assert (arms["plain"]["entropy_coef"], arms["plain"]["cliprange_high"], arms["plain"]["kl_coef"]) == (0, None, 0)
    assert Settings().arms()["hotter"].sampling.temperature == 1.2


def result(seed: int = 0) -> dict[str, Any]:
    """What a seed that meets every bar leaves, as far as the bars look."""
    arm = {"gain": {"value": [0.3, 0.2, -0.1]}, "crossing": 3.0, "entropy": 0.2}
    return {
        "seed": seed, "before": {"entropy": 0.5}, "arms": {name: copy.deepcopy(arm) for name in NAMES},
        "seconds": {"pretraining": 1000.0, "plain": 100.0, "measuring": 100.0},
    }  # fmt: skip


def test_a_good_seed_meets_every_bar_and_crossings_are_told() -> None:
    other = result(1)
    other["arms"]["hotter"]["crossing"] = None
    lines = {line.name: line for line in judge([result(0), other])}
    assert all(line.passed for line in lines.values())
    told = {name: line.value for name, line in lines.items() if line.bar == "told either way"}
    assert list(told.values()) == [1.0, 1.0, 1.0, 0.5, 1.0]
    assert all("k ≤ 4" in name for name in told)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("arms", "plain", "gain", "value"), [0.05, 0.2, 0.1], "pass@1 gained"),
        (("arms", "plain", "entropy"), 0.6, "entropy after"),
        (("seconds", "plain"), 300.0, "core-minutes a seed"),
    ],
)
def test_one_bad_seed_misses_exactly_its_bar(path: tuple[str, ...], value: Any, name: str) -> None:
    bad = spoilt(result(1), path, value)
    missed = [line.name for line in judge([result(0), bad]) if not line.passed]
    assert len(missed) == 1
    assert missed[0].startswith(name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a micro run."""
    folder = tmp_path_factory.mktemp("exploration")
    assert not run(MICRO, folder, quiet=True)
    return folder


def test_a_micro_run_leaves_figures_bars_tables_and_a_report(finished: Path) -> None:
    written = json.loads((finished / "result.json").read_text())
    [seed] = written["figures"]["seeds"]
    assert set(written["accept"]) == {line.name for line in judge([seed])}
    assert list(seed["arms"]) == list(NAMES)
    assert all(arm["entropy"] > 0 and len(arm["training"]["entropy"]) == 2 for arm in seed["arms"].values())
    assert seed["before"]["curve"]["x"] == [1, 2, 4]
    assert list(seed["between"]) == ["1"]
    assert seed["arms"]["plain"]["over plain"]["value"] == [0, 0, 0]
    tables = (finished / "tables.md").read_text()
    assert "| GRPO alone | 0 |" in tables
    assert "| GRPO alone, step 1 | 0 |" in tables
    assert "| KL penalty | 0 | +0.0 (" in tables
    page = (finished / "report.html").read_text()
    for words in ("Exploration under GRPO", "Gained by clip-higher", "Entropy", "below the base model from"):
        assert words in page


def test_all_runs_meet_the_same_problems(finished: Path) -> None:
    seen = {
        name: [json.loads(line)["prompt"] for line in (finished / "seed0" / name / "samples.jsonl").read_text().splitlines()]
        for name in NAMES
    }
    assert len(seen["plain"]) == 8
    assert all(prompts == seen["plain"] for prompts in seen.values())


def test_a_finished_run_is_only_told_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((finished / "result.json").read_text())
    monkeypatch.setattr(exploration_stages, "improve", None)
    monkeypatch.setattr(exploration_stages, "generate_samples", None)
    run(MICRO, finished, quiet=True)
    again = json.loads((finished / "result.json").read_text())
    for written in (before, again):
        del written["figures"]["seeds"][0]["seconds"]
        del written["accept"]["core-minutes a seed without pretraining, slowest"]
    assert again == before
