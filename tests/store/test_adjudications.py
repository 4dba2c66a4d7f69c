"""Decisions beside the answers: kept, the last counts, and nothing follows unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backflip.errors import DataError, UserError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.following import Following, moment, question

PAIRS = [Query(Prompt(f"Q{i}"), (f"a{i}", f"b{i}"), ("one", "two")) for i in range(3)]
FOUR = Query(Prompt("Q"), ("w", "x", "y", "z"))


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with Store(place, clock=lambda: 50.0) as store:
        store.add_queries([*PAIRS, FOUR])
        store.add_verdicts(
            [
                Verdict(PAIRS[0].id, "ann", "left"),
                Verdict(PAIRS[0].id, "bob", "right"),
                Verdict(PAIRS[1].id, "ann", "left"),
                Verdict(FOUR.id, "ann", "ranking", ((0,), (1,), (2,), (3,))),
                Verdict(PAIRS[0].id, "cat", "skip"),
            ]
        )
        yield store


def test_a_decision_stands_beside_the_answers_and_the_last_counts(store: Store) -> None:
    before, plain = store.verdicts(), store.comparisons()
    first = store.adjudicate(Verdict(PAIRS[0].id, "eve", "left", note="short", shown_first=1), key="k1", client_t=49.0)
    assert store.adjudicate(Verdict(PAIRS[0].id, "eve", "left", note="short", shown_first=1), key="k1") == first
    with pytest.raises(DataError, match="was used for another event"):
        store.adjudicate(Verdict(PAIRS[0].id, "eve", "right"), key="k1")
    with pytest.raises(DataError, match="was used for another event"):
        store.adjudicate(Verdict(PAIRS[0].id, "mallory", "left", note="short", shown_first=1), key="k1")
    second = store.adjudicate(Verdict(PAIRS[0].id, "eve", "tie"), key="k2")
    assert [(d.event_id, d.verdict.choice, d.verdict.note, d.verdict.at) for d in store.adjudications()] == [
        (first, "left", "short", 50.0), (second, "tie", "", 50.0),
    ]  # fmt: skip
    assert store.adjudications("train")[0].query == PAIRS[0]
    assert store.adjudications("elsewhere") == []
    assert store.verdicts() == before
    assert store.comparisons() == plain
    assert not store.rebuild()
    store.verify()


def test_comparisons_with_decisions_in_place_of_answers(store: Store) -> None:
    store.adjudicate(Verdict(PAIRS[0].id, "eve", "right"), key="k1")
    store.adjudicate(Verdict(FOUR.id, "eve", "ranking", ((3,), (0, 1, 2))), key="k2")
    store.adjudicate(Verdict(PAIRS[2].id, "eve", "left"), key="k3")
    found = store.comparisons(adjudicated=True)
    assert [(c.annotator, c.query_id, c.p_left, c.weight) for c in found[:2]] == [
        ("eve", PAIRS[0].id, 0.0, 1.0), ("ann", PAIRS[1].id, 1.0, 1.0),
    ]  # fmt: skip
    assert found[0].left_policy == "one"
    ranked = found[2:]
    assert {(c.annotator, c.query_id) for c in ranked} == {("eve", FOUR.id)}
    assert sum(c.weight for c in ranked) == pytest.approx(1.0)
    assert [c.p_left for c in ranked] == [0.5, 0.5, 0.0, 0.5, 0.0, 0.0]
    assert len(store.comparisons()) == 3 + 6
    assert store.comparisons(adjudicated=True, until=1) == found[:1]
    with pytest.raises(UserError, match="from 0, not from 2"):
        store.comparisons(since=2, adjudicated=True)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict("nowhere", "eve", "left"), "is not in the store"),
        (Verdict(PAIRS[0].id, "eve", "skip"), "left, right, tie or a ranking"),
        (Verdict(FOUR.id, "eve", "rating", scores=(1, 2, 3, 4)), "left, right, tie or a ranking"),
        (Verdict(FOUR.id, "eve", "left"), "give a ranking"),
        (Verdict(FOUR.id, "eve", "ranking", ((0,), (1,))), "each of 4 completions once"),
        (Verdict(PAIRS[0].id, "eve", "left", shown_first=2), "no completion 2"),
    ],
)
def test_what_decides_nothing_is_refused(store: Store, verdict: Verdict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        store.adjudicate(verdict, key="k1")
    assert store.events_of("adjudicate", 10) == []


def test_a_note_that_says_something_else_is_passed_over(store: Store) -> None:
    strange = [
        {}, {"query_id": PAIRS[0].id}, {"query_id": PAIRS[0].id, "choice": "skip"}, {"query_id": 3, "choice": "left"},
        {"query_id": FOUR.id, "choice": "left"}, {"query_id": FOUR.id, "choice": "ranking", "ranking": "0123"},
        {"query_id": FOUR.id, "choice": "ranking", "ranking": [[0.0], [1], [2], [3]]}, {"query_id": "nowhere", "choice": "left"},
        {"query_id": PAIRS[0].id, "choice": "left", "note": 3}, {"query_id": PAIRS[0].id, "choice": "left", "ranking": None},
        {"query_id": PAIRS[0].id, "choice": ["left"]},
    ]  # fmt: skip
    for i, payload in enumerate(strange):
        store.note("adjudicate", "eve", payload, key=f"note {i}")
    assert store.adjudications() == []
    assert store.comparisons(adjudicated=True) == store.comparisons()
    store.note("adjudicate", "eve", {"query_id": PAIRS[0].id, "choice": "right"}, key="plain")
    assert [d.verdict.choice for d in store.adjudications()] == ["right"]


def test_following_reads_only_what_is_new_and_forgets_what_was_taken_back(store: Store) -> None:
    following = Following(store, ("train",))
    assert following.catch_up() == moment(store) == following.seen
    assert list(following.queries) == [query.id for query in store.queries()]
    assert list(following.verdicts.values()) == store.verdicts()
    held = following.queries[PAIRS[0].id]
    store.retract(store.verdicts()[1].id, "bob")
    later = Query(Prompt("later"), ("a", "b"))
    store.add_queries([later, Query(Prompt("other"), ("a", "b"), purpose="other")])
    assert following.seen != moment(store), "a question alone is news"
    store.add_verdicts([Verdict(later.id, "ann", "tie"), Verdict(later.id, "bob", "tie")])
    store.retract(store.verdicts()[-1].id, "bob")
    following.catch_up()
    assert list(following.verdicts.values()) == store.verdicts()
    assert list(following.queries) == [query.id for query in store.queries("train")]
    assert following.queries[PAIRS[0].id] is held
    assert question(store, PAIRS[0].id) == (PAIRS[0], [v for v in store.verdicts() if v.query_id == PAIRS[0].id])
    assert question(store, "nowhere") is None
