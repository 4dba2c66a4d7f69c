"""From verdicts to a table, against a store that lives in a list."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from backflip.arena import add_matches, standings
from backflip.arena.ratings import Standings
from backflip.errors import ConfigError, DataError
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.seeds import Seeds

SEEDS = Seeds(0)


class Shelf:
    """A feedback store in memory."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.answered: list[Verdict] = []

    def add_queries(self, queries: list[Query]) -> int:
        self.asked += queries
        return len(queries)

    def add_verdicts(self, verdicts: list[Verdict]) -> int:
        self.answered += verdicts
        return len(verdicts)

    def queries(self, purpose: str | None = None) -> list[Query]:
        return [q for q in self.asked if purpose in (None, q.purpose)]

    def verdicts(self, since: int = 0, purpose: str | None = None) -> list[Verdict]:
        ids = {q.id for q in self.queries(purpose)}
        return [v for v in self.answered[since:] if v.query_id in ids]

    def play(self, a: str, b: str, choices: list[str], start: int = 0, annotator: str = "ann") -> None:
        """One match of `a` (left) and `b` (right) per choice, each on a prompt of its own."""
        for i, choice in enumerate(choices, start):
            query = Query(Prompt(f"p{i}"), (f"{a}{i}", f"{b}{i}"), policies=(a, b), purpose="arena")
            self.asked.append(query)
            self.answered.append(Verdict(query.id, annotator, choice))  # type: ignore[arg-type]


def place(table: Standings) -> dict[str, float | None]:
    return {r.policy: r.rating for r in table.ratings}


def test_two_policies_by_hand() -> None:
    shelf = Shelf()
    shelf.play("old", "new", ["right"] * 9 + ["left"] * 2 + ["tie"] * 2 + ["skip"])
    table = standings(shelf, seeds=SEEDS, anchor="old")
    best, worst = table.ratings
    assert (best.policy, worst.policy, worst.rating) == ("new", "old", 1000)
    assert best.rating == pytest.approx(1000 + 400 * math.log10(10 / 3))
    assert best.low is not None
    assert best.high is not None
    assert best.low < best.rating < best.high
    assert best.matches == worst.matches == 13, "a skip is no vote"
    assert table.comparable
    assert not table.regularised
    assert table.win_rates["new", "old"].mean == pytest.approx(10 / 13)
    assert table.win_rates["new", "old"].swap() == pytest.approx(table.win_rates["old", "new"])


def test_standings_of_nothing() -> None:
    table = standings(Shelf(), seeds=SEEDS, anchor="anybody")
    assert table.ratings == ()
    assert not table.comparable
    assert str(table) == "note: no matches yet"


def test_groups_that_never_met_are_not_comparable() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left", "right"])
    shelf.play("c", "d", ["left", "right"])
    table = standings(shelf, seeds=SEEDS)
    assert not table.comparable
    assert set(place(table).values()) == {None}
    assert table.components == (("a", "b"), ("c", "d"))
    assert "not comparable yet: {a, b} and {c, d} share no matches" in str(table)
    assert table.win_rates["a", "b"].mean == 0.5
    shelf.play("b", "c", ["tie"])
    assert standings(shelf, seeds=SEEDS).comparable


def test_a_policy_nobody_judged_has_no_rating_and_spoils_none() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left", "right", "left"])
    before = standings(shelf, seeds=SEEDS)
    shelf.asked.append(Query(Prompt("p9"), ("a9", "c9"), policies=("a", "c"), purpose="arena"))
    table = standings(shelf, seeds=SEEDS)
    assert "not comparable yet: {a, b} and {c} share no matches" in str(table)
    assert not table.comparable
    assert table.ratings == (*before.ratings, table.ratings[-1])
    assert (table.ratings[-1].policy, table.ratings[-1].rating, table.ratings[-1].matches) == ("c", None, 0)
    unmet = standings(shelf, seeds=SEEDS, anchor="c")
    assert set(place(unmet).values()) == {None}
    assert "the anchor 'c' has no votes yet" in str(unmet)


def test_an_undefeated_policy_is_said_to_be_so() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left"] * 10)
    table = standings(shelf, seeds=SEEDS)
    assert table.regularised
    assert "undefeated" in str(table)
    assert table.ratings[0].policy == "a"
    assert table.rank_ranges == {"a": (1, 1), "b": (2, 2)}
    assert table.win_rates["a", "b"].low == pytest.approx(0.7225, abs=1e-4)


def test_rank_ranges_are_places_that_the_votes_cannot_tell_apart() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left", "right"] * 20)
    shelf.play("a", "c", ["left"] * 36 + ["right"] * 4)
    shelf.play("b", "c", ["left"] * 36 + ["right"] * 4)
    table = standings(shelf, seeds=SEEDS)
    assert table.rank_ranges == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert table.ratings[-1].policy == "c"


def test_ties_of_identical_texts_count() -> None:
    shelf, n = Shelf(), 10
    samples = {
        name: [Sample(Prompt(f"p{i}"), "same" if i < 5 else f"{name}{i}", policy=name) for i in range(n)] for name in ("a", "b")
    }
    added = add_matches(shelf, samples, seeds=SEEDS)
    shelf.add_verdicts([Verdict(q.id, "ann", "left" if q.policies[0] == "a" else "right") for q in added.queries])
    table = standings(shelf, seeds=SEEDS)
    assert table.win_rates["a", "b"].mean == pytest.approx((5 + 5 / 2) / n)
    assert table.ratings[0].rating == pytest.approx(1000 + 200 * math.log10(3))
    assert table.ratings[0].matches == n
    shelf.add_verdicts([Verdict(q.id, "ann", "left") for q in shelf.queries("arena-same-text")])
    assert standings(shelf, seeds=SEEDS) == table, "an answer about two identical texts says nothing"


def test_the_last_answer_of_a_person_counts_and_every_person_counts() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left", "right", "left"])
    question = shelf.asked[0]
    shelf.answered.append(Verdict(question.id, "ann", "right", at=5.0))
    assert standings(shelf, seeds=SEEDS).win_rates["a", "b"].mean == pytest.approx(1 / 3)
    shelf.answered.append(Verdict(question.id, "bob", "left"))
    rate = standings(shelf, seeds=SEEDS).win_rates["a", "b"]
    assert (rate.mean, rate.n) == (0.5, 4)


def test_a_ranking_is_its_pairs_and_a_policy_does_not_meet_itself() -> None:
    shelf = Shelf()
    query = Query(Prompt("p"), ("x", "y", "z"), policies=("a", "b", "a"), purpose="arena")
    shelf.asked.append(query)
    shelf.answered.append(Verdict(query.id, "ann", "ranking", ranking=((0,), (1, 2))))
    rate = standings(shelf, seeds=SEEDS).win_rates["a", "b"]
    assert (rate.mean, rate.n) == (0.75, 2)


def test_other_purposes_do_not_count() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left", "right"])
    extra = Query(Prompt("t"), ("x", "y"), policies=("a", "z"))
    shelf.asked.append(extra)
    shelf.answered.append(Verdict(extra.id, "ann", "left"))
    assert set(place(standings(shelf, seeds=SEEDS))) == {"a", "b"}
    assert set(place(standings(shelf, seeds=SEEDS, purpose="train"))) == {"a", "z"}


def test_the_order_of_questions_and_answers_changes_nothing() -> None:
    rng, shelf = np.random.default_rng(0), Shelf()
    for pair in (("a", "b"), ("b", "c"), ("a", "c")):
        shelf.play(*pair, rng.choice(["left", "right", "tie"], size=30, p=[0.6, 0.3, 0.1]).tolist())
    expected = standings(shelf, seeds=SEEDS, resamples=100)
    for seed in range(3):
        random.Random(seed).shuffle(shelf.asked)
        random.Random(seed + 10).shuffle(shelf.answered)
        assert standings(shelf, seeds=SEEDS, resamples=100) == expected


def test_votes_by_more_people_on_the_same_prompts_do_not_narrow_the_interval() -> None:
    one, many = Shelf(), Shelf()
    choices = ["left"] * 20 + ["right"] * 10
    one.play("a", "b", choices)
    for annotator in "uvwxyz":
        many.play("a", "b", choices, annotator=annotator)
    alone, crowd = standings(one, seeds=SEEDS).ratings[0], standings(many, seeds=SEEDS).ratings[0]
    assert (crowd.rating, crowd.low, crowd.high) == pytest.approx((alone.rating, alone.low, alone.high))
    assert crowd.matches == 6 * alone.matches


def test_what_cannot_be_rated_is_one_sentence() -> None:
    shelf = Shelf()
    shelf.play("sft", "ppo", ["left", "right"])
    with pytest.raises(ConfigError, match="unknown anchor 'stf'; did you mean 'sft'"):
        standings(shelf, seeds=SEEDS, anchor="stf")
    shelf.asked.append(Query(Prompt("p"), ("x", "y"), purpose="arena"))
    with pytest.raises(DataError, match="does not say which policies"):
        standings(shelf, seeds=SEEDS)


def test_table_and_json_say_the_same() -> None:
    shelf = Shelf()
    shelf.play("a", "b", ["left"] * 6 + ["right"] * 3)
    table = standings(shelf, seeds=SEEDS, anchor="b")
    row = json.loads(json.dumps(table.to_json()))
    assert row["ratings"][0]["rating"] == pytest.approx(1000 + 400 * math.log10(2))
    assert row["ratings"][0]["rank"] == list(table.rank_ranges["a"])
    assert row["win_rates"][0] == {"policy": "a", "against": "b", **table.win_rates["a", "b"]._asdict()}
    assert (row["comparable"], row["anchor"], row["notes"]) == (True, "b", [])
    header, first, second, _, matrix, *_ = str(table).splitlines()
    assert header.split() == ["rank", "policy", "rating", "95", "%", "interval", "votes"]
    assert first.split()[:3] == ["1–2", "a", "1120"]
    assert second.split()[2:4] == ["1000", "anchor"]
    assert matrix.split() == ["beats", "→", "a", "b"]
    assert "67% [" in str(table)
