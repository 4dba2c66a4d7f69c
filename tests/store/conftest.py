"""Each kind of database a store can lie in, for the tests that hold on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.backends import Backend, Postgres, Server, SQLite


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for all tests."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        server = Server()
    except OSError as problem:
        pytest.skip(str(problem))
    yield server
    server.close()


@pytest.fixture
def postgres(server: Server) -> Iterator[Postgres]:
    """Databases on PostgreSQL."""
    backend = Postgres(server)
    yield backend
    backend.drop()


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each kind of database."""
    found: Backend = SQLite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres")
    return found


@pytest.fixture
def place(backend: Backend) -> str:
    """Where no store is yet, in each kind of database."""
    return backend.new()
