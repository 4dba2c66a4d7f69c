"""Claiming, answering and undoing in front of a page: sides, overlap, leases that run out, answers that come late."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from backflip.errors import DataError, UserError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.leases import LEASE_S, Claim


class Clock:
    """A clock that the test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def questions(n: int, completions: tuple[str, ...] = ("x", "y")) -> list[Query]:
    return [Query(Prompt(f"p{i}"), completions) for i in range(n)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: str, clock: Clock):
    with Store(place, clock=clock) as opened:
        yield opened


def claimed(store: Store, annotator: str, **wanted: object) -> Claim:
    found = store.claim(annotator, **wanted)  # type: ignore[arg-type]
    assert found is not None
    return found


def prefer(claim: Claim, text: str) -> list[list[str]]:
    """The groups of handles that put the completion `text` of a pair first."""
    shown = [claim.query.completions[i] for i in claim.view.places]
    first = claim.view.handles[shown.index(text)]
    return [[first], [h for h in claim.view.handles if h != first]]


def test_an_answer_names_what_was_shown_not_where(store: Store) -> None:
    store.add_queries(questions(20))
    firsts = set()
    for i in range(20):
        claim = claimed(store, "ann")
        given = store.answer(claim.view.id, "ann", prefer(claim, "y"), key=f"k{i}", ms=700, note="why", client_t=3.0)
        assert (given.event_id, given.late, given.repeated) == (i + 1, False, False)
        firsts.add(claim.view.places[0])
    assert firsts == {0, 1}, "both orders were shown"
    assert all(comparison.chosen == "y" for comparison in store.comparisons())
    verdict = store.verdicts()[-1]
    assert (verdict.choice, verdict.ms, verdict.note, verdict.at) == ("right", 700, "why", 1000.0)
    assert verdict.shown_first == claim.view.places[0]
    assert (store.events()[-1].view_id, store.events()[-1].client_t) == (claim.view.id, 3.0)
    assert store.claim("ann") is None
    store.verify()


@pytest.mark.parametrize(("groups", "choice"), [([[0, 1]], "tie"), ([], "skip"), ([[0], [1]], "left"), ([[1], [0]], "right")])
def test_every_choice_on_a_pair(store: Store, groups: list[list[int]], choice: str) -> None:
    store.add_queries(questions(1))
    claim = claimed(store, "ann")
    handle = dict(zip(claim.view.places, claim.view.handles, strict=True))
    store.answer(claim.view.id, "ann", [[handle[i] for i in group] for group in groups], key="k")
    assert store.verdicts()[0].choice == choice


def test_a_ranking_is_of_completions(store: Store) -> None:
    store.add_queries(questions(1, ("x", "y", "z")))
    claim = claimed(store, "ann")
    handle = dict(zip(claim.view.places, claim.view.handles, strict=True))
    store.answer(claim.view.id, "ann", [[handle[2]], [handle[1], handle[0]]], key="k")
    assert store.verdicts()[0].ranking == ((2,), (1, 0))


def test_answers_that_cannot_be_meant_are_refused(store: Store) -> None:
    store.add_queries(questions(2))
    mine, other = claimed(store, "ann"), claimed(store, "ann")
    (a, b), (c, _) = mine.view.handles, other.view.handles
    for groups, message in (
        ([[a], [c]], "has no handle"), ([[a]], "each of its 2 handles once"), ([[a, a], [b]], "handles once"),
        ([[a, b], []], "handles once"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            store.answer(mine.view.id, "ann", groups, key="k")
    with pytest.raises(DataError, match="shown to somebody else"):
        store.answer(mine.view.id, "bob", [[a], [b]], key="k")
    with pytest.raises(DataError, match="view v is not in the store"):
        store.answer("v", "ann", [], key="k")
    with pytest.raises(UserError, match="overlap of 0"):
        store.claim("ann", overlap=0)
    assert store.events() == []


def test_the_same_key_is_one_answer(store: Store) -> None:
    store.add_queries(questions(2))
    claim, other = claimed(store, "ann"), claimed(store, "ann")
    first = store.answer(claim.view.id, "ann", prefer(claim, "x"), key="k")
    again = store.answer(claim.view.id, "ann", prefer(claim, "x"), key="k")
    assert (again.event_id, again.verdict_id, again.repeated) == (first.event_id, first.verdict_id, True)
    with pytest.raises(DataError, match="key k was used for another event"):
        store.answer(claim.view.id, "ann", prefer(claim, "y"), key="k")
    with pytest.raises(DataError, match="key k was used for another event"):
        store.answer(other.view.id, "ann", prefer(other, "x"), key="k")
    assert len(store.verdicts()) == 1


def test_undo_gives_the_view_back_even_when_time_stands_still(store: Store) -> None:
    store.add_queries(questions(1))
    claim = claimed(store, "ann")
    for i in range(3):
        given = store.answer(claim.view.id, "ann", prefer(claim, "x"), key=f"k{i}")
        assert not given.late
        assert store.held("ann") == []
        gone = store.undo(claim.view.id, "ann", key=f"u{i}")
        assert gone.verdict_id == given.verdict_id
        assert store.undo(claim.view.id, "ann", key=f"u{i}").repeated
        assert [held.view for held in store.held("ann")] == [claim.view]
        assert store.claim("bob") is None, "the place is still ann's"
    with pytest.raises(DataError, match="no answer that could be taken back"):
        store.undo(claim.view.id, "ann", key="u9")
    assert store.verdicts() == []
    assert [event.kind for event in store.events()] == ["verdict", "retraction"] * 3
    store.verify()


def test_a_place_is_free_again_when_the_lease_runs_out_and_late_answers_count(store: Store, clock: Clock) -> None:
    store.add_queries(questions(1))
    slow = claimed(store, "slow")
    assert (slow.until, store.claim("quick")) == (1000.0 + LEASE_S, None)
    clock.now += LEASE_S
    assert store.held("slow") == []
    quick = claimed(store, "quick")
    assert store.answer(slow.view.id, "slow", prefer(slow, "x"), key="s").late
    assert not store.answer(quick.view.id, "quick", prefer(quick, "y"), key="q").late
    assert [verdict.annotator for verdict in store.verdicts()] == ["slow", "quick"]
    assert [event.payload.get("late", False) for event in store.events()] == [True, False]


def test_a_heartbeat_keeps_the_place_and_a_release_frees_it(store: Store, clock: Clock) -> None:
    store.add_queries(questions(1))
    claim = claimed(store, "ann")
    clock.now += LEASE_S - 1
    assert store.heartbeat(claim.view.id, "bob") is None
    assert store.heartbeat(claim.view.id, "ann") == clock.now + LEASE_S
    clock.now += LEASE_S - 1
    assert store.claim("bob") is None
    assert (store.release(claim.view.id, "bob"), store.release(claim.view.id, "ann")) == (False, True)
    assert store.release(claim.view.id, "ann") is False
    bob = claimed(store, "bob")
    clock.now += LEASE_S
    assert store.heartbeat(bob.view.id, "bob") is None


def test_a_second_answer_of_one_person_is_kept_and_counts_nowhere(store: Store, clock: Clock) -> None:
    store.add_queries(questions(1))
    first = claimed(store, "ann")
    clock.now += LEASE_S
    second = claimed(store, "ann")
    store.answer(second.view.id, "ann", prefer(second, "x"), key="k2")
    late = store.answer(first.view.id, "ann", prefer(first, "y"), key="k1")
    assert late.verdict_id is None
    assert store.answer(first.view.id, "ann", prefer(first, "y"), key="k1").repeated
    assert [comparison.chosen for comparison in store.comparisons()] == ["x"]
    assert [event.kind for event in store.events()] == ["verdict", "surplus"]
    assert store.verify().verdicts == 1


def test_answers_without_a_view_take_places_too(store: Store) -> None:
    queries = questions(2)
    store.add_queries(queries)
    store.add_verdicts([Verdict(queries[0].id, "oracle", "left")])
    assert claimed(store, "ann").query == queries[1]
    store.add_verdicts([Verdict(queries[1].id, "ann", "left")])
    assert store.held("ann") == [], "whoever answers in the terminal no longer holds the query on the page"
    assert claimed(store, "ann", overlap=2).query == queries[0]


def test_a_question_that_wants_an_answer_again_is_found_behind_the_frontier(store: Store) -> None:
    queries = questions(4)
    store.add_queries(queries)
    for query in queries[:3]:
        assert claimed(store, "ann").query == query
        store.add_verdicts([Verdict(query.id, "ann", "left")])
    assert claimed(store, "bob").query == queries[3]
    store.retract(store.verdicts()[1].id, "ann")
    assert claimed(store, "bob").query == queries[1]
    assert store.claim("cat") is None
    store.add_queries(more := [Query(Prompt("more"), ("x", "y"))])
    assert claimed(store, "cat").query == more[0]
    assert claimed(store, "cat", overlap=2).query == queries[0]


def test_purposes_and_questions_without_a_difference(store: Store) -> None:
    store.add_queries([Query(Prompt("p"), ("same", "same")), Query(Prompt("p"), ("x", "y"), purpose="arena")])
    assert store.claim("ann") is None
    assert claimed(store, "ann", purpose="arena").query.purpose == "arena"


def test_time_that_jumps_loses_nothing(store: Store, clock: Clock) -> None:
    store.add_queries(questions(3))
    for i, jump in enumerate((0.0, -5000.0, 90000.0)):
        claim = claimed(store, "ann")
        clock.now += jump
        store.answer(claim.view.id, "ann", prefer(claim, "x"), key=f"k{i}", client_t=-1e9)
    assert [event.id for event in store.events()] == [1, 2, 3]
    assert [event.server_t for event in store.events()] == [1000.0, -4000.0, 86000.0]
    assert len(store.comparisons()) == 3
    store.verify()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_places_are_balanced(store: Store) -> None:
    store.add_queries(questions(400))
    left = 0
    for _ in range(400):
        claim = store.submit(store.claim, "ann").result()
        assert claim is not None
        left += claim.view.places[0]
    assert abs(left - 200) < 2.6 * 10, "χ² of one degree of freedom at 1 %: |left − n/2| < 2.58·√n/2"


def test_200_people_answer_each_question_exactly_as_often_as_wanted(place: str) -> None:
    """16 threads for 200 people, each with two questions in hand; every answer goes through the writer thread."""
    overlap, queries = 7, questions(60)
    with Store(place) as store:
        store.add_queries(queries)
        people = [f"person {i}" for i in range(200)]
        given: list[tuple[str, str]] = []

        def work(names: list[str]) -> None:
            left = list(names)
            while left:
                for name in list(left):
                    claims = [store.submit(store.claim, name, overlap=overlap).result() for _ in range(2)]
                    for claim in claims:
                        if claim is not None:
                            key = f"{name} {claim.query.id}"
                            assert (
                                store.submit(store.answer, claim.view.id, name, prefer(claim, "x"), key=key).result().verdict_id
                            )
                            given.append((claim.query.id, name))
                    if None in claims:
                        left.remove(name)

        threads = [threading.Thread(target=work, args=(people[i::16],)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = Counter(verdict.query_id for verdict in store.verdicts())
        assert stored == {query.id: overlap for query in queries}
        assert len(set(given)) == len(given) == 60 * overlap, "nobody was given a question twice"
        assert store.verify().verdicts == 60 * overlap
