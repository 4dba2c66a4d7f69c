"""The writer thread: one flush for many, a failure that stays alone, and no acknowledgement before the disk has it."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from sqlalchemy import event

from backflip.errors import BusyError, DataError, StorageError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store, database
from tests.store import kill
from tests.store.backends import Backend

QUERIES = [Query(Prompt(f"p{i}" * 100), ("a" * 200, "b" * 200)) for i in range(60)]


@pytest.fixture
def store(place: str):
    with Store(place) as opened:
        yield opened


def hold(store: Store) -> tuple[threading.Event, Future[bool]]:
    """Keep the writer thread busy in a batch of its own until the event is set."""
    started, release = threading.Event(), threading.Event()

    def wait() -> bool:
        started.set()
        return release.wait(10)

    future = store.submit(wait)
    assert started.wait(10)
    return release, future


def transactions(store: Store) -> list[str]:
    """How the transactions of the writing connection begin and end from now on."""
    told: list[str] = []
    for name in ("begin", "commit", "rollback"):
        event.listen(store._db._writing, name, lambda _connection, name=name: told.append(name))
    return told


def test_what_waits_is_written_with_one_flush(store: Store) -> None:
    told = transactions(store)
    release, first = hold(store)
    waiting = [store.submit(store.add_queries, [query]) for query in QUERIES]
    assert not any(future.done() for future in waiting)
    release.set()
    assert [future.result(10) for future in [first, *waiting]] == [1] * 61
    assert told == ["begin", "commit"] * 2
    assert store.queries() == QUERIES


def test_a_failure_stays_alone(store: Store) -> None:
    store.add_queries(QUERIES[:3])
    release, _ = hold(store)
    good, bad = [Verdict(query.id, "ann", "left") for query in QUERIES[:3]], Verdict("nowhere", "ann", "left")
    waiting = [store.submit(store.add_verdicts, batch) for batch in ([good[0]], [good[1], bad], [good[1]], [good[2]])]
    release.set()
    assert [waiting[i].result(10) for i in (0, 2, 3)] == [1, 1, 1]
    with pytest.raises(DataError, match="query nowhere is not in the store"):
        waiting[1].result(10)
    assert store.verdicts() == good
    store.verify()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_nothing_is_acknowledged_when_the_commit_fails(store: Store) -> None:
    """A full disk: everything of the batch hears of it, nothing is stored, and the store goes on when there is room."""
    writer = store._db._writer
    pages = writer.exec_driver_sql("PRAGMA page_count").scalar()
    writer.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    writer.rollback()
    release, _ = hold(store)
    waiting = [store.submit(store.add_queries, [query]) for query in QUERIES]
    release.set()
    failed = [future for future in waiting if isinstance(future.exception(10), StorageError)]
    assert failed
    assert all("disk is full; nothing was written" in str(future.exception()) for future in failed)
    assert len(store.queries()) == sum(future.result() for future in waiting if future not in failed)
    writer.exec_driver_sql("PRAGMA max_page_count=100000")
    writer.rollback()
    assert sum(future.result(10) for future in [store.submit(store.add_queries, [q]) for q in QUERIES]) == len(failed)
    assert len(store.queries()) == len(QUERIES)
    store.verify()


def test_a_database_that_somebody_else_locks_is_named(backend: Backend, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    with Store(place) as quick:
        with backend.stranger(place) as other:
            other.execute(backend.seize)
            with pytest.raises(BusyError, match="busy: another process has been writing"):
                quick.submit(quick.add_queries, QUERIES).result(10)
        assert quick.submit(quick.add_queries, QUERIES).result(10) == 60


def test_closing_finishes_what_waits(place: str) -> None:
    store = Store(place)
    waiting = [store.submit(store.add_queries, [query]) for query in QUERIES]
    store.close()
    assert [future.result(0) for future in waiting] == [1] * 60
    with pytest.raises(StorageError, match="is closed"):
        store.submit(store.add_queries, QUERIES)


def test_what_was_cancelled_in_time_is_not_written(store: Store) -> None:
    release, _ = hold(store)
    first, second = (store.submit(store.add_queries, [query]) for query in QUERIES[:2])
    assert first.cancel()
    release.set()
    assert second.result(10) == 1
    assert store.queries() == [QUERIES[1]]


def test_direct_writes_and_the_thread_take_turns(store: Store) -> None:
    def write(name: str) -> None:
        for query in QUERIES:
            store.add_queries([query])
            store.add_verdicts([Verdict(query.id, name, "left")])

    threads = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    store.submit(store.add_queries, QUERIES).result(10)
    for future in [store.submit(store.add_verdicts, [Verdict(query.id, "queue", "left")]) for query in QUERIES]:
        assert future.result(10) == 1
    for thread in threads:
        thread.join()
    assert len(store.verdicts()) == 180
    store.verify()


def test_kill_9_loses_no_acknowledged_answer_and_doubles_none(backend: Backend, place: str) -> None:
    kills = 1 + backend.examples // 10
    count = kill.kill(place, kills)
    assert count.acknowledged >= 60 * kills
    assert (count.missing, count.doubled) == (0, 0)
