"""The databases a store can lie in, as tests need them: fresh places, and a way in behind the store's back.

`Server` starts a PostgreSQL of its own from Debian's package, which refuses to run as root: there it runs as another user.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from backflip.store.postgres import LOCK

TABLES = ("backflip_schema", "events", "queries", "verdicts", "retractions", "views")


class Backend(Protocol):
    """A kind of database. `refused` is what its driver raises where a trigger says no."""

    refused: type[Exception]
    seize: str  # a statement after which nobody else can write until its connection is closed
    examples: int  # of a property, where each needs stores of its own; some databases take long to make

    def new(self, name: str = "feedback") -> str:
        """Where no store is yet."""

    @contextlib.contextmanager
    def stranger(self, place: str) -> Iterator[Any]:
        """A connection of somebody with an SQL prompt: `execute(…)` runs and commits a statement."""

    def vandal(self, place: str, *statements: str) -> None:
        """Change a store past its triggers and references."""


class SQLite:
    """Files in a folder."""

    refused = sqlite3.IntegrityError
    seize = "BEGIN IMMEDIATE"
    examples = 15

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, itertools.count()

    def new(self, name: str = "feedback") -> str:
        return str(self._folder / f"{name}{next(self._number) or ''}.db")

    @contextlib.contextmanager
    def stranger(self, place: str) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(place, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    def vandal(self, place: str, *statements: str) -> None:
        with self.stranger(place) as raw:
            for table, rule in itertools.product(TABLES, ("no_update", "no_delete", "follows")):
                raw.execute(f"DROP TRIGGER IF EXISTS {table}_{rule}")
            for statement in statements:
                raw.execute(statement)


class Postgres:
    """Databases of a server; those of one test are dropped when it ends."""

    seize = f"SELECT pg_advisory_lock({LOCK})"
    examples = 5

    def __init__(self, server: Server) -> None:
        import psycopg

        self.refused: type[Exception] = psycopg.IntegrityError
        self.server, self._made = server, list[str]()

    def new(self, name: str = "feedback") -> str:
        unique = f"{name}_{next(self.server.number)}"
        self.server.sql("postgres", f"CREATE DATABASE {unique}")
        self._made.append(unique)
        return self.server.url(unique)

    @contextlib.contextmanager
    def stranger(self, place: str) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(place, autocommit=True) as connection:
            yield connection

    def vandal(self, place: str, *statements: str) -> None:
        with self.stranger(place) as raw:
            for statement in ("SET session_replication_role = replica", *statements):
                raw.execute(statement)

    def drop(self) -> None:
        """Drop what `new` made."""
        for name in self._made:
            self.server.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")


class Server:
    """A PostgreSQL server that listens on a socket in its own folder. Raises OSError where the machine has none to run."""

    user = "backflip"  # owns the databases; the server takes its word for it

    def __init__(self) -> None:
        self.programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_room()))
        self.number = itertools.count(1)
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            other = next((user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")), None)
            if other is None:
                raise OSError("PostgreSQL does not run as root, and there is no user postgres or nobody")
            os.chown(self.folder, other.pw_uid, other.pw_gid)
            self._as = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        try:
            self._run("initdb", "--username", self.user, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
            self.start()
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def url(self, database: str, user: str = user) -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def sql(self, database: str, statement: str) -> None:
        """Run one statement."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Start it, and wait until it answers. Its files outlive it, but not the machine: nothing here cuts the power."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c full_page_writes=off"
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(self.folder / "log"), "--options", options)

    def stop(self, how: str = "fast") -> None:
        """Stop it: "fast" in good order, "immediate" as a crash would."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", how)

    @contextlib.contextmanager
    def stopped(self, how: str = "fast") -> Iterator[None]:
        """Stop it for the length of a block."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *words: str) -> None:
        command = [self.programs / program, *words, "--pgdata", str(self.folder / "data")]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            **self._as,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"{program} failed: {done.stderr}")


def _room() -> str:
    """A folder with a short path, as a socket needs, and in memory where there is room: each database is a thousand files."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage("/dev/shm").free > 2 * 2**30:
            return "/dev/shm"
    return "/tmp"


def programs() -> Path:
    """The folder of PostgreSQL's programs, the newest. Raises OSError when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise OSError("there is no PostgreSQL in /usr/lib/postgresql; Debian's package is called postgresql")
    return found[-1].parent
