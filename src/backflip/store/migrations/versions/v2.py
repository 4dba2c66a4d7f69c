"""Schema 2: views, leases, frontiers, and events, of which verdicts and retractions are projections.

Every verdict and retraction of schema 1 becomes an event, verdicts first, each kind in its order; rows keep their numbers,
so a cursor taken before means the same after. `server_t` is the moment of the migration, as that is when the event was
sealed; when the answer was given stands in the payload.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from backflip.store.chain import START, link

revision = "2"
down_revision = "1"

APP_VERSION = "migrated from schema 1"


def upgrade() -> None:
    """Add the tables, seal what is there as events, and say that this is schema 2."""
    events = _make_tables()
    connection = op.get_bind()
    now, head = time.time(), START
    for key, actor, kind, payload in _history(connection):
        head, before = link(head, key, actor, None, kind, payload, None, now, APP_VERSION), head
        values = {"key": key, "actor": actor, "kind": kind, "payload": payload, "server_t": now, "app_version": APP_VERSION}
        connection.execute(sa.insert(events).values(**values, prev_hash=before, hash=head))
    op.execute("DROP TRIGGER backflip_schema_no_update")
    op.execute("UPDATE backflip_schema SET version = 2")
    _forbid("backflip_schema", "UPDATE")
    for table in ("views", "events"):
        for verb in ("UPDATE", "DELETE"):
            _forbid(table, verb)
    for table, column in (("verdicts", "id"), ("retractions", "verdict_id")):
        op.execute(
            f"CREATE TRIGGER {table}_follows BEFORE INSERT ON {table} WHEN NOT EXISTS (SELECT 1 FROM events "
            f"WHERE id = (SELECT max(id) FROM events) AND instr(payload, '\"' || NEW.{column} || '\"')) "
            f"BEGIN SELECT RAISE(ABORT, '{table} follow from events, and this backflip is too old to write them'); END"
        )


def _history(connection: sa.Connection) -> Iterator[tuple[str, str, str, str]]:
    """(key, actor, kind, payload) of every row of schema 1. Raises ValueError naming a verdict that is no JSON."""
    for row, id, annotator, body in connection.execute(sa.text("SELECT row, id, annotator, body FROM verdicts ORDER BY row")):
        try:
            verdict = json.loads(body)
        except ValueError as problem:
            raise ValueError(f"row {row} of verdicts is damaged ({problem})") from problem
        yield f"verdict:{id}", annotator, "verdict", _text({"row": row, "id": id, "verdict": verdict})
    taken_back = sa.text("SELECT row, verdict_id, annotator, at FROM retractions ORDER BY row")
    for row, verdict_id, annotator, at in connection.execute(taken_back):
        payload = {"row": row, "verdict_id": verdict_id, "annotator": annotator, "at": at}
        yield f"retraction:{verdict_id}", annotator, "retraction", _text(payload)


def _text(payload: dict[str, object]) -> str:
    return json.dumps(payload, ensure_ascii=False)


def _forbid(table: str, verb: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
    )


def _make_tables() -> sa.Table:
    op.create_table(
        "views",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("query_id", sa.Text, sa.ForeignKey("queries.id"), nullable=False),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("places", sa.Text, nullable=False),
        sa.Column("handles", sa.Text, nullable=False),
        sa.Column("render", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    events = op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("view_id", sa.Text, sa.ForeignKey("views.id"), index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("client_t", sa.Float),
        sa.Column("server_t", sa.Float, nullable=False),
        sa.Column("app_version", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "leases",
        sa.Column("query_id", sa.Text, sa.ForeignKey("queries.id"), primary_key=True, nullable=False),
        sa.Column("annotator", sa.Text, primary_key=True, nullable=False),
        sa.Column("view_id", sa.Text, sa.ForeignKey("views.id"), nullable=False, unique=True),
        sa.Column("until", sa.Float, nullable=False),
    )
    op.create_table(
        "frontiers",
        sa.Column("purpose", sa.Text, primary_key=True, nullable=False),
        sa.Column("overlap", sa.Integer, primary_key=True, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("seen", sa.Integer, nullable=False),
    )
    return events
