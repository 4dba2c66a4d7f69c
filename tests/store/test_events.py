"""The log of events: keys, kinds, the hash chain, and verdicts that follow from it."""

from __future__ import annotations

import hashlib
import json

import pytest

from backflip import __version__
from backflip.errors import DataError, StorageError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from tests.store.backends import Backend

QUERY = Query(Prompt("p"), ("x", "y"))


@pytest.fixture
def store(place: str):
    """A store with one query, two verdicts, one of them taken back, and a note."""
    with Store(place, clock=lambda: 50.0) as opened:
        opened.add_queries([QUERY])
        first = Verdict(QUERY.id, "ann", "left", at=1.0)
        opened.add_verdicts([first, Verdict(QUERY.id, "bob", "tie", at=2.0)])
        opened.retract(first.id, "ann")
        opened.note("edit", "bob", {"text": "bätter"}, key="n1", client_t=40)
        yield opened


def test_what_was_done_is_an_event(store: Store) -> None:
    found = store.events()
    assert [(e.id, e.kind, e.actor) for e in found] == [
        (1, "verdict", "ann"), (2, "verdict", "bob"), (3, "retraction", "ann"), (4, "edit", "bob"),
    ]  # fmt: skip
    assert Verdict.from_json(found[1].payload["verdict"]) == store.verdicts()[0]
    assert found[3].payload == {"text": "bätter"}
    assert (found[3].client_t, found[3].server_t, found[3].app_version) == (40.0, 50.0, __version__)
    assert store.events(since=3) == found[3:]


def test_each_event_seals_the_one_before(store: Store, backend: Backend, place: str) -> None:
    before = ""
    columns = "key, actor, view_id, kind, payload, client_t, server_t, app_version"
    with backend.stranger(place) as raw:
        for *sealed, prev_hash, its_hash in raw.execute(f"SELECT {columns}, prev_hash, hash FROM events ORDER BY id"):
            assert prev_hash == before
            assert its_hash == hashlib.sha256(json.dumps([before, *sealed]).encode()).hexdigest()
            before = its_hash
    found = store.verify()
    assert (found.queries, found.verdicts, found.retractions, found.events, found.head) == (1, 2, 1, 4, before)


def test_a_key_is_used_once(store: Store) -> None:
    assert store.note("edit", "bob", {"text": "bätter"}, key="n1") == 4
    for kind, actor, text in (("edit", "bob", "other"), ("edit", "eve", "bätter"), ("span", "bob", "bätter")):
        with pytest.raises(DataError, match="key n1 was used for another event"):
            store.note(kind, actor, {"text": text}, key="n1")
    assert len(store.events()) == 4


@pytest.mark.parametrize("key", ["", "verdict:0123", "retraction:0123"])
def test_keys_of_the_stores_own_are_refused(store: Store, key: str) -> None:
    with pytest.raises(DataError, match="cannot be used; give one of your own"):
        store.note("edit", "bob", {}, key=key)
    assert len(store.events()) == 4


@pytest.mark.parametrize(
    ("kind", "payload", "more", "message"),
    [
        ("verdict", {}, {}, "kind 'verdict' cannot be noted; use edit, span, flag, adjudicate"),
        ("edit", {"x": {1}}, {}, "cannot be stored"),
        ("edit", {"x": float("nan")}, {}, "cannot be stored"),
        ("edit", {"x": "\ud800"}, {}, "cannot be stored"),
        ("edit", {}, {"client_t": float("inf")}, "inf is not a time"),
        ("edit", {}, {"view_id": "v"}, "view v is not in the store"),
    ],
)
def test_notes_that_cannot_be_kept(store: Store, kind: str, payload: dict, more: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        store.note(kind, "bob", payload, key="n2", **more)
    assert len(store.events()) == 4


@pytest.mark.parametrize("table", ["events", "views"])
def test_the_database_refuses_to_forget_events_and_views(store: Store, backend: Backend, place: str, table: str) -> None:
    claim = store.claim("cat", overlap=9)
    assert claim is not None
    with backend.stranger(place) as raw:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id"):
            with pytest.raises(backend.refused, match="append-only"):
                raw.execute(statement)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE events SET payload = '{}' WHERE id = 2", "event 2 or the one before it was changed"),
        ("UPDATE events SET server_t = 51 WHERE id = 3", "event 3 or the one before"),
        ("DELETE FROM events WHERE id = 2", "event 3 or the one before"),
        ("UPDATE verdicts SET annotator = 'eve' WHERE row = 2", "row 2 of verdicts differs"),
        ("DELETE FROM retractions", "row 1 of retractions is missing"),
        ("INSERT INTO retractions VALUES (2, (SELECT id FROM verdicts WHERE row = 2), 'eve', 1)", "row 2 of retractions follows"),
        ("UPDATE queries SET body = replace(body, '\"x\"', '\"z\"')", "row 1 of queries was changed"),
        ("UPDATE queries SET body = '{'", "row 1 of queries is damaged"),
        ("DELETE FROM queries", "refers to nothing in queries"),
    ],
)
def test_verify_names_what_is_wrong(store: Store, backend: Backend, place: str, damage: str, message: str) -> None:
    backend.vandal(place, damage)
    with pytest.raises(StorageError, match=message):
        store.verify()


@pytest.mark.parametrize(
    "damage", ["DELETE FROM retractions", "UPDATE verdicts SET body = 'x'", "DELETE FROM verdicts WHERE row=2"]
)
def test_projections_are_rebuilt_from_the_events(store: Store, backend: Backend, place: str, damage: str) -> None:
    before = (store.verdicts(), store.cursor, store.comparisons(), store.verify())
    backend.vandal(place, damage)
    assert store.rebuild() is True
    assert (store.verdicts(), store.cursor, store.comparisons(), store.verify()) == before
    assert store.rebuild() is False
    with pytest.raises(backend.refused, match="append-only"), backend.stranger(place) as raw:
        raw.execute("DELETE FROM verdicts")
    assert store.add_verdicts([Verdict(QUERY.id, "cat", "left")]) == 1
    store.verify()


def test_nothing_is_rebuilt_from_a_broken_chain(store: Store, backend: Backend, place: str) -> None:
    backend.vandal(place, "UPDATE events SET actor = 'eve' WHERE id = 1", "DELETE FROM retractions")
    with pytest.raises(StorageError, match="event 1 or the one before"):
        store.rebuild()


def test_rows_have_no_gaps_when_verdicts_come_twice(store: Store) -> None:
    again = store.verdicts()[0]
    assert store.add_verdicts([again, again, Verdict(QUERY.id, "cat", "left"), again, Verdict(QUERY.id, "dan", "left")]) == 2
    assert store.cursor == 4
    assert len(store.events()) == 6
