"""Transactions on the database of a store, one writer and any number of readers, and a sentence where one cannot be had.

When a write returns, the rows are on the disk and no crash takes them back. Reads run on connections of their own, each in
a snapshot, and never wait for the writer. Writes of one process queue on one lock per place, because SQLite's own queue is
unfair; those of several processes take turns at the database. How each kind of database does that: `sqlite`, `postgres`.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import DBAPIError

from backflip.errors import BackflipError, StorageError
from backflip.store import schema
from backflip.store.dialects import Place

if TYPE_CHECKING:
    from backflip.store.events import Log

BUSY_MS = 5000  # how long a write waits for another process to finish its own

_locks: dict[str, threading.RLock] = collections.defaultdict(threading.RLock)


class Database:
    """The database of one store: `write()` and `read()` are transactions.

    Every failure of it inside is a StorageError, but for a value that it cannot hold, which is a DataError.
    """

    def __init__(self, place: Place, *, read_only: bool) -> None:
        place.ready(read_only=read_only)
        self.place = place
        self._lock = _locks[place.key]
        self._reading = place.engine(read_only=True, busy_ms=BUSY_MS)
        self._writing = None if read_only else place.engine(read_only=False, busy_ms=BUSY_MS)
        self._writer: Connection | None = None
        self._batching = False
        self._log: Log | None = None
        try:
            with self._translated():
                self._open()
        except BackflipError:
            self.close()
            raise

    def _open(self) -> None:
        if self._writing is None:
            with self.read() as connection:
                schema.check(connection, self.place.name)
            return
        with self._lock:
            self._writer = self._writing.connect()
            self.place.settle(self._writer, BUSY_MS)
        with self.write() as connection:
            schema.prepare(connection, self.place.name)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block ends, and undone as a whole when it raises."""
        if self._writing is None:
            raise StorageError(f"store {self.place.name} is open for reading only")
        with self._lock, self._translated():
            if self._writer is None:
                raise StorageError(f"store {self.place.name} is closed")
            if self._batching:  # only the thread inside `batch` can hold the lock now
                yield self._writer
                return
            with self._begun(self._writer):
                yield self._writer

    def _begun(self, writer: Connection) -> RootTransaction:
        """A transaction of the writer's. A connection that broke before it, as when a server restarts, is made anew, once."""
        for again in (True, False):
            transaction = writer.begin()
            try:
                self.place.begin_write(writer)
                break
            except BaseException as problem:
                transaction.close()
                if not (again and isinstance(problem, DBAPIError) and problem.connection_invalidated):
                    raise
        return transaction

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """A transaction that every `write` of this thread inside the block joins."""
        with self.write() as connection:
            self._batching, self._log = True, None
            try:
                yield connection
            finally:
                self._batching, self._log = False, None

    def batch_log(self, make: Callable[[], Log]) -> Log:
        """What `make` makes: one for all writes of a batch, so that each need not look again where the log ends."""
        if not self._batching:
            return make()
        if self._log is None:
            self._log = make()
        return self._log

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: everything committed before the first read in the block, and nothing after it."""
        with self._translated(), self._reading.connect() as connection, connection.begin():
            self.place.begin_read(connection)
            yield connection

    def close(self) -> None:
        """Let go of the database; a closed store still reads."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None
        self._reading.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as problem:
            raise self.place.explain(problem) from problem
