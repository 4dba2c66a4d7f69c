"""Habits of sides and lengths: planted ones are found apart from each other, and lengths of names are none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from backflip.feedback.answers import read
from backflip.feedback.habits import Habits, habits
from backflip.records import Prompt, Query, Verdict


def answered(
    n: int, side: float, length: float, seed: int = 0, annotator: str = "ann", together: float = 0.0
) -> tuple[dict[str, Query], list[Verdict]]:
    """n pairs of texts answered with P(left) = σ(side·first + length·sign of the difference); with `together` the longer text
    stands first that much more often."""
    rng, queries, verdicts = np.random.default_rng(seed), {}, []
    for i in range(n):
        sizes = (10, 30) if rng.random() < 0.5 else (30, 10)
        query = Query(Prompt(f"{annotator} {i}"), ("a" * sizes[0], "b" * sizes[1]))
        longer = int(sizes[1] > sizes[0])
        first = longer if rng.random() < 0.5 + together / 2 else 1 - longer
        z = side * (1 if first == 0 else -1) + length * (1 if longer == 0 else -1)
        choice = "left" if rng.random() < 1 / (1 + math.exp(-z)) else "right"
        queries[query.id] = query
        verdicts.append(Verdict(query.id, annotator, choice, shown_first=first))
    return queries, verdicts


def found_in(queries: dict[str, Query], verdicts: Sequence[Verdict], **options: Any) -> list[Habits]:
    return habits(read(queries, verdicts, {}, ()), queries, **options)


def test_planted_habits_are_found_apart() -> None:
    queries, verdicts = answered(4000, side=0.8, length=0.5, together=0.5)
    everybody, ann = found_in(queries, verdicts)
    assert everybody.name == "everybody"
    assert (ann.first, ann.longer) == (everybody.first, everybody.longer)
    assert everybody.first.value == pytest.approx(0.8, abs=0.12)
    assert everybody.longer.value == pytest.approx(0.5, abs=0.12)
    assert everybody.typical == pytest.approx(0.5)
    assert (everybody.n, everybody.n_queries) == (4000, 4000)


def test_who_likes_only_length_is_not_accused_of_a_side() -> None:
    queries, verdicts = answered(3000, side=0.0, length=1.0, together=0.8)
    first = sum((v.choice == "left") == (v.shown_first == 0) for v in verdicts) / len(verdicts)
    assert first > 0.6, "the share of the side alone would accuse them"
    everybody = found_in(queries, verdicts)[0]
    assert everybody.first.low is not None
    assert everybody.first.high is not None
    assert everybody.first.low < 0 < everybody.first.high
    assert everybody.longer.p is not None
    assert everybody.longer.p < 1e-6


def test_everybody_is_people_and_each_labeler_has_a_row() -> None:
    queries, verdicts = answered(200, 0.0, 2.0, annotator="ann")
    more, others = answered(200, 0.0, -2.0, seed=1, annotator="judge")
    found = {each.name: each for each in found_in(queries | more, [*verdicts, *others], people={"ann"})}
    assert list(found) == ["everybody", "ann", "judge"]
    assert found["everybody"].n == 200
    assert found["ann"].longer.value is not None
    assert found["judge"].longer.value is not None
    assert found["ann"].longer.value > 1 > -1 > found["judge"].longer.value


def test_a_tie_is_half_a_win_each_way_and_equal_lengths_say_nothing() -> None:
    query = Query(Prompt("p"), ("aa", "bb"))
    tie = found_in({query.id: query}, [Verdict(query.id, "ann", "tie")])[0]
    assert tie.first.value == pytest.approx(0)
    assert tie.longer.value is None
    assert tie.typical == 0


def test_names_and_clips_have_no_length() -> None:
    named = Query(Prompt("8"), ("GPT 4", "Weaver 12k"), ("GPT 4", "Weaver 12k"))
    clip = Query(Prompt("9"), ("a" * 64, "b" * 60), form="clip")
    verdicts = [Verdict(query.id, "ann", "left") for query in (named, clip)]
    found = found_in({named.id: named, clip.id: clip}, verdicts)[0]
    assert found.longer.value is None
    assert found.n == 2


def test_nobody_answered_and_plain_json() -> None:
    [nobody] = found_in({}, [])
    assert nobody.first == (None, None, None, None)
    json.dumps(nobody.to_json(), allow_nan=False)
    queries, verdicts = answered(8, 5.0, 5.0)
    for each in found_in(queries, verdicts):
        json.dumps(each.to_json(), allow_nan=False)
