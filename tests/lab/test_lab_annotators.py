"""`annotators`: the people and their questions, each part by hand or as a property, and the whole of it at a very small size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import spoilt

from backflip.lab import annotators
from backflip.lab.annotators import QUICK, Settings, judge
from backflip.lab.annotators_figures import gain, needed, shares_needed
from backflip.lab.annotators_people import GROUPS, answered, options, pairs, people, true_gaps
from backflip.lab.annotators_stages import crowd, labels, shares
from backflip.seeds import Seeds


def test_six_three_and_one_tenth_of_the_people() -> None:
    persons = people(Settings(), Seeds(0))
    assert [sum(p.group == g for p in persons) for g in range(3)] == [12, 6, 2]
    assert len({p.name for p in persons}) == 20
    assert [p.name.split("-")[0] for p in persons[::12]] == ["warm", "cold"]
    assert people(Settings(), Seeds(0))[3].taste.weights == persons[3].taste.weights
    assert people(Settings(), Seeds(1))[3].taste.weights != persons[3].taste.weights


def test_tastes_are_opposed_and_alike_within_a_group() -> None:
    persons = people(Settings(), Seeds(0))
    gap = np.sign(true_gaps(persons, pairs(300, Seeds(1))))
    agree = (gap.T @ gap) / len(gap)
    within = [agree[i, j] for i in range(20) for j in range(i) if persons[i].group == persons[j].group]
    warm_cold = [agree[i, j] for i in range(12) for j in range(12, 18)]
    assert min(within) > 0.6
    assert max(warm_cold) < -0.2


def test_questions_are_pairs_of_different_texts_and_test_prompts_are_never_trained_on() -> None:
    train, test = pairs(60, Seeds(0)), pairs(60, Seeds(0), "test")
    assert all(query.completions[0] != query.completions[1] for query in train)
    assert not {query.prompt.plain for query in train} & {query.prompt.plain for query in test}
    assert [query.id for query in pairs(60, Seeds(0))] == [query.id for query in train]
    assert all(len(set(texts)) == 5 for _, texts in options(4, 5, Seeds(2)))


def test_answers_follow_taste_but_for_noise() -> None:
    persons, queries = people(Settings(), Seeds(0)), pairs(200, Seeds(3))
    gap = true_gaps(persons, queries)
    for j in (0, 13, 19):
        said = answered(persons[j], queries, Settings(), Seeds(4))
        right = np.mean([(c.p_left > 0.5) == (g > 0) for c, g in zip(said, gap[:, j], strict=True)])
        assert 0.75 < right < 1.0
        assert {c.annotator for c in said} == {persons[j].name}


def test_shares_are_means_over_people() -> None:
    persons = people(Settings(people=10), Seeds(0))  # six, three, one
    truth = np.ones((4, 10))
    gap = np.ones((4, 10))
    gap[:, 6:9] = -1
    gap[:, 9] = 0
    found = shares(gap, truth, persons)
    assert found == {"everybody": pytest.approx(0.65), "warm": 1.0, "cold": 0.0, "plain": 0.5}
    assert list(found) == ["everybody", *GROUPS]


def test_soft_labels_keep_what_hard_ones_round() -> None:
    queries = pairs(3, Seeds(0))
    shared = list(zip(queries, (0.75, 0.25, 0.5), strict=True))
    assert [c.p_left for c in labels(shared, "soft")] == [0.75, 0.25, 0.5]
    assert [c.p_left for c in labels(shared, "hard")] == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("seed", range(3))
def test_reliabilities_are_found_again(seed: int) -> None:
    found = crowd(Settings(), Seeds(seed))
    assert found["answers"] == 4800
    assert found["methods"]["one-coin"]["r"] >= 0.9
    assert found["methods"]["dawid-skene"]["r"] >= 0.9
    assert found["methods"]["one-coin"]["accuracy"] > found["methods"]["majority"]["accuracy"]


def test_how_many_questions_a_curve_needs() -> None:
    assert needed([100, 200, 300], [0.5, 0.7, 0.8], 0.75) == pytest.approx(250)
    assert needed([100, 200], [0.6, 0.7], 0.6) == 100
    assert needed([100, 200], [0.6, 0.7], 0.75) is None


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotators")
    annotators.run(QUICK, folder, True)
    return folder


def test_the_whole_of_it(ran: Path) -> None:
    result = json.loads((ran / "result.json").read_text())
    assert len(result["accept"]) == 5
    [seed] = result["figures"]["seeds"]
    assert seed["whose"]["n"] == 120
    assert all(0 <= value <= 1 for row in seed["whose"]["accuracy"].values() for value in row.values())
    assert seed["juries"]["true"]["by numbers"] == 0.0
    assert sum(seed["juries"]["seats"]["by numbers"]) == 12
    assert set(seed["asking"]["accuracy"]) == {"random", "disagreement", "information", "near-tie", "explore"}
    first = {curve[0] for curve in seed["asking"]["accuracy"].values()}
    assert len(first) == 1, "every rule begins with the same random questions"
    assert "What to ask" in (ran / "report.html").read_text()
    assert "pooled in part" in (ran / "tables.md").read_text()


def test_a_finished_run_is_told_again_and_each_bar_can_be_missed(ran: Path) -> None:
    before = json.loads((ran / "result.json").read_text())
    annotators.run(QUICK, ran, True)
    after = json.loads((ran / "result.json").read_text())
    [seed] = after["figures"]["seeds"]
    assert before["accept"] == after["accept"]

    def met(**changes: Any) -> list[bool]:
        good = spoilt(seed, ("asking", "accuracy"), {"random": [0.5, 0.6, 0.7], "information": [0.5, 0.75, 0.8]})
        good = spoilt(good, ("labels", "soft", "nll"), good["labels"]["hard"]["nll"] - 0.1)
        good = spoilt(good, ("crowd", "methods", "one-coin", "r"), 0.95)
        accuracy = {name: dict.fromkeys(row, 0.9) for name, row in good["whose"]["accuracy"].items()}
        accuracy["one model of all"] = dict.fromkeys(accuracy["one model of all"], 0.7)
        good = spoilt(good, ("whose", "accuracy"), accuracy)
        for path, value in changes.items():
            good = spoilt(good, tuple(path.split("__")), value)
        return [line.passed for line in judge([good])]

    assert met() == [True] * 5
    assert met(labels__soft__nll=9.0) == [True, True, False, True, True]
    assert met(asking__accuracy={"random": [0.5, 0.6, 0.7], "information": [0.5, 0.6, 0.69]})[-1] is False
    spoiled = spoilt(seed, ("whose", "accuracy", "own head, pooled in part", "plain"), 0.0)
    assert gain(spoiled, "plain") <= 0
    never = spoilt(seed, ("asking", "accuracy"), {"random": [0.5, 0.55, 0.6], "explore": [0.4, 0.45, 0.5]})
    assert shares_needed([never]) == {"explore": None}
