"""Matches kept up to date: brought up to a store step by step, they say what a fresh look says."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any

import pytest

from backflip.arena import add_matches, standings
from backflip.arena.games import Games
from backflip.arena.matches import same_text_purpose
from backflip.arena.order import generation_order, missing_links, usual_anchor
from backflip.arena.ratings import rate
from backflip.errors import DataError
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.store import Marks

SEEDS = Seeds(0)


def duel(a: str, b: str, i: int, **more: Any) -> Query:
    return Query(Prompt(f"p{i}"), (f"{a} {i}", f"{b} says {i}"), policies=(a, b), purpose="arena", **more)


def follow(games: Games, store: Store, seen: Marks) -> Marks:
    """Bring matches up to a store, as a page does."""
    now = store.marks
    both = (games.purpose, same_text_purpose(games.purpose))
    games.ask(q for p in both for q in store.queries(p, seen.queries, now.queries))
    games.answer(v for p in both for v in store.verdicts(seen.verdicts, p, now.verdicts))
    games.take_back(store.retracted(seen.retractions, now.retractions))
    return now


def test_step_by_step_equals_at_once(tmp_path: Path) -> None:
    rng, games, seen = random.Random(0), Games(), Marks()
    with Store(tmp_path / "f.db") as store:
        asked: list[Query] = []
        for step in range(60):
            pair = rng.sample(["sft", "round1", "round2", "round3"], 2)
            asked.append(duel(pair[0], pair[1], step % 20))
            store.add_queries(asked[-1:])
            query, by = rng.choice(asked), rng.choice("uvw")
            verdict = Verdict(query.id, by, rng.choice(["left", "right", "tie", "skip"]), at=float(step))  # type: ignore[arg-type]
            store.add_verdicts([verdict])
            if rng.random() < 0.3:
                taken = rng.choice(store.verdicts(purpose="arena"))
                store.retract(taken.id, taken.annotator)
            if rng.random() < 0.5:
                seen = follow(games, store, seen)
        follow(games, store, seen)
        assert games.played() == Games.of(store).played()
        known: Any = {}
        for _ in range(2):  # the second time from what is known
            assert rate(games, seeds=SEEDS, resamples=50, known=known) == standings(store, seeds=SEEDS, resamples=50)


def test_marks_say_when_something_happened_and_retracted_says_what(tmp_path: Path) -> None:
    with Store(tmp_path / "f.db") as store:
        assert store.marks == Marks(0, 0, 0)
        queries = [duel("a", "b", i) for i in range(3)]
        store.add_queries(queries)
        given = [Verdict(query.id, "ann", "left") for query in queries]
        store.add_verdicts(given)
        assert store.marks == Marks(3, 3, 0)
        store.add_queries(queries)
        assert store.marks == Marks(3, 3, 0)
        store.retract(given[2].id, "ann")
        store.retract(given[0].id, "ann")
        assert store.marks == Marks(3, 3, 2)
        assert store.retracted() == [given[2], given[0]]
        assert store.retracted(1) == [given[0]]
        assert store.retracted(0, 1) == [given[2]]
        assert store.queries("arena", 1) == queries[1:]
        assert store.queries(since=1, until=2) == queries[1:2]


def test_whose_answers_count(tmp_path: Path) -> None:
    texts = {name: [Sample(Prompt(f"p{i}"), "same" if i < 2 else f"{name}{i}") for i in range(8)] for name in "ab"}
    with Store(tmp_path / "f.db") as store:
        queries = add_matches(store, texts, seeds=SEEDS).queries
        for query in queries:
            a, b = ("left", "right") if query.policies[0] == "a" else ("right", "left")
            store.add_verdicts([Verdict(query.id, "ann", a), Verdict(query.id, "judge", b)])  # type: ignore[arg-type]
        people = standings(store, seeds=SEEDS, counts=lambda name: name == "ann")
        machines = standings(store, seeds=SEEDS, counts=lambda name: name != "ann")
        both, games = standings(store, seeds=SEEDS), Games.of(store)
    assert [people.win_rates["a", "b"].n, machines.win_rates["a", "b"].n, both.win_rates["a", "b"].n] == [8, 8, 14]
    assert people.win_rates["a", "b"].mean == (6 + 2 / 2) / 8
    assert machines.win_rates["a", "b"].mean == 2 / 2 / 8
    assert both.win_rates["a", "b"].mean == 0.5
    assert (games.votes(), games.annotators()) == (12, ["ann", "judge"])
    assert (games.votes("ann".__eq__), games.annotators("ann".__eq__)) == (6, ["ann"])
    assert (games.open("a", "b"), len(games.asked("b", "a"))) == (0, 8)
    assert people.better["a", "b"] > 0.95 > 0.05 > machines.better["a", "b"]
    assert people.better["a", "b"] + people.better["b", "a"] == pytest.approx(1)


def test_ratings_at_equal_length() -> None:
    # b's text is the longer half of the time, and the longer text wins 4 times in 5: no policy is better.
    games = Games()
    for i in range(200):
        longer, wins = i % 2, (i // 2) % 5 > 0
        texts = ("w" * 100, "w" * 200) if longer else ("w" * 200, "w" * 100)
        texts = (f"{texts[0]}{i}", f"{texts[1]}{i}") if i < 150 else (f"{texts[1]}{i}", f"{texts[0]}{i}")
        left_is_longer = len(texts[0]) > len(texts[1])
        query = Query(Prompt(f"p{i}"), texts, policies=("a", "b"), purpose="arena")
        games.ask([query])
        games.answer([Verdict(query.id, "ann", "left" if left_is_longer == wins else "right")])
    raw = rate(games, seeds=SEEDS, resamples=200)
    even = rate(games, seeds=SEEDS, resamples=200, length_controlled=True)
    assert raw.length is None
    assert even.length is not None
    assert even.length.low > 0.5
    assert even.length.low < even.length.coefficient < even.length.high
    assert even.to_json()["length"] == even.length._asdict()
    assert even.win_rates == raw.win_rates, "how often who won is what it is"
    again = rate(games, seeds=SEEDS, resamples=200, length_controlled=True)
    assert again == even


def test_what_is_not_a_text_has_no_length() -> None:
    games = Games()
    games.ask([Query(Prompt("p"), ("f" * 64, "e" * 64), policies=("a", "b"), purpose="arena", form="clip")])
    [id] = games._matches
    games.answer([Verdict(id, "ann", "left")])
    assert games.played()[0][-2:] == (0, 0)


def test_a_question_that_names_nobody_files_nothing() -> None:
    games = Games()
    with pytest.raises(DataError, match="does not say which policies"):
        games.ask([duel("a", "b", 0), Query(Prompt("p"), ("x", "y"), purpose="arena")])
    assert games.names == []
    with pytest.raises(DataError, match="not among the matches"):
        games.answer([Verdict("q", "ann", "left")])


def test_generations_stand_in_the_order_they_were_made() -> None:
    names = ["round10", "sft", "round9", "round1", "base", "ppo-b", "ppo-a", "Round2"]
    assert generation_order(names) == ["base", "sft", "ppo-a", "ppo-b", "round1", "Round2", "round9", "round10"]
    assert generation_order(["7b", "13b", "", "x"]) == ["", "7b", "13b", "x"]
    assert (usual_anchor(names), usual_anchor(["b", "a"]), usual_anchor([])) == ("sft", "a", None)


def test_the_missing_link_joins_neighbours() -> None:
    assert missing_links([]) == []
    assert missing_links([("a", "b")]) == []
    groups = [("round4",), ("round2", "round3"), ("sft", "round1"), ("x", "y")]
    assert missing_links(groups) == [("round1", "round2"), ("round3", "round4"), ("round4", "x")]


def test_twenty_policies_and_twenty_thousand_votes() -> None:
    # The budget of the page is a second; here only that what was learned is used, and that nothing is quadratic.
    pairs = list(itertools.combinations([f"round{i}" for i in range(20)], 2))
    queries = [
        Query(Prompt(f"p{i % 500}"), (f"a{i}", f"b{i}" * (1 + i % 3)), policies=pairs[i % len(pairs)], purpose="arena")
        for i in range(4000)
    ]
    games, known = Games(), {}  # type: ignore[var-annotated]
    games.ask(queries)
    for i, query in enumerate(queries):
        games.answer(Verdict(query.id, f"ann{k}", "left" if (i * 7 + k) % 5 < 2 else "right") for k in range(5))
    assert len(rate(games, seeds=SEEDS, known=known).ratings) == 20
    games.answer([Verdict(queries[0].id, "one more", "left")])
    for controlled, most in ((False, 3), (True, 5)):
        began = time.process_time()
        table = rate(games, seeds=SEEDS, known=known, length_controlled=controlled)
        assert time.process_time() - began < most
        assert sum(rating.matches for rating in table.ratings) == 2 * 20_001
