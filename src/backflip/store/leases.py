"""Who is looking at what: each query goes to as many people as it wants answers, and to nobody twice.

A query has room for a person while its standing verdicts and the live leases of others count fewer people than `overlap`.
Finding it and leasing it is one transaction, so two people never take the last place. A lease that runs out gives the
place back; an answer that comes later is stored all the same, marked late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, not_, select, update

from backflip.records import Query
from backflip.store import rows, views
from backflip.store.events import Log
from backflip.store.schema import leases, queries, retractions, verdicts
from backflip.store.schema import views as shown

LEASE_S = 180.0  # how long a person may look at a query before somebody else is given the place


@dataclass(frozen=True, slots=True)
class Claim:
    """A query that is somebody's to answer until `until`, seconds since 1970, and how it is shown to them."""

    view: views.View
    query: Query
    until: float


def claim(log: Log, annotator: str, *, purpose: str, overlap: int, seed: int, render: str) -> Claim | None:
    """Lease the oldest query with room for `annotator`; see `Store.claim`."""
    log.connection.execute(delete(leases).where(leases.c.until <= log.now))
    standing = not_(exists().where(retractions.c.verdict_id == verdicts.c.id))
    answered = (verdicts.c.query_id == queries.c.id, standing)
    held = leases.c.query_id == queries.c.id
    people = _count(func.count(verdicts.c.annotator.distinct()), *answered) + _count(func.count(), held, table=leases)
    open_to_me = (
        queries.c.purpose == purpose,
        not_(exists().where(*answered, verdicts.c.annotator == annotator)),
        not_(exists().where(held, leases.c.annotator == annotator)),
        people < overlap,
    )
    found = log.connection.execute(select(queries.c.row, queries.c.body).where(*open_to_me).order_by(queries.c.row))
    for row, body in found:
        query = rows.parsed(Query, queries, row, body)
        if len(set(query.completions)) > 1:  # where all completions say the same, everybody would call it a tie
            found.close()
            return _lease(log, query, annotator, seed, render)
    return None


def heartbeat(log: Log, view_id: str, annotator: str) -> float | None:
    """Extend a live lease; see `Store.heartbeat`."""
    until = log.now + LEASE_S
    mine = _mine(view_id, annotator)
    found = log.connection.execute(update(leases).where(*mine, leases.c.until > log.now).values(until=until))
    return until if found.rowcount else None


def release(log: Log, view_id: str, annotator: str) -> bool:
    """Give a lease back; see `Store.release`."""
    return bool(log.connection.execute(delete(leases).where(*_mine(view_id, annotator))).rowcount)


def held_by(connection: Connection, annotator: str, now: float) -> list[Claim]:
    """The live leases of one person, oldest query first."""
    wanted = (
        select(shown, queries.c.row, queries.c.body, leases.c.until)
        .select_from(leases.join(shown, shown.c.id == leases.c.view_id).join(queries, queries.c.id == leases.c.query_id))
        .where(leases.c.annotator == annotator, leases.c.until > now)
        .order_by(queries.c.row)
    )
    found = connection.execute(wanted)
    return [Claim(views.parsed(row), rows.parsed(Query, queries, row.row, row.body), row.until) for row in found]


def _lease(log: Log, query: Query, annotator: str, seed: int, render: str) -> Claim:
    view = views.show(log, query, annotator, seed, render)
    until = log.now + LEASE_S
    values = {"query_id": query.id, "annotator": annotator, "view_id": view.id, "until": until}
    log.connection.execute(insert(leases).values(values))
    return Claim(view, query, until)


def _mine(view_id: str, annotator: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return leases.c.view_id == view_id, leases.c.annotator == annotator


def _count(counted: Any, *where: Any, table: Any = verdicts) -> Any:
    return select(counted).select_from(table).where(*where).correlate(queries).scalar_subquery()
