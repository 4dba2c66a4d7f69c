"""Copies of a store: whole though others write, checked, and put back without losing what stood there."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from backflip.errors import StorageError, UserError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.backup import backup, restore

QUERIES = [Query(Prompt(f"p{i}"), ("a", "b")) for i in range(30)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries(QUERIES)
        store.add_verdicts([Verdict(query.id, "ann", "left") for query in QUERIES[:5]])
    return tmp_path / "feedback.db"


def names(folder: Path) -> list[str]:
    """The files of a folder but for the log that SQLite keeps beside a store in use."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("feedback.db-"))


def test_a_copy_is_the_store(path: Path, tmp_path: Path) -> None:
    found = backup(path, tmp_path / "copy.db")
    assert (found.queries, found.verdicts, found.events) == (30, 5, 5)
    assert names(tmp_path) == ["copy.db", "feedback.db"]
    with Store(path, read_only=True) as store, Store(tmp_path / "copy.db", read_only=True) as copy:
        assert copy.verify() == store.verify() == found
        assert (copy.queries(), copy.verdicts(), copy.cursor) == (store.queries(), store.verdicts(), store.cursor)


def test_a_copy_taken_while_others_write_is_whole(path: Path, tmp_path: Path) -> None:
    with Store(path) as store:
        stop = threading.Event()

        def write() -> None:
            i = 0
            while not stop.is_set():
                store.add_verdicts([Verdict(query.id, f"w{i}", "left") for query in QUERIES])
                i += 1

        writer = threading.Thread(target=write)
        writer.start()
        found = [backup(path, tmp_path / f"copy{i}.db") for i in range(3)]
        stop.set()
        writer.join()
        assert all((copy.verdicts - 5) % 30 == 0 for copy in found), "never half a batch"
        assert [copy.verdicts for copy in found] == sorted(copy.verdicts for copy in found)


def test_a_copy_takes_nobodys_place(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    before = (tmp_path / "copy.db").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        backup(path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == before


def test_a_damaged_store_gives_no_copy(path: Path, tmp_path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER retractions_follows")
    raw.execute("INSERT INTO retractions VALUES (9, (SELECT id FROM verdicts LIMIT 1), 'eve', 1)")
    raw.commit()
    raw.close()
    with pytest.raises(StorageError, match="follows from no event"):
        backup(path, tmp_path / "copy.db")
    with pytest.raises(StorageError, match="there is no store at"):
        backup(tmp_path / "gone.db", tmp_path / "copy.db")
    with pytest.raises(StorageError, match="cannot be"):
        backup(path, tmp_path / "nowhere" / "copy.db")
    assert names(tmp_path) == ["feedback.db"]


def test_a_disk_that_refuses_leaves_nothing_behind(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="cannot be written: No space left"):
        backup(path, tmp_path / "copy.db")
    assert names(tmp_path) == ["feedback.db"]


def test_restore_makes_the_store_of_the_copy(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    found, kept = restore(tmp_path / "copy.db", tmp_path / "new.db", overwrite=False)
    assert (found.verdicts, kept) == (5, None)
    with Store(tmp_path / "new.db") as store:
        assert store.add_verdicts([Verdict(QUERIES[9].id, "bob", "tie")]) == 1
        assert store.verify().verdicts == 6


def test_restore_asks_before_it_takes_a_place_and_keeps_what_stood_there(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    with Store(path) as store:
        store.add_verdicts([Verdict(QUERIES[9].id, "bob", "tie")])
        with pytest.raises(StorageError, match="is in use; stop what has it open"):
            restore(tmp_path / "copy.db", path, overwrite=True)
    with pytest.raises(UserError, match="--overwrite"):
        restore(tmp_path / "copy.db", path, overwrite=False)
    for number in (1, 2):
        _, kept = restore(tmp_path / "copy.db", path, overwrite=True)
        assert kept == tmp_path / f"feedback.db.replaced{number}"
    with Store(path, read_only=True) as store, Store(tmp_path / "feedback.db.replaced1", read_only=True) as old:
        assert (store.verify().verdicts, old.verify().verdicts) == (5, 6)


def test_restore_over_a_file_that_is_no_database(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    path.write_text("ruined " * 1000)
    _, kept = restore(tmp_path / "copy.db", path, overwrite=True)
    assert kept is not None
    assert kept.read_text().startswith("ruined")
    with Store(path) as store:
        assert store.verify().verdicts == 5


def test_a_copy_that_does_not_verify_is_not_restored(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    content = bytearray((tmp_path / "copy.db").read_bytes())
    place = content.rindex(b'"choice": "left"')
    content[place : place + 16] = b'"choice": "righ"'
    (tmp_path / "copy.db").write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"was changed after|damaged|differs"):
        restore(tmp_path / "copy.db", path, overwrite=True)
    assert path.read_bytes() == before
