"""What was shown to whom, and the answers that refer to it, so that sides can never be mixed up.

A view puts the completions of a query in places 0 … K−1 and gives each place a handle that means nothing anywhere else.
An answer names handles, not sides; which completion a handle meant stands in the view for good.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select

from backflip.errors import DataError
from backflip.records import Choice, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import rows
from backflip.store.events import NOTES, Event, Log
from backflip.store.schema import events, leases, queries, retractions, verdicts, views

_INSERT = insert(views)
_VIEW = select(views, queries.c.row, queries.c.body).select_from(views.join(queries)).where(views.c.id == bindparam("view"))
_LEASE = select(leases.c.until).where(leases.c.view_id == bindparam("view"), leases.c.until > bindparam("now"))
_STANDING = (
    select(verdicts.c.row)
    .select_from(verdicts.outerjoin(retractions, retractions.c.verdict_id == verdicts.c.id))
    .where(verdicts.c.query_id == bindparam("query"), verdicts.c.annotator == bindparam("by"), retractions.c.row.is_(None))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class View:
    """One showing of a query to an annotator.

    `places[p]` is the index of the completion in place p, `handles[p]` its opaque name, `seed` what the places were drawn
    from, `render` the version of whatever drew the page, `at` seconds since 1970.
    """

    id: str
    query_id: str
    annotator: str
    seed: int
    places: tuple[int, ...]
    handles: tuple[str, ...]
    render: str
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an answer: the event it is, and the verdict it made (None: it was surplus).

    `late` says that the lease had run out; the verdict counts all the same. `repeated` says that the key had been seen
    before, so that nothing new was stored.
    """

    event_id: int
    verdict_id: str | None
    late: bool = False
    repeated: bool = False


def show(log: Log, query: Query, annotator: str, seed: int, render: str) -> View:
    """Store a new view. The places depend on the seed, the annotator and the query alone: shown again, it looks the same."""
    places = tuple(Seeds(seed).permutation(len(query.completions), "sides", annotator, query.id))
    handles = tuple(secrets.token_hex(8) for _ in places)
    view = View(secrets.token_hex(16), query.id, annotator, seed, places, handles, render, log.now)
    values = dataclasses.asdict(view) | {"places": json.dumps(places), "handles": json.dumps(handles)}
    log.connection.execute(_INSERT, values)
    return view


def parsed(row: Row[Any]) -> View:
    """The view in a row of the table."""
    places, handles = tuple(json.loads(row.places)), tuple(json.loads(row.handles))
    return View(row.id, row.query_id, row.annotator, row.seed, places, handles, row.render, row.at)


def answer(
    log: Log, view_id: str, annotator: str, groups: Sequence[Sequence[str]], *, key: str, ms: int, note: str,
    client_t: float | None,
) -> Answer:  # fmt: skip
    """Store an answer; see `Store.answer`."""
    view, query = _view_of(log.connection, view_id, annotator)
    choice, ranking = _choice(view, groups, len(query.completions))
    earlier = log.find(key)
    if earlier is not None:
        given = earlier.payload.get("verdict", {})
        same = (given.get("choice"), given.get("ranking")) == (choice, [list(group) for group in ranking])
        _same_request(earlier, ("verdict", "surplus"), view_id, annotator, same)
        counted = earlier.payload["id"] if earlier.kind == "verdict" else None
        return Answer(earlier.id, counted, bool(earlier.payload.get("late")), repeated=True)
    verdict = Verdict(query.id, annotator, choice, ranking, view.places[0], ms, log.now, note)
    if _has_answered(log.connection, query.id, annotator):
        return Answer(
            log.append(key, annotator, "surplus", {"verdict": verdict.to_json()}, view_id=view_id, client_t=client_t), None
        )
    while rows.has_verdict(log, verdict.id):  # the same answer, given and taken back at the very same time
        verdict = dataclasses.replace(verdict, at=math.nextafter(verdict.at, math.inf))
    late = log.connection.scalar(_LEASE, {"view": view_id, "now": log.now}) is None
    rows.insert_verdict(log, verdict, "answer", key=key, view_id=view_id, client_t=client_t, late=late)
    return Answer(log.last_id, verdict.id, late)


def undo(log: Log, view_id: str, annotator: str, *, key: str, client_t: float | None, lease_s: float) -> Answer:
    """Take an answer back; see `Store.undo`."""
    view, _ = _view_of(log.connection, view_id, annotator)
    earlier = log.find(key)
    if earlier is not None:
        _same_request(earlier, ("retraction",), view_id, annotator, True)
        return Answer(earlier.id, earlier.payload["verdict_id"], repeated=True)
    given = select(events.c.payload).where(events.c.view_id == view_id, events.c.kind == "verdict")
    payload = log.connection.scalar(given.order_by(events.c.id.desc()).limit(1))
    verdict_id = json.loads(payload)["id"] if payload else ""
    taken_back = (verdict_id, annotator, log.now)
    if not payload or not rows.insert_retraction(log, taken_back, "undo", key=key, view_id=view_id, client_t=client_t):
        raise DataError(f"view {view_id} has no answer that could be taken back")
    lease = {"query_id": view.query_id, "annotator": annotator, "view_id": view_id, "until": log.now + lease_s}
    log.connection.execute(insert(leases).values(lease))
    return Answer(log.last_id, verdict_id)


def note(
    log: Log, kind: str, actor: str, payload: Mapping[str, Any], *, key: str, view_id: str | None, client_t: float | None
) -> int:
    """Store an event from which nothing follows; see `Store.note`."""
    if kind not in NOTES:
        raise DataError(f"an event of kind {kind!r} cannot be noted; use {', '.join(NOTES)}")
    if view_id is not None and log.connection.scalar(select(views.c.id).where(views.c.id == view_id)) is None:
        raise DataError(f"view {view_id} is not in the store")
    earlier = log.find(key)
    if earlier is not None:
        _same_request(earlier, (kind,), view_id, actor, earlier.payload == json.loads(json.dumps(payload)))
        return earlier.id
    return log.append(key, actor, kind, payload, view_id=view_id, client_t=client_t)


def _view_of(connection: Connection, view_id: str, annotator: str) -> tuple[View, Query]:
    row = connection.execute(_VIEW, {"view": view_id}).first()
    if row is None:
        raise DataError(f"view {view_id} is not in the store")
    if row.annotator != annotator:
        raise DataError(f"view {view_id} was shown to somebody else; only they can answer it")
    return parsed(row), rows.parsed(Query, queries, row.row, row.body)


def _choice(view: View, groups: Sequence[Sequence[str]], n: int) -> tuple[Choice, tuple[tuple[int, ...], ...]]:
    """What groups of handles from best to worst say: a choice, and a ranking where there are more than two."""
    index = dict(zip(view.handles, view.places, strict=True))
    try:
        ranking = tuple(tuple(index[handle] for handle in group) for group in groups)
    except KeyError as problem:
        raise DataError(f"view {view.id} has no handle {problem}") from problem
    if not ranking:
        return "skip", ()
    if sorted(i for group in ranking for i in group) != list(range(n)) or not all(ranking):
        raise DataError(f"an answer to view {view.id} places each of its {n} handles once, or none to skip")
    if n > 2:
        return "ranking", ranking
    if len(ranking) == 1:
        return "tie", ()
    return ("left" if ranking[0][0] == 0 else "right"), ()


def _has_answered(connection: Connection, query_id: str, annotator: str) -> bool:
    return connection.scalar(_STANDING, {"query": query_id, "by": annotator}) is not None


def _same_request(earlier: Event, kinds: Sequence[str], view_id: str | None, actor: str, same: bool) -> None:
    if earlier.kind not in kinds or (earlier.view_id, earlier.actor) != (view_id, actor) or not same:
        raise DataError(f"key {earlier.key} was used for another event; every event needs a key of its own")
