"""The tables of a store, and how a file becomes one.

Three tables that only ever grow, so a store is its own history: what was asked, what was answered, and which
answers were taken back. Triggers refuse UPDATE and DELETE even to a person with an SQL prompt. `row` counts up in
the order of writing and is the cursor by which training reads what is new; `id` is the record's content id, so
writing a record twice writes it once.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
)

from backflip.errors import StorageError

VERSION = 1

metadata = MetaData()
version = Table("backflip_schema", metadata, Column("version", Integer, nullable=False))
queries = Table(
    "queries",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("purpose", Text, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("query_id", Text, ForeignKey("queries.id"), nullable=False, index=True),
    Column("annotator", Text, nullable=False, index=True),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
retractions = Table(
    "retractions",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=True),
    Column("verdict_id", Text, ForeignKey("verdicts.id"), nullable=False, unique=True),
    Column("annotator", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)


def prepare(connection: Connection, name: str) -> None:
    """Create the tables in an empty database; accept those of this version; refuse anything else.

    Runs inside the caller's write transaction, so two processes that open a new store at once make it once.
    Raises StorageError for somebody else's database and for a schema newer than this backflip knows.
    """
    if inspect(connection).get_table_names():
        check(connection, name)
        return
    metadata.create_all(connection)
    connection.execute(insert(version).values(version=VERSION))
    for table in (version, queries, verdicts, retractions):
        for verb in ("UPDATE", "DELETE"):
            connection.execute(
                text(
                    f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
                    f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only: {verb} refused'); END"
                )
            )


def check(connection: Connection, name: str) -> None:
    """Raise StorageError unless the database is a store whose schema this version of backflip reads."""
    if not inspect(connection).has_table(version.name):
        raise StorageError(f"{name} is an SQLite database but not a backflip store; give another path")
    found = connection.execute(select(version.c.version)).scalar()
    if found != VERSION:
        raise StorageError(f"{name} has store schema {found}, and this backflip reads schema {VERSION}; install a newer backflip")
