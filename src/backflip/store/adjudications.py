"""What somebody decided where people differ, read back from the log.

An adjudication is a note of kind "adjudicate" whose payload says what its actor thinks of a question:

    {"query_id": "…", "choice": "left", "ranking": [], "shown_first": 0, "note": "they asked for a short one"}

It stands beside the answers and changes none of them; of several about one question the last counts. A note of this kind that
says anything else, or does not fit its question, decides nothing and is passed over.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from backflip.errors import DataError
from backflip.records import Query, Verdict
from backflip.store import rows, views
from backflip.store.events import Event, Log, event
from backflip.store.schema import events
from backflip.store.schema import queries as asked

KIND = "adjudicate"
CHOICES = ("left", "right", "tie", "ranking")
PART = 500  # questions looked up at once


@dataclass(frozen=True, slots=True)
class Adjudication:
    """A decision: the id of its event, its question, and the decision as a verdict of whoever made it, `at` when they did."""

    event_id: int
    query: Query
    verdict: Verdict


def adjudicate(log: Log, verdict: Verdict, *, key: str, client_t: float | None = None) -> int:
    """Store a decision; see `Store.adjudicate`."""
    body = log.connection.scalar(select(asked.c.body).where(asked.c.id == verdict.query_id))
    if body is None:
        raise DataError(f"query {verdict.query_id} is not in the store, so nothing can be decided about it")
    query = Query.from_json(json.loads(body))
    try:
        payload = _payload(verdict, query)
    except ValueError as problem:
        raise DataError(f"a decision about query {verdict.query_id}: {problem}") from problem
    return views.note(log, KIND, verdict.annotator, payload, key=key, view_id=None, client_t=client_t)


def adjudications(connection: Connection, purpose: str | None = None) -> list[Adjudication]:
    """Every decision about a question (of one purpose), in the order they were made."""
    notes = connection.execute(select(events).where(events.c.kind == KIND).order_by(events.c.id))
    decided = [(each, verdict) for each in map(event, notes) if (verdict := _verdict(each)) is not None]
    questions = _questions(connection, {verdict.query_id for _, verdict in decided}, purpose)
    return [
        Adjudication(each.id, questions[verdict.query_id], verdict)
        for each, verdict in decided
        if verdict.query_id in questions and _fits(verdict, questions[verdict.query_id])
    ]


def latest(decisions: Iterable[Adjudication]) -> dict[str, Adjudication]:
    """The decision that counts for each question, by query id."""
    return {each.verdict.query_id: each for each in decisions}


def _payload(verdict: Verdict, query: Query) -> dict[str, Any]:
    """What the note holds. Raises ValueError for a verdict that decides nothing or does not fit."""
    if verdict.choice not in CHOICES:
        raise ValueError(f"it is left, right, tie or a ranking, not {verdict.choice!r}")
    if not 0 <= verdict.shown_first < len(query.completions):
        raise ValueError(f"there is no completion {verdict.shown_first} that could have been shown first")
    verdict.comparisons(query)
    names = ("query_id", "choice", "ranking", "shown_first", "note")
    return {name: value for name, value in verdict.to_json().items() if name in names}


def _verdict(note: Event) -> Verdict | None:
    """The decision that a note holds, if it holds one."""
    said = note.payload
    if not isinstance(said, Mapping):
        return None
    texts = [said.get("query_id"), said.get("choice"), said.get("note", "")]
    numbers: list[Any] = [said.get("shown_first", 0)]
    try:
        ranking = tuple(tuple(group) for group in said.get("ranking", ()))
        numbers += itertools.chain.from_iterable(ranking)
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            return None
        if said["choice"] not in CHOICES:
            return None
        return Verdict(
            said["query_id"], note.actor, said["choice"], ranking, numbers[0], at=note.server_t, note=str(said.get("note", ""))
        )
    except (TypeError, ValueError):
        return None


def _fits(verdict: Verdict, query: Query) -> bool:
    try:
        verdict.comparisons(query)
    except ValueError:
        return False
    return True


def _questions(connection: Connection, ids: Iterable[str], purpose: str | None) -> dict[str, Query]:
    found: dict[str, Query] = {}
    remaining = sorted(ids)
    while remaining:
        part, remaining = remaining[:PART], remaining[PART:]
        wanted = select(asked.c.row, asked.c.id, asked.c.body).where(asked.c.id.in_(part))
        if purpose is not None:
            wanted = wanted.where(asked.c.purpose == purpose)
        for row, id, body in connection.execute(wanted):
            found[id] = rows.parsed(Query, asked, row, body)
    return found
