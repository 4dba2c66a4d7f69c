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
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, func, insert, not_, select

from backflip.errors import DataError
from backflip.records import Choice, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import rows
from backflip.store.events import NOTES, Event, Log, check_key
from backflip.store.schema import events, leases, queries, retractions, verdicts, views

_INSERT = insert(views)
_VIEW = (
    select(views, queries.c.row, queries.c.body, leases.c.until)
    .select_from(views.join(queries).outerjoin(leases, leases.c.view_id == views.c.id))
    .where(views.c.id == bindparam("view"))
)
_EARLIER = select(events.c.id).where(events.c.key == bindparam("key")).scalar_subquery().label("earlier")
_GIVEN = (
    exists().where(verdicts.c.query_id == views.c.query_id, verdicts.c.annotator == views.c.annotator).correlate(views)
).label("given")
_ANSWERED_VIEW = _VIEW.add_columns(_EARLIER, _GIVEN)  # all that a first answer needs to know, asked at once
_STANDING = (
    select(verdicts.c.row)
    .select_from(verdicts.outerjoin(retractions, retractions.c.verdict_id == verdicts.c.id))
    .where(verdicts.c.query_id == bindparam("query"), verdicts.c.annotator == bindparam("by"), retractions.c.row.is_(None))
    .limit(1)
)
_STANDING_BODY = _STANDING.add_columns(verdicts.c.body)
_LAST_OF_VIEW = (
    select(events.c.id, events.c.kind).where(events.c.view_id == bindparam("view")).order_by(events.c.id.desc()).limit(1)
)
_later, _again = verdicts.alias("later"), views.alias("again")
_AGAIN = (
    select(queries.c.row, queries.c.body, views.c.places, views.c.seed)
    .select_from(verdicts.join(queries).join(views, views.c.query_id == queries.c.id))
    .where(
        verdicts.c.annotator == bindparam("by"),
        views.c.annotator == bindparam("by"),
        views.c.repeat == 0,
        queries.c.purpose == bindparam("purpose"),
        not_(exists().where(retractions.c.verdict_id == verdicts.c.id)),
        select(func.count()).select_from(_later).where(_later.c.annotator == bindparam("by"), _later.c.row > verdicts.c.row)
        .correlate(verdicts).scalar_subquery() >= bindparam("gap"),
        not_(exists().where(_again.c.query_id == queries.c.id, _again.c.annotator == bindparam("by"), _again.c.repeat == 1)),
    )
    .order_by(verdicts.c.row, views.c.at.desc())
    .limit(1)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """One showing of a query to an annotator.

    `places[p]` is the index of the completion in place p, `handles[p]` its opaque name, `seed` what the places were drawn
    from, `render` the version of whatever drew the page, `at` seconds since 1970. A `repeat` shows what this person has
    answered before, the places the other way round; its answer measures the person and counts nowhere else.
    """

    id: str
    query_id: str
    annotator: str
    seed: int
    places: tuple[int, ...]
    handles: tuple[str, ...]
    render: str
    at: float
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What a person says about a view, its places named by handles.

    `groups` go from best to worst, equal ones together: [[a], [b]] prefers a, [[a, b]] is a tie and [] a skip. `scores`, of
    every handle, make it a rating instead. `strength` and `code` are a verdict's; `seen` is how they looked (what they played,
    how far they scrolled), kept with the event.
    """

    groups: Sequence[Sequence[str]] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    strength: int = 0
    code: str = ""
    note: str = ""
    ms: int = 0
    seen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an answer: the event it is, and the verdict it made (None: it was surplus or a repeat).

    `late` says that the lease had run out; the verdict counts all the same. `repeated` says that the key had been seen
    before, so that nothing new was stored; `surplus` that this person had answered the question already.
    """

    event_id: int
    verdict_id: str | None
    late: bool = False
    repeated: bool = False
    surplus: bool = False


def show(log: Log, asked: Sequence[Query], annotator: str, seed: int, render: str) -> list[View]:
    """Store a new view of each query. The places depend on the seed, the annotator and the query alone: shown again, it looks
    the same."""
    seeds = Seeds(seed)
    places = (seeds.permutation(len(query.completions), "sides", annotator, query.id) for query in asked)
    made = [
        View("", query.id, annotator, seed, tuple(order), (), render, log.now) for query, order in zip(asked, places, strict=True)
    ]
    return _store(log, made)


def show_again(log: Log, annotator: str, purpose: str, *, gap: int, render: str) -> tuple[View, Query] | None:
    """The oldest question of a purpose that `annotator` answered, at least `gap` answers ago, and has not met again: a new
    view of it with the places the other way round. None when there is none."""
    wanted = {"by": annotator, "purpose": purpose, "gap": gap}
    row = log.connection.execute(_AGAIN, wanted).first()
    if row is None:
        return None
    query, first = rows.parsed(Query, queries, row.row, row.body), tuple(json.loads(row.places))
    again = View("", query.id, annotator, row.seed, first[::-1], (), render, log.now, repeat=True)
    return _store(log, [again])[0], query


def _store(log: Log, views: Sequence[View]) -> list[View]:
    """The views with ids and handles of their own, stored."""
    named = [
        dataclasses.replace(view, id=secrets.token_hex(16), handles=tuple(secrets.token_hex(8) for _ in view.places))
        for view in views
    ]
    rows_of = [
        {"id": v.id, "query_id": v.query_id, "annotator": v.annotator, "seed": v.seed, "places": json.dumps(v.places),
         "handles": json.dumps(v.handles), "render": v.render, "at": v.at, "repeat": int(v.repeat)}
        for v in named
    ]  # fmt: skip
    log.connection.execute(_INSERT, rows_of)
    return named


def parsed(row: Row[Any]) -> View:
    """The view in a row of the table."""
    places, handles = tuple(json.loads(row.places)), tuple(json.loads(row.handles))
    return View(row.id, row.query_id, row.annotator, row.seed, places, handles, row.render, row.at, bool(row.repeat))


def answer(log: Log, view_id: str, annotator: str, given: Given, *, key: str, client_t: float | None) -> Answer:
    """Store an answer; see `Store.answer`."""
    row = log.connection.execute(_ANSWERED_VIEW, {"view": view_id, "key": key}).first()
    view, query, until = _own(row, view_id, annotator)
    verdict = _verdict(view, query, given, log.now)
    check_key(key)
    earlier = log.find(key) if row.earlier is not None else None
    if earlier is not None:
        stored = earlier.payload.get("verdict", {})
        same = {**stored, "at": 0, "ms": 0, "note": ""} == {**verdict.to_json(), "at": 0, "ms": 0, "note": ""}
        _same_request(earlier, ("verdict", "surplus", "repeat"), view_id, annotator, same)
        counted = earlier.payload["id"] if earlier.kind == "verdict" else None
        return Answer(earlier.id, counted, bool(earlier.payload.get("late")), repeated=True)
    answered = row.given and _has_answered(log.connection, view.query_id, annotator)
    kind = "repeat" if view.repeat else "surplus" if answered else "verdict"
    if kind != "verdict":
        payload = {"verdict": verdict.to_json(), **({"seen": given.seen} if given.seen else {})}
        id = log.append(key, annotator, kind, payload, view_id=view_id, client_t=client_t)
        return Answer(id, None, surplus=kind == "surplus")
    while row.given and rows.has_verdict(log, verdict.id):  # the same answer, given and taken back at the very same time
        verdict = dataclasses.replace(verdict, at=math.nextafter(verdict.at, math.inf))
    late = until is None or until <= log.now
    rows.insert_verdict(
        log, verdict, "answer", key=key, view_id=view_id, client_t=client_t, late=late, seen=given.seen, fits=True
    )
    return Answer(log.last_id, verdict.id, late)


def undo(log: Log, view_id: str, annotator: str, *, key: str, client_t: float | None, lease_s: float) -> Answer:
    """Take an answer back; see `Store.undo`."""
    view, _, _ = _view_of(log.connection, view_id, annotator)
    earlier = log.find(key)
    if earlier is not None:
        _same_request(earlier, ("retraction", "unrepeat"), view_id, annotator, True)
        return Answer(earlier.id, earlier.payload.get("verdict_id"), repeated=True)
    if view.repeat:
        last = log.connection.execute(_LAST_OF_VIEW, {"view": view_id}).first()
        if last is None or last.kind != "repeat":
            raise DataError(f"view {view_id} has no answer that could be taken back")
        payload = {"of": last.id}
        return Answer(log.append(key, annotator, "unrepeat", payload, view_id=view_id, client_t=client_t), None)
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


def _view_of(connection: Connection, view_id: str, annotator: str) -> tuple[View, Query, float | None]:
    """A view of this annotator's, its query, and until when it is leased, if it is."""
    return _own(connection.execute(_VIEW, {"view": view_id}).first(), view_id, annotator)


def _own(row: Row[Any] | None, view_id: str, annotator: str) -> tuple[View, Query, float | None]:
    """What `_view_of` says, from the row of a view."""
    if row is None:
        raise DataError(f"view {view_id} is not in the store")
    if row.annotator != annotator:
        raise DataError(f"view {view_id} was shown to somebody else; only they can answer it")
    return parsed(row), rows.parsed(Query, queries, row.row, row.body), row.until


def repeats(connection: Connection, purpose: str) -> list[tuple[Verdict, Verdict]]:
    """(first, second) for every question of a purpose that somebody answered twice, oldest first; taken-back ones left out."""
    again = (
        select(events.c.kind, events.c.payload, events.c.view_id)
        .select_from(events.join(views).join(queries))
        .where(events.c.kind.in_(("repeat", "unrepeat")), queries.c.purpose == purpose)
        .order_by(events.c.id)
    )
    second: dict[str, Verdict] = {}
    for kind, payload, view_id in connection.execute(again):
        if kind == "unrepeat":
            second.pop(view_id, None)
        else:
            second[view_id] = Verdict.from_json(json.loads(payload)["verdict"])
    found = []
    for verdict in second.values():
        first = connection.execute(_STANDING_BODY, {"query": verdict.query_id, "by": verdict.annotator}).first()
        if first is not None:
            found.append((rows.parsed(Verdict, verdicts, first.row, first.body), verdict))
    return found


def _verdict(view: View, query: Query, given: Given, now: float) -> Verdict:
    """What handles say, as a verdict. Raises DataError where they do not fit the view."""
    index = dict(zip(view.handles, view.places, strict=True))
    try:
        ranking = tuple(tuple(index[handle] for handle in group) for group in given.groups)
        scored = {index[handle]: float(score) for handle, score in given.scores.items()}
    except KeyError as problem:
        raise DataError(f"view {view.id} has no handle {problem}") from problem
    n, rest = len(query.completions), (view.places[0], given.ms, now, given.note, given.strength, given.code)
    try:
        if scored:
            if len(scored) != n or ranking:
                raise DataError(f"a rating of view {view.id} gives each of its {n} handles a score, and no order")
            return Verdict(view.query_id, view.annotator, "rating", (), *rest, tuple(scored[i] for i in range(n)))
        choice, order = _choice(view, ranking, n)
        return Verdict(view.query_id, view.annotator, choice, order, *rest)
    except ValueError as problem:
        raise DataError(f"an answer to view {view.id}: {problem}") from problem


def _choice(view: View, ranking: tuple[tuple[int, ...], ...], n: int) -> tuple[Choice, tuple[tuple[int, ...], ...]]:
    """A choice, and a ranking where there are more than two."""
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
