"""A store of schema 1: read as it is, migrated as a whole when it is written to, and nothing of it lost."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from backflip.errors import StorageError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store, migrations
from backflip.store import schema as tables
from tests.store.backends import Backend

SCHEMA_1 = """
CREATE TABLE backflip_schema (version INTEGER NOT NULL);
CREATE TABLE queries (
    "row" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, purpose TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (id)
);
CREATE TABLE verdicts (
    "row" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, query_id TEXT NOT NULL, annotator TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (id), FOREIGN KEY(query_id) REFERENCES queries (id)
);
CREATE INDEX ix_verdicts_annotator ON verdicts (annotator);
CREATE INDEX ix_verdicts_query_id ON verdicts (query_id);
CREATE TABLE retractions (
    "row" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, verdict_id TEXT NOT NULL, annotator TEXT NOT NULL, at FLOAT NOT NULL,
    UNIQUE (verdict_id), FOREIGN KEY(verdict_id) REFERENCES verdicts (id)
);
INSERT INTO backflip_schema VALUES (1);
"""
TABLES = ("backflip_schema", "queries", "verdicts", "retractions")

QUERIES = [Query(Prompt(f"prömpt {i}", {"x": i}), (f"a{i}", f"b{i}")) for i in range(4)]
VERDICTS = [Verdict(query.id, who, "left", ms=9, at=1.5) for query in QUERIES for who in ("ann", "bøb")]


def text(record: Query | Verdict) -> str:
    return json.dumps(record.to_json(), ensure_ascii=False)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store as backflip 0.1.0 wrote it, with the gaps in its row numbers that repeated verdicts left."""
    path = tmp_path / "old.db"
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.executescript(SCHEMA_1)
    for table in TABLES:
        for verb in ("UPDATE", "DELETE"):
            raw.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
            )
    raw.executemany("INSERT INTO queries (id, purpose, body) VALUES (?, 'train', ?)", [(q.id, text(q)) for q in QUERIES])
    rows = [(3 * i + 1, v.id, v.query_id, v.annotator, text(v)) for i, v in enumerate(VERDICTS)]
    raw.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
    raw.execute("INSERT INTO retractions (verdict_id, annotator, at) VALUES (?, 'ann', 2.5)", (VERDICTS[2].id,))
    raw.commit()
    raw.close()
    return path


def dump(path: Path) -> dict[str, list[tuple]]:
    raw = sqlite3.connect(path)
    content = {table: raw.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    raw.close()
    return content


def schema(path: Path) -> list[str]:
    raw = sqlite3.connect(path)
    made = [re.sub(r"\s+", " ", sql) for (sql,) in raw.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    raw.close()
    return sorted(re.sub(r" ?([(),]) ?", r"\1", sql) for sql in made)


STANDING = [verdict for verdict in VERDICTS if verdict != VERDICTS[2]]


def test_reading_an_old_store_changes_nothing(old: Path) -> None:
    before = old.read_bytes()
    with Store(old, read_only=True) as store:
        assert (store.queries(), store.verdicts(), store.cursor) == (QUERIES, STANDING, 22)
        assert len(store.comparisons()) == len(STANDING)
        found = store.verify()
        assert (found.verdicts, found.retractions, found.events, found.head) == (8, 1, 0, "")
    assert old.read_bytes() == before


def test_writing_to_an_old_store_migrates_it_and_keeps_every_row(old: Path) -> None:
    before = dump(old)
    with Store(old) as store:
        after = dump(old)
        assert after.pop("backflip_schema") == [(3,)]
        assert after == {table: rows for table, rows in before.items() if table != "backflip_schema"}
        assert (store.queries(), store.verdicts(), store.cursor) == (QUERIES, STANDING, 22)
        kinds = [event.kind for event in store.events()]
        assert kinds == ["verdict"] * 8 + ["retraction"]
        assert store.verify().events == 9
        assert store.rebuild() is False
        assert store.add_verdicts([*VERDICTS, Verdict(QUERIES[0].id, "new", "tie")]) == 1
        assert store.cursor == 23
    with Store(old) as again:
        assert again.verify().verdicts == 9


def test_a_migrated_store_has_the_schema_of_a_new_one(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "new.db"):
        Store(path).close()
    assert schema(old) == schema(tmp_path / "new.db")
    raw = sqlite3.connect(old)
    assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("3",)]
    raw.close()


def test_a_rebuilt_migrated_store_keeps_its_cursor(old: Path) -> None:
    with Store(old) as store:
        raw = sqlite3.connect(old)
        raw.execute("DROP TRIGGER verdicts_no_update")
        raw.execute("UPDATE verdicts SET annotator = 'eve' WHERE row = 4")
        raw.commit()
        raw.close()
        before = store.verdicts()
        assert store.rebuild() is True
        assert (store.verdicts(), store.cursor) == (before, 22)
        assert store.answered_by("eve") == set()
        store.verify()


def test_a_migration_that_fails_leaves_the_old_store(old: Path) -> None:
    raw = sqlite3.connect(old)
    raw.execute("DROP TRIGGER verdicts_no_update")
    raw.execute("UPDATE verdicts SET body = '{' WHERE row = 4")
    raw.commit()
    raw.close()
    before = dump(old)
    with pytest.raises(StorageError, match=r"cannot be migrated: row 4 of verdicts is damaged"):
        Store(old)
    assert dump(old) == before
    with Store(old, read_only=True) as store:
        assert store.queries() == QUERIES


def test_an_older_backflip_that_still_has_the_store_open_is_stopped(old: Path) -> None:
    """It would store a verdict without its event, which a rebuild would then leave out."""
    process = sqlite3.connect(old)
    Store(old).close()
    verdict = Verdict(QUERIES[0].id, "late", "tie")
    values = (verdict.id, verdict.query_id, verdict.annotator, text(verdict))
    with pytest.raises(sqlite3.IntegrityError, match="this backflip is too old to write them"):
        process.execute("INSERT INTO verdicts (id, query_id, annotator, body) VALUES (?, ?, ?, ?)", values)
    with pytest.raises(sqlite3.IntegrityError, match="this backflip is too old to write them"):
        process.execute("INSERT INTO retractions (verdict_id, annotator, at) VALUES (?, 'ann', 1)", (VERDICTS[0].id,))
    process.close()
    with Store(old) as store:
        store.retract(VERDICTS[0].id, "ann")
        assert store.verify().retractions == 2


NEXT = """
import sqlalchemy as sa
from alembic import op
from backflip.store import schema

revision, down_revision = "{next}", "{last}"

def upgrade():
    op.add_column("leases", sa.Column("colour", sa.Text, nullable=False, server_default="red"))
    op.create_index("ix_leases_colour", "leases", ["colour"])
    schema.allow(op.get_bind(), "backflip_schema")
    op.execute("UPDATE backflip_schema SET version = {next}")
    schema.forbid(op.get_bind(), "backflip_schema")
"""


def test_the_next_step_will_run_on_every_database(
    backend: Backend, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(place) as store:
        store.add_queries(QUERIES)
        store.claim("ann")
    steps = tmp_path / "steps"
    shutil.copytree(Path(migrations.__file__).parent, steps)
    following = tables.VERSION + 1
    (steps / "versions" / "next.py").write_text(NEXT.format(next=following, last=tables.VERSION))
    monkeypatch.setattr(migrations, "__file__", str(steps / "__init__.py"))
    monkeypatch.setattr(tables, "VERSION", following)
    with Store(place) as store:
        assert store.verify().queries == len(QUERIES)
    with backend.stranger(place) as raw:
        found = raw.execute("SELECT version, version_num, colour FROM backflip_schema, alembic_version, leases").fetchall()
        assert found == [(following, str(following), "red")]
        with pytest.raises(backend.refused, match="append-only"):
            raw.execute("UPDATE backflip_schema SET version = 1")
