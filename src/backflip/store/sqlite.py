"""A store in an SQLite file: how it is opened, what its messages mean, and what is SQLite's own in its SQL.

A write is BEGIN IMMEDIATE … COMMIT with synchronous=FULL on a write-ahead log: when the call returns, the rows are on the
disk and no crash takes them back.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from backflip.errors import BusyError, FullDiskError, StorageError

KIND = "an SQLite database"

MEANINGS: dict[str, tuple[type[StorageError], str]] = {
    "locked": (BusyError, "is busy: another process has been writing for too long; nothing was written, try again"),
    "is full": (FullDiskError, "has no room: the disk is full; nothing was written, free some space and try again"),
    "not a database": (StorageError, "is not a database; give another path"),
    "malformed": (StorageError, "is damaged; restore it from an export or a copy"),
    "readonly": (StorageError, "cannot be written: the file or its folder is read-only"),
    "unable to open": (StorageError, "cannot be opened: the file or its folder is not readable and writable"),
    "disk I/O": (StorageError, "cannot be written: the disk reports an error; nothing was written"),
}
"""What a message of SQLite means for the person, by words it contains."""


@dataclass(frozen=True, slots=True)
class File:
    """The place of a store that is one file."""

    path: Path

    @property
    def name(self) -> str:
        """What messages call the store."""
        return str(self.path)

    @property
    def key(self) -> str:
        """The same for every name of the same file."""
        return str(self.path.resolve())

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def ready(self, *, read_only: bool) -> None:
        """Raises StorageError when the folder, or for reading the file, is not there."""
        if not self.path.parent.is_dir():
            raise StorageError(f"store {self.path} cannot be opened: there is no folder {self.path.parent}")
        if read_only and not self.path.exists():
            raise StorageError(f"there is no store at {self.path}")

    def engine(self, *, read_only: bool, busy_ms: int) -> Engine:
        """Connections to the file."""
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"

        def connect() -> sqlite3.Connection:
            # isolation_level=None: the driver starts no transaction behind our back; every BEGIN is written out below.
            connection = sqlite3.connect(uri, uri=True, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=FULL")
            return connection

        return create_engine("sqlite://", creator=connect, poolclass=NullPool)

    def settle(self, writer: Connection, busy_ms: int) -> None:
        """Switch the file to WAL. The switch ignores the busy timeout, so two first openers need this loop."""
        deadline = time.monotonic() + busy_ms / 1000
        while True:
            try:
                writer.exec_driver_sql("PRAGMA journal_mode=WAL")
                writer.rollback()
                return
            except DBAPIError as problem:
                writer.rollback()
                if "locked" not in str(problem.orig) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def begin_write(self, connection: Connection) -> None:
        """Start a transaction that no other writer is in."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def begin_read(self, connection: Connection) -> None:
        """Start a transaction that sees one snapshot."""
        connection.exec_driver_sql("BEGIN")

    def explain(self, problem: DBAPIError) -> StorageError:
        """The sentence for what SQLite could not do."""
        kind, meaning = reason(str(problem.orig))
        return kind(f"store {self.path} {meaning}")


def reason(message: str) -> tuple[type[StorageError], str]:
    """What SQLite's message means for the person, with what to do, and the error that says so."""
    return next((meaning for sign, meaning in MEANINGS.items() if sign in message), (StorageError, f"failed: {message}"))


def in_transaction(connection: Connection) -> bool:
    """Whether the transaction is still there; a full disk or a failing one may end it."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction)


def damage(connection: Connection) -> str | None:
    """What is wrong with the pages of the file; None when nothing is."""
    found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
    return None if found == "ok" else found


def forbid(connection: Connection, table: str, follows: str | None) -> None:
    """The triggers of `schema.forbid`."""
    for verb in ("UPDATE", "DELETE"):
        connection.execute(
            text(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
            )
        )
    if follows:
        connection.execute(
            text(
                f"CREATE TRIGGER {table}_follows BEFORE INSERT ON {table} WHEN NOT EXISTS (SELECT 1 FROM events "
                f"WHERE id = (SELECT max(id) FROM events) AND instr(payload, '\"' || NEW.{follows} || '\"')) "
                f"BEGIN SELECT RAISE(ABORT, '{table} follow from events, and this backflip is too old to write them'); END"
            )
        )


def allow(connection: Connection, table: str) -> None:
    """Undo `forbid`."""
    for rule in ("no_update", "no_delete", "follows"):
        connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_{rule}"))
