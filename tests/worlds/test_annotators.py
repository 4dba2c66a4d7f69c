"""Simulated people: keyed, near gold, different from each other."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from backflip.records import Prompt, Query
from backflip.seeds import Seeds
from backflip.worlds.annotators import Annotator, Panel, tastes
from backflip.worlds.reviews import Reviews, Weights

WORLD = Reviews()
ROWS = WORLD.demonstrations(1200, Seeds(2))


def utilities(person: Annotator) -> np.ndarray:
    return np.array([person(prompt, completion) for prompt, completion in ROWS])


def queries(n: int) -> list[Query]:
    return [Query(Prompt(f"{i}"), ("a", "b")) for i in range(n)]


def test_without_spread_everybody_judges_as_gold_does() -> None:
    for person in tastes(WORLD, 3, Seeds(0), spread=0.0):
        assert person.weights == Weights()
        assert all(person(p, c) == WORLD.gold(p, c) for p, c in ROWS[:50])


def test_people_agree_with_gold_on_nine_pairs_in_ten_and_yet_differ() -> None:
    gold = np.array([WORLD.gold(p, c) for p, c in ROWS])
    agreement = []
    for person in tastes(WORLD, 10, Seeds(0)):
        own = utilities(person)
        agreement.append(np.mean((own[::2] > own[1::2]) == (gold[::2] > gold[1::2])))
    assert np.mean(agreement) >= 0.9
    assert min(agreement) > 0.85
    assert max(agreement) < 1.0
    assert len(set(agreement)) > 1


def test_more_spread_means_less_agreement() -> None:
    gold = np.array([WORLD.gold(p, c) for p, c in ROWS])

    def correlation(spread: float) -> float:
        return float(np.mean([np.corrcoef(utilities(a), gold)[0, 1] for a in tastes(WORLD, 8, Seeds(1), spread)]))

    assert correlation(0.05) > correlation(0.2) > correlation(0.8)


def test_deviations_are_lognormal_with_the_given_spread() -> None:
    people = tastes(WORLD, 400, Seeds(3), spread=0.3)
    gold = dataclasses.asdict(Weights())
    for name, weight in gold.items():
        own = np.array([getattr(person.weights, name) for person in people])
        deviations = own if name == "long" else np.log(own / weight)
        assert abs(deviations.mean()) < 4 * 0.3 / math.sqrt(400), name
        assert deviations.std() == pytest.approx(0.3, rel=0.2), name


def test_a_person_is_the_same_whatever_the_number_of_people() -> None:
    few, many = tastes(WORLD, 3, Seeds(5)), tastes(WORLD, 9, Seeds(5))
    assert few == many[:3]
    assert [person.name for person in few] == ["annotator-01", "annotator-02", "annotator-03"]
    assert few[0].weights != few[1].weights
    assert few[0].weights != tastes(WORLD, 1, Seeds(6))[0].weights


@pytest.mark.parametrize("spread", [-0.1, math.nan, math.inf])
def test_an_impossible_spread_is_refused(spread: float) -> None:
    with pytest.raises(ValueError, match="spread"):
        tastes(WORLD, 1, Seeds(0), spread)


def test_a_panel_gives_a_query_to_the_same_person_in_any_order() -> None:
    people = tastes(WORLD, 5, Seeds(0))
    asked = queries(200)
    forward = {q.id: Panel(people, Seeds(1)).assign(q).name for q in asked}
    backward = {q.id: Panel(people, Seeds(1)).assign(q).name for q in reversed(asked)}
    other = {q.id: Panel(people, Seeds(2)).assign(q).name for q in asked}
    assert forward == backward
    assert forward != other


def test_a_panel_shares_the_work_evenly() -> None:
    panel = Panel(tastes(WORLD, 4, Seeds(0)), Seeds(1))
    load = Counter(panel.assign(q).name for q in queries(2000))
    assert len(load) == 4
    assert all(abs(n - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75) for n in load.values())


def test_a_panel_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Panel([], Seeds(0))
