"""What follows from the events: verdicts and retractions, row by row; compared with what stands there, or made again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, text

from backflip.errors import StorageError
from backflip.records import Query, Verdict
from backflip.store import rows, schema
from backflip.store.events import Event, walk
from backflip.store.schema import queries, retractions, verdicts

CHUNK = 500  # rows written at once


@dataclass(frozen=True, slots=True)
class Verified:
    """A store in which everything holds: how many rows of each kind, and the hash of the last event.

    `head` is empty where there are no events: in a new store, and in one of schema 1 that was opened for reading.
    """

    queries: int
    verdicts: int
    retractions: int
    events: int
    head: str


def verify(connection: Connection, name: str) -> Verified:
    """Look at everything in a store. Raises StorageError with the first thing that is wrong.

    In this order: the pages of the file, references between tables, the chain of events, each projection against the
    events, and that every query and verdict can be read and has the id its content gives it.
    """
    for (problem,) in connection.exec_driver_sql("PRAGMA integrity_check(1)"):
        if problem != "ok":
            raise StorageError(f"store {name} is damaged ({problem}); restore it from a copy")
    for found in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        raise StorageError(f"store {name}: row {found[1]} of {found[0]} refers to nothing in {found[2]}; restore it from a copy")
    number, head = 0, ""
    if schema.check(connection, name) > 1:
        for each, sealed in walk(connection):
            number, head = each.id, sealed
        for table in (verdicts, retractions):
            _compare(connection, name, table)
    counts = _read_all(connection, name)
    return Verified(*counts, events=number, head=head)


def rebuild(connection: Connection, name: str) -> bool:
    """Make verdicts and retractions again from the events; False when they were as they should be.

    Runs inside the caller's write transaction. Raises StorageError when the chain of events is broken.
    """
    for _ in walk(connection):
        pass
    try:
        for table in (verdicts, retractions):
            _compare(connection, name, table)
    except StorageError:
        for table in (retractions, verdicts):
            schema.allow(connection, table.name)
            connection.execute(delete(table))
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        for table in (verdicts, retractions):
            projected = _projected(_events(connection), table)
            while chunk := list(itertools.islice(projected, CHUNK)):
                connection.execute(insert(table), chunk)
            schema.forbid(connection, table.name)
        connection.execute(delete(schema.frontiers))  # they rest on the verdicts as they were
        return True
    return False


def _events(connection: Connection) -> Iterator[Event]:
    return (event for event, _ in walk(connection))


def _projected(events: Iterable[Event], table: Table) -> Iterator[dict[str, Any]]:
    """The rows of a projection that the events say it has."""
    kind = {verdicts.name: "verdict", retractions.name: "retraction"}[table.name]
    for event in events:
        if event.kind == kind:
            yield _verdict_row(event.payload) if kind == "verdict" else dict(event.payload)


def _verdict_row(payload: Mapping[str, Any]) -> dict[str, Any]:
    verdict = payload["verdict"]
    body = json.dumps(verdict, ensure_ascii=False)
    return {
        "row": payload["row"], "id": payload["id"], "query_id": verdict["query_id"], "annotator": verdict["annotator"],
        "body": body,
    }  # fmt: skip


def _compare(connection: Connection, name: str, table: Table) -> None:
    live = connection.execute(select(table).order_by(table.c.row))
    for expected, found in itertools.zip_longest(_projected(_events(connection), table), live):
        actual = None if found is None else dict(found._mapping)
        if expected != actual:
            row = actual["row"] if expected is None and actual else expected["row"] if expected else 0
            difference = "is missing" if actual is None else "follows from no event" if expected is None else "differs"
            raise StorageError(
                f"store {name}: row {row} of {table.name} {difference} (compared with the events); "
                f"`backflip store rebuild {name}` makes it again"
            )


def _read_all(connection: Connection, name: str) -> tuple[int, int, int]:
    asked: dict[str, Query] = {}
    for row, id, body in connection.execute(select(queries.c.row, queries.c.id, queries.c.body).order_by(queries.c.row)):
        asked[id] = rows.parsed(Query, queries, row, body)
        _same_id(name, queries, row, id, asked[id])
    number = 0
    for row, id, body in connection.execute(select(verdicts.c.row, verdicts.c.id, verdicts.c.body).order_by(verdicts.c.row)):
        verdict = rows.parsed(Verdict, verdicts, row, body)
        _same_id(name, verdicts, row, id, verdict)
        try:
            verdict.comparisons(asked[verdict.query_id])
        except (KeyError, ValueError) as problem:
            raise StorageError(f"store {name}: row {row} of verdicts does not fit its query ({problem})") from problem
        number += 1
    return len(asked), number, len(connection.execute(select(retractions.c.row)).all())


def _same_id(name: str, table: Table, row: int, id: str, record: Query | Verdict) -> None:
    if record.id != id:
        raise StorageError(f"store {name}: row {row} of {table.name} was changed after it was written; restore it from a copy")
