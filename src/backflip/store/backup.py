"""Copies of a store that are whole: taken while others write, checked before they get their name, and put back.

A copy is one SQLite file without a log beside it, made by VACUUM INTO from one snapshot of the store. A store on PostgreSQL
is copied by PostgreSQL's own tools, and `files` says how.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backflip.errors import StorageError, UserError
from backflip.store.database import BUSY_MS
from backflip.store.dialects import file_of, place_of
from backflip.store.postgres import Server
from backflip.store.projections import Verified
from backflip.store.sqlite import reason
from backflip.store.store import Store


def files(action: str, source: str, to: str) -> tuple[Path, Path]:
    """The files of "backup" or "restore". Raises UserError with the command that does it for a store on a server."""
    store, other = (source, to) if action == "backup" else (to, source)
    place = place_of(store)
    if isinstance(place, Server):
        name, file = shlex.quote(place.name), shlex.quote(other)
        command = {
            "backup": f"pg_dump --format=custom --file={file} {name}",
            "restore": f"pg_restore --single-transaction --dbname={name} {file}",
        }
        raise UserError(f"store {place.name} lies on a server, whose own tools do that; run: {command[action]}")
    return file_of(place_of(source)), file_of(place_of(to))


def backup(source: Path, to: Path) -> Verified:
    """Copy the store at `source` to the new file `to`; what the copy holds.

    Raises UserError when `to` exists, and StorageError when the store or its copy does not verify or cannot be written.
    """
    if to.exists():
        raise UserError(f"{to} exists already; give the copy another path")
    with _copied(source, to) as (temporary, found):
        os.replace(temporary, to)
    return found


def restore(copy: Path, to: Path, *, overwrite: bool) -> tuple[Verified, Path | None]:
    """Make the store `to` from a copy; what it holds, and where the store that stood there before was moved.

    Raises UserError when `to` exists and `overwrite` is not said, and StorageError when the copy does not verify, when
    another process has the store open, and when the disk refuses.
    """
    if to.exists() and not overwrite:
        raise UserError(f"{to} exists already; with --overwrite the copy takes its place and the old file is kept beside it")
    with _copied(copy, to) as (temporary, found):
        kept = _set_aside(to) if to.exists() else None
        os.replace(temporary, to)
    return found, kept


@contextmanager
def _copied(source: Path, to: Path) -> Iterator[tuple[Path, Verified]]:
    """A verified copy of `source` under a temporary name beside `to`."""
    Store(source, read_only=True).close()  # says in a sentence why it is no store
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    try:
        with closing(_connect(source, "ro")) as connection:
            connection.execute("VACUUM INTO ?", (str(temporary),))
        with Store(temporary, read_only=True) as copy:
            found = copy.verify()
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        yield temporary, found
    except sqlite3.Error as problem:
        kind, meaning = reason(str(problem))
        raise kind(f"store {source} could not be copied to {to}: the copy {meaning}") from problem
    except OSError as problem:
        raise StorageError(f"{to} cannot be written: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    """Rename a store that nobody has open; its new path. A damaged one is moved as it lies, its log with it."""
    with closing(_connect(path, "rw")) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")  # needs the file for itself, and empties the log into it
        except sqlite3.OperationalError as problem:
            if "locked" in str(problem):
                raise StorageError(f"store {path} is in use; stop what has it open, then restore again") from problem
        except sqlite3.DatabaseError:
            pass
    names = (path.with_name(f"{path.name}.replaced{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    for end in ("", "-wal", "-shm"):
        part = path.with_name(path.name + end)
        if part.exists():
            os.replace(part, kept.with_name(kept.name + end))
    return kept


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_MS / 1000, isolation_level=None)
