"""Opening the database, one writer and any number of readers, and saying in one sentence why it cannot be done.

A write is BEGIN IMMEDIATE … COMMIT with synchronous=FULL on a write-ahead log: when the call returns, the rows are
on the disk and no crash takes them back. Reads run on connections of their own, each in a snapshot, and never
wait for the writer. Writes of one process queue on one lock per file, because SQLite's own queue is unfair.
"""

from __future__ import annotations

import collections
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from backflip.errors import StorageError, UserError
from backflip.store import schema

BUSY_MS = 5000  # how long a write waits for another process to finish its own

_locks: dict[str, threading.RLock] = collections.defaultdict(threading.RLock)


def file_of(place: str | Path) -> Path:
    """The database file that a path or an `sqlite:///` address names. Raises UserError for any other address."""
    name = str(place)
    scheme = re.match(r"([a-z][a-z0-9+]*):", name)
    if scheme is None or (len(scheme[1]) == 1 and not name.startswith(scheme[1] + "://")):  # C:\… is a path
        path = name
    elif name.startswith("sqlite:///"):
        path = name.removeprefix("sqlite:///")
    else:
        raise UserError(f"store {name!r} cannot be opened: only a file path or sqlite:///path works today")
    if path in ("", ":memory:"):
        raise UserError(f"store {name!r} has no file; give a path such as feedback.db")
    return Path(path)


class Database:
    """One store file: `write()` and `read()` are transactions; every failure inside is a StorageError."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self._lock = _locks[str(path.resolve())]
        self._reading = _engine(path, "ro")
        self._writing = None if read_only else _engine(path, "rwc")
        self._writer: Connection | None = None
        self._batching = False
        try:
            with self._translated():
                self._open()
        except StorageError:
            self.close()
            raise

    def _open(self) -> None:
        if not self.path.parent.is_dir():
            raise StorageError(f"store {self.path} cannot be opened: there is no folder {self.path.parent}")
        if self._writing is None:
            if not self.path.exists():
                raise StorageError(f"there is no store at {self.path}")
            with self.read() as connection:
                schema.check(connection, str(self.path))
            return
        with self._lock:
            self._writer = self._writing.connect()
            _use_write_ahead_log(self._writer)
        with self.write() as connection:
            schema.prepare(connection, str(self.path))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block ends, and undone as a whole when it raises."""
        if self._writing is None:
            raise StorageError(f"store {self.path} is open for reading only")
        with self._lock, self._translated():
            if self._writer is None:
                raise StorageError(f"store {self.path} is closed")
            if self._batching:  # only the thread inside `batch` can hold the lock now
                yield self._writer
                return
            with self._writer.begin():
                self._writer.exec_driver_sql("BEGIN IMMEDIATE")
                yield self._writer

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """A transaction that every `write` of this thread inside the block joins."""
        with self.write() as connection:
            self._batching = True
            try:
                yield connection
            finally:
                self._batching = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: everything committed before the first read in the block, and nothing after it."""
        with self._translated(), self._reading.connect() as connection, connection.begin():
            connection.exec_driver_sql("BEGIN")
            yield connection

    def close(self) -> None:
        """Let go of the file; a closed store still reads."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as problem:
            raise StorageError(f"store {self.path} {reason(str(problem.orig))}") from problem


def _engine(path: Path, mode: str) -> Engine:
    uri = f"{path.absolute().as_uri()}?mode={mode}"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: the driver starts no transaction behind our back; every BEGIN is written out above.
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _use_write_ahead_log(connection: Connection) -> None:
    """Switch the file to WAL. The switch ignores the busy timeout, so two first openers need this loop."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.rollback()
            return
        except DBAPIError as problem:
            connection.rollback()
            if "locked" not in str(problem.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def reason(message: str) -> str:
    """What SQLite's message means for the person, with what to do."""
    meanings = {
        "locked": "is busy: another process has been writing for too long; nothing was written, try again",
        "is full": "has no room: the disk is full; nothing was written, free some space and try again",
        "not a database": "is not a database; give another path",
        "malformed": "is damaged; restore it from an export or a copy",
        "readonly": "cannot be written: the file or its folder is read-only",
        "unable to open": "cannot be opened: the file or its folder is not readable and writable",
        "disk I/O": "cannot be written: the disk reports an error; nothing was written",
    }
    return next((meaning for sign, meaning in meanings.items() if sign in message), f"failed: {message}")
