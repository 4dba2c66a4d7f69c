"""A store told whole: counts, what is left out and said so, circles planted and found, and how questions were chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.feedback.report import ASKED, asked_event, overview, random_share
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Projects, gold_purpose


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "feedback.db") as made:
        yield made


def fill(store: Store, queries: list[Query], verdicts: list[Verdict]) -> None:
    store.add_queries(queries)
    store.add_verdicts(verdicts)


def pair(i: int, left: str = "a", right: str = "bb", **more: Any) -> Query:
    return Query(Prompt(f"p{i}"), (left, right), **more)


def test_counts_by_hand(store: Store) -> None:
    queries = [pair(i) for i in range(4)]
    fill(
        store, queries,
        [Verdict(queries[0].id, "ann", "left"), Verdict(queries[0].id, "ben", "left"), Verdict(queries[1].id, "ann", "right"),
         Verdict(queries[2].id, "ben", "skip")],
    )  # fmt: skip
    found = overview(store, seeds=Seeds(0))
    assert (found.questions, found.answered, found.answers, found.skips) == (4, 2, 3, 1)
    assert found.quality.n_overlapping == 1
    assert [each.name for each in found.habits] == ["everybody", "ann", "ben"]
    assert found.notes == ("1 labeler gave one answer only (ben); their own figures say nothing",)
    assert found.asked == {}
    json.dumps(found.to_json(), allow_nan=False)


def test_a_text_compared_with_itself_is_left_out_and_said(store: Store) -> None:
    good, same = pair(0), pair(1, "a", "a")
    fill(store, [good, same], [Verdict(q.id, name, "left") for q in (good, same) for name in ("ann", "ben")])
    found = overview(store, seeds=Seeds(0))
    assert found.answers == 2
    assert "1 question compare a text with itself; they and 2 answers are left out" in found.notes
    assert any("every answer is the same" in note for note in found.notes)


def test_all_ties_are_said_so(store: Store) -> None:
    queries = [pair(i) for i in range(6)]
    fill(store, queries, [Verdict(query.id, "ann", "tie") for query in queries])
    notes = overview(store, seeds=Seeds(0)).notes
    assert "every answer is a tie, so there is nothing for a reward model to learn from" in notes
    assert "ann called everything a tie" in notes
    assert any("no question was answered by two people" in note for note in notes)


def test_planted_circles_among_policies(store: Store) -> None:
    names = [f"policy {i}" for i in range(6)]
    queries, verdicts = [], []
    for i in range(6):
        for j in range(i):
            for k in range(10):
                query = Query(Prompt(f"{i} {j} {k}"), ("x", "y"), (names[i], names[j]))
                wins = {0: 5, 1: 8, 2: 2}[(i - j) % 3]
                queries.append(query)
                verdicts.append(Verdict(query.id, "ann", "left" if k < wins else "right"))
    fill(store, queries, verdicts)
    found = overview(store, seeds=Seeds(0))
    assert found.circles_of == "policies"
    assert found.circles is not None
    assert found.circles.share == 1.0
    assert found.circles.p is not None
    assert found.circles.p < 0.05


def test_circles_among_completions_of_one_prompt(store: Store) -> None:
    texts = ("a", "bb", "ccc")
    queries = [Query(Prompt("p"), (texts[i], texts[(i + 1) % 3])) for i in range(3)]
    fill(store, queries, [Verdict(query.id, "ann", "left") for query in queries])
    found = overview(store, seeds=Seeds(0))
    assert found.circles_of == "completions"
    assert found.circles is not None
    assert (found.circles.triples, found.circles.cyclic) == (1, 1)


def test_known_answers_and_other_purposes_stay_apart(store: Store) -> None:
    known, arena, own = pair(0, purpose=gold_purpose("train")), pair(1, purpose="arena"), pair(2)
    Projects(store).set_golds([(known, "left")], by="test")
    fill(store, [arena, own], [Verdict(query.id, "ann", "right") for query in (known, arena, own)])
    found = overview(store, seeds=Seeds(0))
    assert (found.questions, found.answers) == (1, 1)
    [ann] = found.quality.raters
    assert (ann.gold.value, ann.gold.n) == (0.0, 1)
    assert overview(store, purpose="arena", seeds=Seeds(0)).answers == 1


def test_how_questions_were_chosen_is_told_and_the_random_share_found(store: Store) -> None:
    queries = [pair(i) for i in range(5)]
    fill(store, queries, [Verdict(queries[0].id, "ann", "left")])
    payload = asked_event("information", [(query.id, i < 2, 0.1 * i) for i, query in enumerate(queries)], "train")
    store.note(ASKED, "test", payload, key="asked:1")
    assert overview(store, seeds=Seeds(0)).asked == {"random": 2, "information": 3}
    assert random_share(store) == {queries[0].id, queries[1].id}
    assert random_share(store, "arena") == set()
    assert store.verify().queries == 5


def test_nothing_to_tell_is_a_sentence(store: Store) -> None:
    with pytest.raises(DataError, match="no questions of purpose 'train'"):
        overview(store, seeds=Seeds(0))
    store.add_queries([pair(0)])
    with pytest.raises(DataError, match="has an answer yet"):
        overview(store, seeds=Seeds(0))
