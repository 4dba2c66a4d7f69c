"""What differs between the databases a store can lie in, and which one it is: all else is written once for both.

`sqlite.py` and `postgres.py` each hold a `Place` and, as functions, a `Dialect`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from backflip.errors import BackflipError, UserError
from backflip.store import postgres, sqlite


class Place(Protocol):
    """Where a store lies, and how it is opened there."""

    @property
    def name(self) -> str:
        """What messages call the store; never holds a password."""

    @property
    def key(self) -> str:
        """The same for every name of the same place, as far as can be seen from here."""

    def exists(self) -> bool:
        """Whether there is something already."""

    def ready(self, *, read_only: bool) -> None:
        """Raises StorageError or UserError where opening it cannot work, in a sentence that says what is missing."""

    def engine(self, *, read_only: bool, busy_ms: int) -> Engine:
        """Connections to it. A write waits `busy_ms` for another process to finish its own."""

    def settle(self, writer: Connection, busy_ms: int) -> None:
        """What is done once, when a place is opened for writing."""

    def begin_write(self, connection: Connection) -> None:
        """Start a transaction that no other writer is in."""

    def begin_read(self, connection: Connection) -> None:
        """Start a transaction that sees one snapshot."""

    def explain(self, problem: DBAPIError) -> BackflipError:
        """The sentence for what the database could not do."""


class Dialect(Protocol):
    """What is done to the database on a connection, whatever the place it came from."""

    KIND: str  # "a … database", for messages

    def in_transaction(self, connection: Connection, /) -> bool:
        """Whether the transaction is still there after an error."""

    def damage(self, connection: Connection, /) -> str | None:
        """What is wrong with the pages of the database; None when nothing is."""

    def forbid(self, connection: Connection, table: str, follows: str | None) -> None:
        """Have the database refuse UPDATE and DELETE; with `follows`, also rows that no event holds by that column."""

    def allow(self, connection: Connection, table: str) -> None:
        """Undo `forbid`."""


DIALECTS: dict[str, Dialect] = {"sqlite": sqlite, "postgresql": postgres}
"""The dialects by what SQLAlchemy calls them."""
SCHEMES = ("sqlite", *postgres.SCHEMES)
"""What the address of a store can begin with, before its colon."""


def place_of(place: str | Path) -> Place:
    """What a path, an `sqlite:///` or a `postgresql://` address names. Raises UserError for any other address."""
    name = str(place)
    scheme = re.match(r"([a-z][a-z0-9+]*):", name)
    if scheme is None or (len(scheme[1]) == 1 and not name.startswith(scheme[1] + "://")):  # C:\… is a path
        path = name
    elif name.startswith("sqlite:///"):
        path = name.removeprefix("sqlite:///")
    elif scheme[1] in postgres.SCHEMES:
        return postgres.Server.at(name)
    else:  # of which nothing more is shown, as it may hold a password
        raise UserError(f"a store at {scheme[1]}:… cannot be opened: only a file path, sqlite:///path and postgresql://… work")
    if path in ("", ":memory:"):
        raise UserError(f"store {name!r} has no file; give a path such as feedback.db")
    return sqlite.File(Path(path))


def file_of(place: Place) -> Path:
    """The file of a store. Raises UserError when it lies on a server."""
    if not isinstance(place, sqlite.File):
        raise UserError(f"store {place.name} is not a file")
    return place.path


def of(connection: Connection) -> Dialect:
    """The dialect of the database on a connection."""
    return DIALECTS[connection.dialect.name]
