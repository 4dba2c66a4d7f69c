"""Records to rows and back: the three inserts, each idempotent, and the one way a body becomes a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, Text, bindparam, delete, exists, func, insert, not_, select

from backflip.errors import DataError, StorageError
from backflip.records import Query, Record, Verdict
from backflip.store.events import Log
from backflip.store.schema import leases, queries, retractions, verdicts

T = TypeVar("T", bound=Record)
Retraction = tuple[str, str, float]  # verdict id, who took it back, seconds since 1970

_NEXT = select(func.coalesce(func.max(queries.c.row), 0) + 1).scalar_subquery()
_NEW = select(_NEXT, *(bindparam(name, type_=Text) for name in ("id", "purpose", "body"))).where(
    not_(exists().where(queries.c.id == bindparam("id")))
)
_ADD = insert(queries).from_select(["row", "id", "purpose", "body"], _NEW).execution_options(preserve_rowcount=True)
_BODY = select(queries.c.body).where(queries.c.id == bindparam("id"))
_VERDICT = select(verdicts.c.row).where(verdicts.c.id == bindparam("id"))
_INSERT = insert(verdicts)
_END_LEASE = delete(leases).where(leases.c.query_id == bindparam("query"), leases.c.annotator == bindparam("by"))


def insert_query(connection: Connection, query: Query, where: str) -> bool:
    """Store a query; False if it was there. Raises DataError, starting with `where`, if it is no JSON."""
    values = {"id": _id(query, where), "purpose": query.purpose, "body": _body(query, where)}
    return bool(connection.execute(_ADD, values).rowcount == 1)


def insert_verdict(
    log: Log,
    verdict: Verdict,
    where: str,
    *,
    key: str | None = None,
    view_id: str | None = None,
    client_t: float | None = None,
    late: bool = False,
    seen: Mapping[str, Any] | None = None,
    fits: bool = False,
) -> bool:
    """Store a verdict; False if it was there. Raises DataError if its query is unknown or it does not fit it.

    Checking the fit here means that whatever is in the store can be read as comparisons. A verdict from a page comes with
    the page's `key`, the view it answers and the page's time; `late` says that its lease had run out, `seen` how the person
    looked, `fits` that the caller has made it from its query and knows it to be new. Whoever answers a query no longer
    holds it.
    """
    connection = log.connection
    if not fits:
        _check_fit(connection, verdict, where)
    values = {
        "id": _id(verdict, where),
        "query_id": verdict.query_id,
        "annotator": verdict.annotator,
        "body": _body(verdict, where),
    }
    if not fits and has_verdict(log, values["id"]):
        return False
    row = log.next_row(verdicts)
    payload = {"row": row, "id": values["id"], "verdict": verdict.to_json()} | ({"late": True} if late else {})
    payload |= {"seen": seen} if seen else {}
    log.append(key or f"verdict:{values['id']}", verdict.annotator, "verdict", payload, view_id=view_id, client_t=client_t)
    connection.execute(_INSERT, {"row": row, **values})
    connection.execute(_END_LEASE, {"query": verdict.query_id, "by": verdict.annotator})
    return True


def _check_fit(connection: Connection, verdict: Verdict, where: str) -> None:
    asked = connection.scalar(_BODY, {"id": verdict.query_id})
    if asked is None:
        raise DataError(f"{where}: query {verdict.query_id} is not in the store; add the query before its verdict")
    try:
        verdict.comparisons(Query.from_json(json.loads(asked)))
    except ValueError as problem:
        raise DataError(f"{where}: {problem}") from problem


def has_verdict(log: Log, verdict_id: str) -> bool:
    """Whether a verdict of this id is in the store, standing or not."""
    return log.connection.scalar(_VERDICT, {"id": verdict_id}) is not None


def insert_retraction(
    log: Log,
    retraction: Retraction,
    where: str,
    *,
    key: str | None = None,
    view_id: str | None = None,
    client_t: float | None = None,
) -> bool:
    """Store a retraction; False if the verdict was already retracted. Raises DataError if there is no verdict."""
    verdict_id, annotator, at = retraction
    connection = log.connection
    if not has_verdict(log, verdict_id):
        raise DataError(f"{where}: verdict {verdict_id} is not in the store, so it cannot be retracted")
    if connection.scalar(select(retractions.c.row).where(retractions.c.verdict_id == verdict_id)) is not None:
        return False
    values = {"row": log.next_row(retractions), "verdict_id": verdict_id, "annotator": annotator, "at": at}
    log.append(key or f"retraction:{verdict_id}", annotator, "retraction", values, view_id=view_id, client_t=client_t)
    connection.execute(insert(retractions).values(values))
    return True


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
