"""The log of what people did: events appended in one transaction, each with the client's key, so a repeat is noticed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, func, insert, select

from backflip import __version__
from backflip.errors import DataError, StorageError
from backflip.store.chain import START, link
from backflip.store.schema import events, in_order, retractions, verdicts

NOTES = ("edit", "span", "flag", "adjudicate", "asked")
"""Kinds of events that add to an answer and are kept as they come; nothing follows from them in the store itself."""
ADMIN = "admin"
"""The kind of an event that says who changed a project, a person or a secret."""

# Statements of every answer are made once: making one takes SQLAlchemy longer than running it.
_BY_KEY = select(events).where(events.c.key == bindparam("key"))
_INSERT = insert(events)
_LAST = select(events.c.id, events.c.hash).order_by(events.c.id.desc()).limit(1)
_LAST_ROW = {table.name: select(func.max(table.c.row)) for table in (verdicts, retractions)}

OWN_KEYS = ("verdict:", "retraction:")  # how the store names what comes without a key


@dataclass(frozen=True, slots=True)
class Event:
    """Something somebody did. `kind` is "verdict", "retraction", "surplus" (an answer to what this person had already
    answered: kept, and counted nowhere), "repeat" (an answer to a question shown again to see whether it stays the same) and
    "unrepeat" (that one taken back), one of `NOTES`, or `ADMIN`.

    `id` counts up in the order of writing. `key` is the client's: sending an event twice stores it once. Times are
    seconds since 1970, `client_t` by the client's clock (None: it did not say), `server_t` by the store's.
    """

    id: int
    key: str
    actor: str
    view_id: str | None
    kind: str
    payload: Mapping[str, Any]
    client_t: float | None
    server_t: float
    app_version: str


class Log:
    """The end of the log within one write transaction. `now` is the store's time, seconds since 1970."""

    def __init__(self, connection: Connection, now: float) -> None:
        self.connection, self.now = connection, now
        self.last_id = 0  # of the event appended last in this transaction
        self._head: tuple[int, str] | None = None
        self._rows: dict[str, int] = {}

    def forget(self) -> None:
        """Read anew where the log and its projections end."""
        self._head, self._rows = None, {}

    def find(self, key: str) -> Event | None:
        """The event that was stored under a client's key. Raises DataError for a key that no client may use."""
        check_key(key)
        found = self.connection.execute(_BY_KEY, {"key": key}).first()
        return None if found is None else event(found)

    def append(
        self,
        key: str,
        actor: str,
        kind: str,
        payload: Mapping[str, Any],
        *,
        view_id: str | None = None,
        client_t: float | None = None,
    ) -> int:
        """Seal an event and store it; its id. Raises DataError when it is no JSON or `client_t` is not a time."""
        if client_t is not None and not math.isfinite(client_t):
            raise DataError(f"event {key}: {client_t} is not a time")
        try:
            text = json.dumps(payload, ensure_ascii=False, allow_nan=kind not in NOTES)
            "".join((text, key, actor)).encode()
        except (TypeError, ValueError) as problem:
            raise DataError(f"event {key} cannot be stored: {problem}") from problem
        client_t = None if client_t is None else float(client_t)
        last, before = self._last()
        sealed = link(before, key, actor, view_id, kind, text, client_t, self.now, __version__)
        values = {
            "id": last + 1, "key": key, "actor": actor, "view_id": view_id, "kind": kind, "payload": text, "client_t": client_t,
            "server_t": self.now, "app_version": __version__, "prev_hash": before, "hash": sealed,
        }  # fmt: skip
        self.connection.execute(_INSERT, values)
        self.last_id, self._head = last + 1, (last + 1, sealed)
        return self.last_id

    def next_row(self, table: Table) -> int:
        """The row number that the next row of a projection gets: one more than the last, without gaps."""
        last = self._rows.get(table.name)
        if last is None:
            last = int(self.connection.scalar(_LAST_ROW[table.name]) or 0)
        self._rows[table.name] = last + 1
        return last + 1

    def _last(self) -> tuple[int, str]:
        """Id and hash of the last event."""
        if self._head is None:
            found = self.connection.execute(_LAST).first()
            self._head = (0, START) if found is None else (found.id, found.hash)
        return self._head


def check_key(key: str) -> None:
    """Raises DataError for a key that no client may use."""
    if not key or key.startswith(OWN_KEYS):
        raise DataError(f"event key {key!r} cannot be used; give one of your own, such as a random UUID")


def event(row: Row[Any]) -> Event:
    """The event in a row. Raises StorageError naming it when its payload is damaged."""
    try:
        payload = json.loads(row.payload)
    except ValueError as problem:
        raise StorageError(f"event {row.id} is damaged ({problem}); restore the store from a copy") from problem
    return Event(row.id, row.key, row.actor, row.view_id, row.kind, payload, row.client_t, row.server_t, row.app_version)


def walk(connection: Connection) -> Iterator[tuple[Event, str]]:
    """Every event in order with its hash. Raises StorageError at the first whose seal does not hold."""
    head = START
    for row in in_order(connection, events):
        sealed = link(
            head, row.key, row.actor, row.view_id, row.kind, row.payload, row.client_t, row.server_t, row.app_version
        )  # fmt: skip
        if (row.prev_hash, row.hash) != (head, sealed):
            raise StorageError(
                f"event {row.id} or the one before it was changed after it was written; restore the store from a copy"
            )
        head = row.hash
        yield event(row), head
