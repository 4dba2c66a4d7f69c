"""Records to rows and back: the three inserts, each idempotent, and the one way a body becomes a record."""

from __future__ import annotations

import json
from typing import TypeVar

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import insert

from backflip.errors import DataError, StorageError
from backflip.records import Query, Record, Verdict
from backflip.store.schema import queries, retractions, verdicts

T = TypeVar("T", bound=Record)
Retraction = tuple[str, str, float]  # verdict id, who took it back, seconds since 1970


def insert_query(connection: Connection, query: Query, where: str) -> bool:
    """Store a query; False if it was there. Raises DataError, starting with `where`, if it is no JSON."""
    values = {"id": _id(query, where), "purpose": query.purpose, "body": _body(query, where)}
    return bool(connection.execute(insert(queries).values(values).on_conflict_do_nothing()).rowcount == 1)


def insert_verdict(connection: Connection, verdict: Verdict, where: str) -> bool:
    """Store a verdict; False if it was there. Raises DataError if its query is unknown or it does not fit it.

    Checking the fit here means that whatever is in the store can be read as comparisons.
    """
    asked = connection.scalar(select(queries.c.body).where(queries.c.id == verdict.query_id))
    if asked is None:
        raise DataError(f"{where}: query {verdict.query_id} is not in the store; add the query before its verdict")
    try:
        verdict.comparisons(Query.from_json(json.loads(asked)))
    except ValueError as problem:
        raise DataError(f"{where}: {problem}") from problem
    values = {
        "id": _id(verdict, where),
        "query_id": verdict.query_id,
        "annotator": verdict.annotator,
        "body": _body(verdict, where),
    }
    return bool(connection.execute(insert(verdicts).values(values).on_conflict_do_nothing()).rowcount == 1)


def insert_retraction(connection: Connection, retraction: Retraction, where: str) -> bool:
    """Store a retraction; False if the verdict was already retracted. Raises DataError if there is no verdict."""
    verdict_id, annotator, at = retraction
    if connection.scalar(select(verdicts.c.row).where(verdicts.c.id == verdict_id)) is None:
        raise DataError(f"{where}: verdict {verdict_id} is not in the store, so it cannot be retracted")
    values = {"verdict_id": verdict_id, "annotator": annotator, "at": at}
    return bool(connection.execute(insert(retractions).values(values).on_conflict_do_nothing()).rowcount == 1)


def parsed(kind: type[T], table: Table, row: int, body: str) -> T:
    """The record in a row. Raises StorageError naming the row when the body is not what was written."""
    try:
        return kind.from_json(json.loads(body))
    except (ValueError, TypeError, KeyError) as problem:
        raise StorageError(f"row {row} of {table.name} is damaged ({problem}); restore the store from an export") from (problem)


def _id(record: Query | Verdict, where: str) -> str:
    try:
        return record.id
    except (TypeError, ValueError) as problem:  # UnicodeEncodeError (half a surrogate pair) is a ValueError
        raise DataError(f"{where} cannot be stored: {problem}") from problem


def _body(record: Record, where: str) -> str:
    try:
        return json.dumps(record.to_json(), ensure_ascii=False)
    except (TypeError, ValueError) as problem:
        raise DataError(f"{where} cannot be stored: {problem}") from problem
