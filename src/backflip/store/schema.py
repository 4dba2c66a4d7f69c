"""The tables of a store, and how a file becomes one.

`events` is the history: every answer, every answer taken back, every note, each sealed with a hash of itself and the one
before. `verdicts` and `retractions` follow from it row by row; they are what training reads. `queries` holds what was
asked, `views` what was shown to whom, `leases` who is looking at what just now, and `frontiers` where looking for the next
question starts; these last two forget. `projects`, `golds`, `media`, `people` and `secrets` are the studio's; what is done to
them is an event too. Triggers refuse UPDATE and DELETE on what must not be forgotten, even to a person
with an SQL prompt. `row` counts up in the order of
writing and is the cursor by which training reads what is new; the `id` of a query or a verdict is its content id, so
writing a record twice writes it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
)

from backflip.errors import StorageError
from backflip.store import dialects

VERSION = 3
PART = 500  # rows read or written at once
OLDEST = 1  # read as it is, and migrated when it is opened for writing

Number = Integer().with_variant(BigInteger(), "postgresql")  # of 64 bits on both
metadata = MetaData()
version = Table("backflip_schema", metadata, Column("version", Integer, nullable=False))
migration = Table(  # Alembic's own note of the same, so that its tools know the file too
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
queries = Table(
    "queries",
    metadata,
    Column("row", Number, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("purpose", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_queries_purpose", "purpose", "row"),
    sqlite_autoincrement=True,
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("row", Number, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("query_id", Text, ForeignKey("queries.id"), nullable=False, index=True),
    Column("annotator", Text, nullable=False, index=True),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
retractions = Table(
    "retractions",
    metadata,
    Column("row", Number, primary_key=True, autoincrement=False),
    Column("verdict_id", Text, ForeignKey("verdicts.id"), nullable=False, unique=True),
    Column("annotator", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)

views = Table(
    "views",
    metadata,
    Column("id", Text, primary_key=True, nullable=False),
    Column("query_id", Text, ForeignKey("queries.id"), nullable=False),
    Column("annotator", Text, nullable=False, index=True),
    Column("seed", Number, nullable=False),
    Column("places", Text, nullable=False),
    Column("handles", Text, nullable=False),
    Column("render", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("repeat", Integer, nullable=False, server_default="0"),
)
events = Table(
    "events",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False, unique=True),
    Column("actor", Text, nullable=False),
    Column("view_id", Text, ForeignKey("views.id"), index=True),
    Column("kind", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("client_t", Float),
    Column("server_t", Float, nullable=False),
    Column("app_version", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    sqlite_autoincrement=True,
)
leases = Table(
    "leases",
    metadata,
    Column("query_id", Text, ForeignKey("queries.id"), primary_key=True, nullable=False),
    Column("annotator", Text, primary_key=True, nullable=False, index=True),
    Column("view_id", Text, ForeignKey("views.id"), nullable=False, unique=True),
    Column("until", Float, nullable=False),
)
frontiers = Table(
    "frontiers",
    metadata,
    Column("purpose", Text, primary_key=True, nullable=False),
    Column("overlap", Number, primary_key=True, nullable=False),
    Column("row", Number, nullable=False),
    Column("seen", Number, nullable=False),
)
projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True, nullable=False),
    Column("purpose", Text, nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("at", Float, nullable=False),
)
golds = Table(
    "golds",
    metadata,
    Column("query_id", Text, ForeignKey("queries.id"), primary_key=True, nullable=False),
    Column("expected", Text, nullable=False),
)
media = Table(
    "media",
    metadata,
    Column("id", String(64), primary_key=True, nullable=False),
    Column("type", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
)
people = Table(
    "people",
    metadata,
    Column("name", String(64), primary_key=True, nullable=False),
    Column("role", Text, nullable=False),
    Column("password", Text),
    Column("active", Integer, nullable=False),
    Column("at", Float, nullable=False),
)
secrets = Table(  # sessions, tokens, invitations and sign-in links: only the hash of what a person holds is ever stored
    "secrets",
    metadata,
    Column("id", String(64), primary_key=True, nullable=False),
    Column("kind", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("used", Float),
)
FOLLOWS = {verdicts.name: "id", retractions.name: "verdict_id"}
"""The tables that follow from events, and the column of each that the event's payload holds too."""

APPEND_ONLY = (version.name, queries.name, verdicts.name, retractions.name, views.name, events.name)


def prepare(connection: Connection, name: str) -> None:
    """Create the tables in an empty database; accept those of this version; migrate older ones; refuse anything else.

    Runs inside the caller's write transaction, so two processes that open a new store at once make it once, and a
    migration that fails leaves the old store. Raises StorageError for somebody else's database, for a schema newer than
    this backflip knows, and for an older store with a damaged row.
    """
    if inspect(connection).get_table_names():
        if check(connection, name) < VERSION:
            from backflip.store.migrations import migrate

            migrate(connection, name)
        return
    metadata.create_all(connection)
    connection.execute(insert(version).values(version=VERSION))
    connection.execute(insert(migration).values(version_num=str(VERSION)))
    for table in APPEND_ONLY:
        forbid(connection, table)


def forbid(connection: Connection, table: str) -> None:
    """Have the database refuse UPDATE and DELETE on a table, and in one that follows from events a row without its event.

    The latter stops a process of an older backflip that had the store open while it was migrated.
    """
    dialects.of(connection).forbid(connection, table, FOLLOWS.get(table))


def allow(connection: Connection, table: str) -> None:
    """Undo `forbid`, for a migration or a rebuild."""
    dialects.of(connection).allow(connection, table)


def in_order(connection: Connection, table: Table, *columns: Column[Any]) -> Iterator[Row[Any]]:
    """The rows of a table (`columns`, else all of it) by their number, read a part at a time: a driver may fetch all it can."""
    (number,) = table.primary_key
    wanted = select(*columns or (table,)).order_by(number).limit(PART)
    part = connection.execute(wanted).all()
    while part:
        yield from part
        part = connection.execute(wanted.where(number > part[-1]._mapping[number])).all()


def check(connection: Connection, name: str) -> int:
    """The version of a store's schema. Raises StorageError unless the database is one that this backflip reads."""
    if not inspect(connection).has_table(version.name):
        raise StorageError(f"{name} is {dialects.of(connection).KIND} but not a backflip store; give another one")
    found = connection.execute(select(version.c.version)).scalar()
    if not isinstance(found, int) or not OLDEST <= found <= VERSION:
        raise StorageError(f"{name} has store schema {found}, and this backflip reads schema {VERSION}; install a newer backflip")
    return found
