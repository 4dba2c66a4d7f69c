"""One thread that writes for many: whatever waits, up to 64 pieces of work, goes to the disk with one flush.

Each piece runs in a savepoint, so one that fails does not undo its neighbours. Nobody hears of a result before the
transaction that holds it is committed, so what was acknowledged is on the disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from backflip.errors import StorageError
from backflip.store import dialects

BATCH = 64

Work = Callable[[], Any]


class Writer:
    """A queue of work and the thread that does it. `batch()` is a transaction that the work's own writes join."""

    def __init__(self, batch: Callable[[], AbstractContextManager[Connection]], name: str) -> None:
        self._batch, self._name = batch, name
        self._queue: queue.SimpleQueue[tuple[Future[Any], Work] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Work) -> Future[Any]:
        """Have `work` done; its result or exception comes after the commit. Raises StorageError once closed."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise StorageError(f"store {self._name} is closed")
            if self._thread is None:  # a daemon: a process that ends without closing the store must not hang on it
                self._thread = threading.Thread(target=self._run, name=f"writer of {self._name}", daemon=True)
                self._thread.start()
            self._queue.put((future, work))
        return future

    def close(self) -> None:
        """Finish what waits, and take no more."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        while True:
            waiting = [self._queue.get()]
            while len(waiting) < BATCH and waiting[-1] is not None:
                try:
                    waiting.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            batch = [item for item in waiting if item is not None and item[0].set_running_or_notify_cancel()]
            if batch:
                self._commit(batch)
            if waiting[-1] is None:
                return

    def _commit(self, batch: list[tuple[Future[Any], Work]]) -> None:
        try:
            with self._batch() as connection:
                outcomes = [_attempt(connection, work) for _, work in batch]
        except BaseException as problem:  # nothing of the batch is on the disk, and each caller must hear of it
            for future, _ in batch:
                future.set_exception(problem)
            return
        for (future, _), (result, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


def _attempt(connection: Connection, work: Work) -> tuple[Any, Exception | None]:
    """The result of `work` or its exception, its writes undone. Raises it where the database undid the whole batch."""
    connection.exec_driver_sql("SAVEPOINT work")
    try:
        result, failure = work(), None
    except Exception as problem:
        if not dialects.of(connection).in_transaction(connection):  # it ends with a full disk, or with the server
            raise
        connection.exec_driver_sql("ROLLBACK TO work")
        result, failure = None, problem
    connection.exec_driver_sql("RELEASE work")
    return result, failure
