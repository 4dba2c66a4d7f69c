"""Who is looking at what: each query goes to as many people as it wants answers, and to nobody twice.

A query has room for a person while its standing verdicts and the live leases of others count fewer people than `overlap`.
Finding it and leasing it is one transaction, so two people never take the last place. A lease that runs out gives the
place back; an answer that comes later is stored all the same, marked late.

Looking starts at the frontier: before it, every query has all the standing verdicts it wants. It moves on as queries fill
up and back when a verdict is retracted, so what a claim costs does not grow with what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, not_, select, update

from backflip.records import Query
from backflip.store import rows, views
from backflip.store.events import Log
from backflip.store.schema import Number, frontiers, leases, queries, retractions, verdicts
from backflip.store.schema import views as shown

LEASE_S = 180.0  # how long a person may look at a query before somebody else is given the place


@dataclass(frozen=True, slots=True)
class Claim:
    """A query that is somebody's to answer until `until`, seconds since 1970, and how it is shown to them."""

    view: views.View
    query: Query
    until: float


def claim(log: Log, annotator: str, n: int = 1, *, purpose: str, overlap: int, seed: int, render: str) -> list[Claim]:
    """Lease the `n` oldest queries with room for `annotator`, fewer where there are fewer; see `Store.claim`."""
    log.connection.execute(_EXPIRE, {"now": log.now})
    wanted = {"from": _frontier(log, purpose, overlap), "purpose": purpose, "by": annotator, "overlap": overlap, "most": n + 3}
    open_ones: list[Query] = []
    while len(open_ones) < n and (found := log.connection.execute(_OPEN, wanted).all()):
        read = [rows.parsed(Query, queries, row, body) for row, body in found]
        open_ones += [query for query in read if len(set(query.completions)) > 1]  # the same twice: everybody calls it a tie
        wanted["from"] = found[-1].row + 1
    if not open_ones:
        return []
    until = log.now + LEASE_S
    shown_now = views.show(log, open_ones[:n], annotator, seed, render)
    values = [{"query_id": v.query_id, "annotator": annotator, "view_id": v.id, "until": until} for v in shown_now]
    log.connection.execute(_INSERT, values)
    return [Claim(view, query, until) for view, query in zip(shown_now, open_ones, strict=False)]


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


def _mine(view_id: str, annotator: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return leases.c.view_id == view_id, leases.c.annotator == annotator


def _frontier(log: Log, purpose: str, overlap: int) -> int:
    """The row to look from: the first query of the purpose with fewer than `overlap` standing verdicts, or past the last."""
    connection, wanted = log.connection, {"purpose": purpose, "overlap": overlap}
    known = connection.execute(_KNOWN, wanted).first()
    row, seen = (1, 0) if known is None else known
    latest = int(connection.scalar(_LAST_RETRACTION) or 0)
    if latest > seen:
        row = min(row, int(connection.scalar(_REOPENED, {"seen": seen}) or row))
    first = connection.scalar(_WITH_ROOM, {"from": row, **wanted})
    if first is None:
        first = int(connection.scalar(_LAST_QUERY) or 0) + 1
    if known is None:
        connection.execute(insert(frontiers), {**wanted, "row": first, "seen": latest})
    elif (first, latest) != tuple(known):
        moved = update(frontiers).where(frontiers.c.purpose == purpose, frontiers.c.overlap == overlap)
        connection.execute(moved.values(row=first, seen=latest))
    return int(first)


def _count(counted: Any, *where: Any, table: Any = verdicts) -> Any:
    return select(counted).select_from(table).where(*where).correlate(queries).scalar_subquery()


# The statements of every claim, made once: making one takes SQLAlchemy longer than running it.
_held = leases.c.query_id == queries.c.id
_answered = (verdicts.c.query_id == queries.c.id, not_(exists().where(retractions.c.verdict_id == verdicts.c.id)))
_people = _count(func.count(verdicts.c.annotator.distinct()), *_answered)
_overlap = bindparam("overlap", type_=Number)
_in_reach = (queries.c.row >= bindparam("from"), queries.c.purpose == bindparam("purpose"))
_EXPIRE = delete(leases).where(leases.c.until <= bindparam("now"))
_INSERT = insert(leases)
_OPEN = (
    select(queries.c.row, queries.c.body)
    .where(
        *_in_reach,
        not_(exists().where(*_answered, verdicts.c.annotator == bindparam("by"))),
        not_(exists().where(_held, leases.c.annotator == bindparam("by"))),
        _people + _count(func.count(), _held, table=leases) < _overlap,
    )
    .order_by(queries.c.row)
    .limit(bindparam("most"))
)
_WITH_ROOM = select(queries.c.row).where(*_in_reach, _people < _overlap).order_by(queries.c.row).limit(1)
_KNOWN = select(frontiers.c.row, frontiers.c.seen).where(
    frontiers.c.purpose == bindparam("purpose"), frontiers.c.overlap == _overlap
)
_LAST_QUERY = select(func.max(queries.c.row))
_LAST_RETRACTION = select(func.max(retractions.c.row))
_REOPENED = (
    select(func.min(queries.c.row))
    .select_from(retractions.join(verdicts, verdicts.c.id == retractions.c.verdict_id).join(queries))
    .where(retractions.c.row > bindparam("seen"))
)
