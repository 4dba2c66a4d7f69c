"""A store in a PostgreSQL database: how it is reached, what its errors mean, and what is PostgreSQL's own in its SQL.

The tables and every statement on them are those of SQLite, and so is what holds. Each write first takes one advisory lock,
which writers of any process and machine share, so they are as much one after the other as on SQLite: finding a question and
leasing it is one step, row numbers have no gaps, and the chain of events has one end. COMMIT returns when the server's disk
has it (synchronous_commit=on), and a read sees one snapshot (REPEATABLE READ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import DataError as BadValue  # text with a NUL character, a number of more than 64 bits
from sqlalchemy.pool import NullPool

from backflip.errors import BackflipError, BusyError, DataError, FullDiskError, StorageError, UserError

KIND = "a PostgreSQL database"
SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
TOO_LONG = "54000"  # for an index: a name, key or purpose of more than 2,700 bytes
LOCK = 0x6261636B666C6970  # "backflip" in ASCII: the advisory lock of everybody who writes
IDLE_MS = 60_000  # after this long in the middle of a write without a word, the server takes a writer for dead
CONNECT_S = 5  # how long to wait for a server that does not answer, unless the address says

MEANINGS: dict[str, tuple[type[StorageError], str]] = {
    "55P03": (BusyError, "is busy: another process has been writing for too long; nothing was written, try again"),
    "57014": (BusyError, "is busy: its server ended what took too long; nothing was written, try again"),
    "53100": (FullDiskError, "has no room: the disk of its server is full; nothing was written, free some space and try again"),
    "25006": (StorageError, "cannot be written: its server is read-only"),
    "42501": (StorageError, "cannot be used: its user lacks a right"),
    "XX001": (StorageError, "is damaged; restore it from a copy"),
    "XX002": (StorageError, "is damaged; restore it from a copy"),
}
"""What an error of the server means for the person, by its code."""


@dataclass(frozen=True, slots=True)
class Server:
    """The place of a store that is a database on a server."""

    url: URL = field(repr=False)  # may hold a password; `name` never does

    @classmethod
    def at(cls, address: str) -> Server:
        """The server and database of an address. Raises UserError for one that cannot be read."""
        try:
            url = make_url(address)
        except (ArgumentError, ValueError):  # without its cause, which may quote the password
            raise UserError("a store's address is unreadable; write postgresql://user@host:5432/database") from None
        if "@" in f"{url.host}{url.database}":
            raise UserError("a store's address is unreadable; write an @ in the password as %40")
        if not url.database:
            raise UserError(f"store {_told(url)} names no database; write postgresql://user@host:5432/database")
        return cls(url.set(drivername="postgresql+psycopg"))

    @property
    def name(self) -> str:
        """What messages call the store: its address without the password."""
        return _told(self.url)

    @property
    def key(self) -> str:
        """The same for every store of this address."""
        return self.name

    def exists(self) -> bool:
        """Whether the database holds anything."""
        self.ready(read_only=True)
        engine = self.engine(read_only=True, busy_ms=0)
        try:
            with engine.connect() as connection:
                return bool(inspect(connection).get_table_names())
        except DBAPIError as problem:
            raise self.explain(problem) from problem
        finally:
            engine.dispose()

    def ready(self, *, read_only: bool) -> None:
        """Raises UserError when the driver is not installed."""
        try:
            import psycopg  # noqa: F401
        except ImportError as problem:
            raise UserError(
                f"store {self.name} needs the PostgreSQL driver; install it with: pip install 'backflip[postgres]'"
            ) from problem

    def engine(self, *, read_only: bool, busy_ms: int) -> Engine:
        """Connections to the database."""
        rules = "REPEATABLE READ, READ ONLY" if read_only else "READ COMMITTED, READ WRITE"
        settings = [
            f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {rules}",
            "SET synchronous_commit = on",
            f"SET lock_timeout = {busy_ms}",
            f"SET idle_in_transaction_session_timeout = {0 if read_only else IDLE_MS}",
        ]

        def set_up(driver: Any, _record: Any) -> None:
            for setting in settings:
                driver.execute(setting)
            driver.commit()

        # Readers are pooled, because a connection costs milliseconds, and tried before use, because servers restart.
        pool: Mapping[str, Any] = {"pool_pre_ping": True, "max_overflow": -1} if read_only else {"poolclass": NullPool}
        patience = {} if "connect_timeout" in self.url.query else {"connect_timeout": CONNECT_S}
        engine = create_engine(self.url, connect_args={"client_encoding": "utf8", **patience}, **pool)
        event.listen(engine, "connect", set_up)
        return engine

    def settle(self, writer: Connection, busy_ms: int) -> None:
        """See that the database holds any text. Raises StorageError when it does not."""
        encoding = writer.exec_driver_sql("SHOW server_encoding").scalar()
        writer.rollback()
        if encoding != "UTF8":
            raise StorageError(f"store {self.name} cannot hold every text: its encoding is {encoding}; make one with UTF8")

    def begin_write(self, connection: Connection) -> None:
        """Start a transaction that no other writer is in."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    def begin_read(self, connection: Connection) -> None:
        """Nothing to do: the first statement starts a transaction that sees one snapshot."""

    def explain(self, problem: DBAPIError) -> BackflipError:
        """The sentence for what the server could not do, or for what it cannot hold."""
        message, code = " ".join(str(problem.orig).split()), getattr(problem.orig, "sqlstate", None) or ""
        if isinstance(problem, BadValue) or code == TOO_LONG:
            return DataError(f"store {self.name} cannot hold what it was given: {message}")
        if problem.connection_invalidated:
            kind, meaning = StorageError, "lost its server; what was being written may be stored or not: send it again"
        elif code in MEANINGS:
            kind, meaning = MEANINGS[code]
        else:
            kind, meaning = StorageError, "failed" if code else "cannot be reached"
        return kind(f"store {self.name} {meaning} ({message})")


def _told(url: URL) -> str:
    """An address as it may be printed, and as PostgreSQL's own tools take it."""
    query = {name: value for name, value in url.query.items() if "pass" not in name and "secret" not in name}
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
    return str(shown.render_as_string(hide_password=False))


def in_transaction(connection: Connection) -> bool:
    """Whether the transaction is still there; it goes with the server."""
    if connection.invalidated:
        return False
    driver: Any = connection.connection.driver_connection
    return not driver.closed


def damage(_connection: Connection) -> str | None:
    """None: the server checks its own pages as it reads them."""
    return None


def forbid(connection: Connection, table: str, follows: str | None) -> None:
    """The triggers of `schema.forbid`, and one against TRUNCATE, which is another DELETE."""
    connection.exec_driver_sql(_function("backflip_refuse", "TG_TABLE_NAME || ' is append-only: ' || TG_OP || ' refused'"))
    connection.exec_driver_sql(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION backflip_refuse()"
    )
    if follows:
        event_of_it = (
            "EXISTS (SELECT 1 FROM events WHERE id = (SELECT max(id) FROM events) "
            f"AND position('\"' || NEW.{follows} || '\"' IN payload) > 0)"
        )
        message = "TG_TABLE_NAME || ' follow from events, and this backflip is too old to write them'"
        connection.exec_driver_sql(_function(f"{table}_follows", message, unless=event_of_it))
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_follows BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_follows()"
        )


def allow(connection: Connection, table: str) -> None:
    """Undo `forbid`."""
    for rule in ("append_only", "follows"):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_{rule} ON {table}")


def _function(name: str, message: str, *, unless: str = "false") -> str:
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {unless} THEN RETURN NEW; END IF; "
        f"RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = {message}; END $$"
    )
