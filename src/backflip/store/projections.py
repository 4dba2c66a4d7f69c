"""What follows from the events: verdicts and retractions, row by row; compared with what stands there, or made again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, column, delete, exists, func, insert, inspect, not_, select, table

from backflip.errors import StorageError
from backflip.records import Query, Verdict
from backflip.store import dialects, rows, schema
from backflip.store.events import walk
from backflip.store.schema import queries, retractions, verdicts


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

    In this order: the pages of the file (a server checks its own), references between tables, the chain of events, each
    projection against the events, and that every query and verdict can be read and has the id its content gives it.
    """
    if problem := dialects.of(connection).damage(connection):
        raise StorageError(f"store {name} is damaged ({problem}); restore it from a copy")
    if problem := _dangling(connection):
        raise StorageError(f"store {name}: {problem}; restore it from a copy")
    number, head = 0, ""
    if schema.check(connection, name) > 1:
        for each, sealed in walk(connection):
            number, head = each.id, sealed
        for projection in (verdicts, retractions):
            if found := _difference(connection, projection):
                raise StorageError(
                    f"store {name}: {found} (compared with the events); `backflip store rebuild {name}` makes it again"
                )
    counts = _read_all(connection, name)
    return Verified(*counts, events=number, head=head)


def rebuild(connection: Connection, name: str) -> bool:
    """Make verdicts and retractions again from the events; False when they were as they should be.

    Runs inside the caller's write transaction. Raises StorageError when the chain of events is broken.
    """
    for _ in walk(connection):
        pass
    if all(_difference(connection, projection) is None for projection in (verdicts, retractions)):
        return False
    for projection in (retractions, verdicts):
        schema.allow(connection, projection.name)
        connection.execute(delete(projection))
    for projection in (verdicts, retractions):
        projected = _projected(connection, projection)
        while part := list(itertools.islice(projected, schema.PART)):
            connection.execute(insert(projection), part)
        schema.forbid(connection, projection.name)
    connection.execute(delete(schema.frontiers))  # they rest on the verdicts as they were
    return True


def _dangling(connection: Connection) -> str | None:
    """The first row that refers to nothing, by the references that the database itself has; None when there is none."""
    there = inspect(connection)
    for name in there.get_table_names():
        for reference in there.get_foreign_keys(name):
            number = there.get_pk_constraint(name)["constrained_columns"][0]
            mine, theirs = reference["constrained_columns"], reference["referred_columns"]
            child = table(name, *map(column, {number, *mine}))
            parent = table(reference["referred_table"], *map(column, theirs)).alias("parent")
            found = exists().where(*(child.c[a] == parent.c[b] for a, b in zip(mine, theirs, strict=True)))
            lost = select(child.c[number]).where(*(child.c[a].is_not(None) for a in mine), not_(found))
            if (row := connection.execute(lost.order_by(child.c[number]).limit(1)).first()) is not None:
                return f"row {row[0]} of {name} refers to nothing in {reference['referred_table']}"
    return None


def _projected(connection: Connection, projection: Table) -> Iterator[dict[str, Any]]:
    """The rows of a projection that the events say it has."""
    kind = {verdicts.name: "verdict", retractions.name: "retraction"}[projection.name]
    for event, _ in walk(connection):
        if event.kind == kind:
            yield _verdict_row(event.payload) if kind == "verdict" else dict(event.payload)


def _verdict_row(payload: Mapping[str, Any]) -> dict[str, Any]:
    verdict = payload["verdict"]
    body = json.dumps(verdict, ensure_ascii=False)
    return {
        "row": payload["row"], "id": payload["id"], "query_id": verdict["query_id"], "annotator": verdict["annotator"],
        "body": body,
    }  # fmt: skip


def _difference(connection: Connection, projection: Table) -> str | None:
    """The first row that is not as the events say, and how; None when all are."""
    for expected, found in itertools.zip_longest(_projected(connection, projection), schema.in_order(connection, projection)):
        actual = None if found is None else dict(found._mapping)
        if expected != actual:
            row = actual["row"] if expected is None and actual else expected["row"] if expected else 0
            difference = "is missing" if actual is None else "follows from no event" if expected is None else "differs"
            return f"row {row} of {projection.name} {difference}"
    return None


def _read_all(connection: Connection, name: str) -> tuple[int, int, int]:
    asked: dict[str, Query] = {}
    for row, id, body in schema.in_order(connection, queries, queries.c.row, queries.c.id, queries.c.body):
        asked[id] = rows.parsed(Query, queries, row, body)
        _same_id(name, queries, row, id, asked[id])
    number = 0
    for row, id, body in schema.in_order(connection, verdicts, verdicts.c.row, verdicts.c.id, verdicts.c.body):
        verdict = rows.parsed(Verdict, verdicts, row, body)
        _same_id(name, verdicts, row, id, verdict)
        try:
            verdict.comparisons(asked[verdict.query_id])
        except (KeyError, ValueError) as problem:
            raise StorageError(f"store {name}: row {row} of verdicts does not fit its query ({problem})") from problem
        number += 1
    return len(asked), number, int(connection.scalar(select(func.count()).select_from(retractions)) or 0)


def _same_id(name: str, kind: Table, row: int, id: str, record: Query | Verdict) -> None:
    if record.id != id:
        raise StorageError(f"store {name}: row {row} of {kind.name} was changed after it was written; restore it from a copy")
