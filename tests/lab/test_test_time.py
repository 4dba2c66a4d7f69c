"""`test-time`: what is counted is counted right, bars are judged by the worst seed, and the whole of it runs small."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments import spoilt

from backflip.lab import test_time_stages
from backflip.lab.arithmetic_base import pretrained_base
from backflip.lab.test_time import QUICK, judge, run
from backflip.lab.test_time_figures import (
    Problem,
    by_allowance,
    by_thinking,
    by_tries,
    gain_of_thinking,
    judged,
    pairs_of,
    thought,
    told_apart,
)
from backflip.records import Prompt, Sample
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds

torch.set_num_threads(1)

SUM = Prompt("d4c8b2a1+D9C3B7A5=", {"answer": "e1d4c1b9a6"})
FULL = "<think>a1A506b2B709c8C311d4D914</think><answer>e1d4c1b9a6</answer>"
DIRECT = "<think></think><answer>e1d4c1b9a6</answer>"
WRONG = "<think></think><answer>e1d4c1b9a7</answer>"
MICRO = dataclasses.replace(QUICK, documents=64, problems=4, tries=4, most=4, verifier_problems=4, verifier_tries=4)


def sample(text: str, *, finished: bool = True, length: int = 10) -> Sample:
    return Sample(SUM, text, tokens=(0,) * length, finished=finished)


def problem(
    right: list[bool], *, scores: list[float] | None = None, thoughts: list[int | None] | None = None,
    lengths: list[int] | None = None, votes: list[str | None] | None = None, prompt: str = SUM.plain,
) -> Problem:  # fmt: skip
    n = len(right)
    return Problem(
        prompt, "a", right, votes or ["a" if r else "b" for r in right], scores or [0.0] * n, lengths or [10] * n,
        thoughts or [0] * n,
    )  # fmt: skip


def test_a_problem_with_its_tries() -> None:
    samples = [sample(FULL, length=40), sample(FULL, finished=False), sample(WRONG), sample("x")]
    found = judged(SUM, samples, [1.0, 2.0, 3.0, 4.0])
    assert found.right == [True, False, False, False]
    assert found.votes == ["e1d4c1b9a6", None, "e1d4c1b9a7", None]
    assert found.lengths == [40, 10, 10, 10]
    assert found.thoughts == [24, 24, 0, None]
    assert found.digits == 4
    assert Problem(**json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(ValueError, match="not a problem"):
        _ = dataclasses.replace(found, prompt="1+1").digits
    assert thought("<think>a06waita06</think><answer>a6</answer>") == 7


def test_lessons_put_right_above_wrong() -> None:
    samples = [sample(t) for t in (FULL, DIRECT, WRONG, WRONG, "x")] + [sample(FULL, finished=False)]
    pairs = pairs_of(SUM, samples, 10, random.Random(0))
    assert {(p.left, p.right) for p in pairs} == {(good, bad) for good in (FULL, DIRECT) for bad in (WRONG, "x", FULL)}
    assert {(p.p_left, p.query_id) for p in pairs} == {(1.0, SUM.id)}
    assert len(pairs_of(SUM, samples, 2, random.Random(0))) == 2
    assert pairs_of(SUM, [sample(FULL)], 2, random.Random(0)) == []


def test_accuracy_by_tries_by_hand() -> None:
    # Two right of four, the verifier's favourite among them; and none right.
    first = problem(
        [True, False, False, True], scores=[2.0, 1.0, 0.0, -1.0], votes=["a", "b", "c", "a"], thoughts=[0, 0, None, 24]
    )
    second = problem([False] * 4)
    found = by_tries([first, second], 4, 500, np.random.default_rng(0))
    assert found["checker"]["x"] == [1, 2, 4]
    assert found["checker"]["value"] == pytest.approx([0.25, 5 / 12, 0.5])
    # Of the six pairs those with the first, 3 of 6, are won by it, and the last is the best of none.
    assert found["verifier"]["value"] == pytest.approx([0.25, 0.25, 0.5])
    # The longest thought is the last: it wins its three pairs, one of the others is half right, and one wholly.
    assert found["longest"]["value"] == pytest.approx([0.25, (3 + 0.5 + 1) / 6 / 2, 0.5])
    # Pairs of votes: aa once, ab, ac, ba and ca half, bc never; of all four the answer has most.
    assert found["majority"]["value"] == pytest.approx([0.25, (1 + 4 / 2) / 6 / 2, 0.5], abs=0.03)
    # Weighed, each pair is won by its better score: ab and ac by the first a, aa, and neither bc nor those with the last a.
    assert found["weighed"]["value"] == pytest.approx([0.25, 3 / 6 / 2, 0.5], abs=0.03)
    assert by_tries([first, second], 2, 1, np.random.default_rng(0))["checker"]["x"] == [1, 2]


def test_a_verifier_is_measured_within_problems() -> None:
    rows = [
        problem([True, False, False], scores=[1.0, 0.0, 2.0]),
        problem([True, False], scores=[3.0, 3.0]),
        problem([True, True]),
    ]
    assert told_apart(rows) == 0.5
    assert told_apart(rows[2:]) is None
    same = problem([True, False, False], scores=[1.0, 0.0, 2.0], thoughts=[24, 24, 0])
    assert told_apart([same]) == 0.5
    assert told_apart([same], equal_thoughts=True) == 1.0
    assert told_apart([problem([True, False], thoughts=[24, 0])], equal_thoughts=True) is None


def test_accuracy_by_thinking_and_by_allowance() -> None:
    long = problem([True] * 30 + [False] * 10 + [False] * 30, thoughts=[24] * 40 + [0] * 30, lengths=[40] * 40 + [12] * 30)
    found = by_thinking([long])
    assert found["rows"] == [
        {"digits": 4, "tokens": 0, "n": 30, "value": 0.0},
        {"digits": 4, "tokens": 24, "n": 40, "value": 0.75},
    ]
    assert found["fit"]["slope"] == pytest.approx(0.75 / np.log2(25))
    assert by_thinking([problem([True] * 5)]) == {"rows": [], "fit": None}
    allowed = by_allowance([long])
    assert allowed["x"][-1] == 40
    assert allowed["value"][0] == 0
    assert allowed["value"][-1] == pytest.approx(30 / 70)


def test_what_thinking_longer_goes_along_with() -> None:
    paired = [problem([False, False, True, True], thoughts=[0, 0, 24, None]), problem([True, True], thoughts=[0, 0])]
    found = gain_of_thinking(paired)
    assert found is not None
    assert (found["value"], found["problems"]) == (1.0, 1)
    assert gain_of_thinking(paired[1:]) is None


def result(seed: int = 0) -> dict[str, Any]:
    """What a seed that meets every bar leaves, as far as the bars look."""
    curve = {"x": [1, 2, 4], "value": [0.2, 0.4, 0.6], "fit": {"r2": 0.99}}
    return {
        "seed": seed, "told apart": 0.9, "gain of thinking": {"value": 0.1},
        "tries": {name: copy.deepcopy(curve) for name in ("checker", "verifier", "longest", "majority", "weighed")},
    }  # fmt: skip


def test_a_good_seed_meets_every_bar() -> None:
    assert all(line.passed for line in judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("told apart",), None, "verifier: right above wrong"),
        (("tries", "verifier", "value"), [0.2, 0.2, 0.25], "best of 4 by the verifier"),
        (("tries", "checker", "value"), [0.2, 0.2, 0.25], "best of 4 by the exact checker"),
        (("tries", "checker", "fit", "r2"), 0.8, "R² of the log-linear fit, best of k by the checker"),
        (("tries", "verifier", "fit", "r2"), 0.8, "R² of the log-linear fit, best of k by the verifier"),
        (("gain of thinking", "value"), -0.1, "longer thoughts"),
    ],
)
def test_one_bad_seed_misses_exactly_its_bar(path: tuple[str, ...], value: Any, name: str) -> None:
    bad = spoilt(result(1), path, value)
    missed = [line.name for line in judge([result(0), bad]) if not line.passed]
    assert len(missed) == 1
    assert missed[0].startswith(name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a micro run on a borrowed base model; so small a model is never right, so its lessons are made up."""
    folder = tmp_path_factory.mktemp("test-time")
    pretrained_base(MICRO, folder / "lent" / "seed0" / "base", Seeds(0), True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            test_time_stages, "pairs_of", lambda p, samples, most, rng: pairs_of(SUM, [sample(FULL), sample(WRONG)], 1, rng)
        )
        assert not run(dataclasses.replace(MICRO, base=str(folder / "lent")), folder / "run", quiet=True)
    return folder / "run"


def test_a_micro_run_leaves_figures_bars_tables_and_a_report(finished: Path) -> None:
    written = json.loads((finished / "result.json").read_text())
    [seed] = written["figures"]["seeds"]
    assert set(written["accept"]) == {line.name for line in judge([seed])}
    assert seed["tries"]["checker"]["x"] == [1, 2, 4]
    assert seed["pairs"] == 4
    assert not (finished / "seed0" / "base").exists()
    stored = json.loads((finished / "seed0" / "tries.json").read_text())["problems"]
    assert [len(row["scores"]) for row in stored] == [4, 4, 4, 4]
    assert len({score for row in stored for score in row["scores"]}) > 1
    assert "| learned verifier | 0 |" in (finished / "tables.md").read_text()
    page = (finished / "report.html").read_text()
    for words in ("More tries and longer thinking", "Accuracy against tries", "Accuracy by length allowed"):
        assert words in page


def test_a_verifier_without_lessons_stays_as_it_begins(finished: Path, tmp_path: Path) -> None:
    base = finished.parent / "lent" / "seed0" / "base" / "model"
    model = test_time_stages.verifier(tmp_path / "verifier", base, [], MICRO, 0, True)
    assert test_time_stages.quality(tmp_path / "verifier") == {"accuracy": None, "n": 0}
    scores = RewardModel.load(model)([SUM.plain] * 2, [FULL, WRONG])
    assert scores[0] != scores[1]


def test_a_finished_run_is_only_told_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((finished / "result.json").read_text())
    monkeypatch.setattr(test_time_stages, "generate_samples", None)
    run(dataclasses.replace(MICRO, base=str(finished.parent / "lent")), finished, quiet=True)
    again = json.loads((finished / "result.json").read_text())
    for written in (before, again):
        del written["figures"]["seeds"][0]["seconds"]
    assert again == before
