"""The store when things go wrong: crashes, full disks, locks, strangers' files; one sentence, and nothing lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backflip.errors import BusyError, DataError, StorageError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store, database
from backflip.store.schema import VERSION
from tests.store.backends import Backend

WRITER = """
import sys
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.schema import VERSION
store = Store(sys.argv[1])
for i in range(100000):
    query = Query(Prompt(f"{sys.argv[2]} {i}"), ("a", "b"))
    store.add_queries([query])
    store.add_verdicts([Verdict(query.id, sys.argv[2], "left")])
    print(query.id, flush=True)
"""


def start_writer(place: str, name: str) -> subprocess.Popen[str]:
    source = Path(database.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, place, name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def queries(n: int) -> list[Query]:
    return [Query(Prompt(f"p{i}" * 200), ("a" * 500, "b" * 500)) for i in range(n)]


def test_kill_9_loses_no_acknowledged_verdict_and_a_reader_never_waits(place: str) -> None:
    """Two processes open the same new store at once, write, and die in the middle of it."""
    writers = [start_writer(place, name) for name in ("ann", "bob")]
    acknowledged: list[str] = []
    for writer in writers:
        acknowledged += [writer.stdout.readline().strip() for _ in range(20)]  # type: ignore[union-attr]
    with Store(place, read_only=True) as reader:
        assert len(reader.verdicts()) >= 40
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.communicate()[0].splitlines(keepends=True) if "\n" in line]
        assert writer.returncode == -signal.SIGKILL
    with Store(place) as store:
        assert set(acknowledged) <= {v.query_id for v in store.verdicts()}
        assert len(acknowledged) >= 40
        store.add_queries(queries(1))
        store.verify()


def test_threads_take_turns(place: str) -> None:
    given = queries(40)
    with Store(place) as store, Store(place) as again:
        store.add_queries(given)

        def answer(name: str, through: Store) -> None:
            for query in given:
                through.add_verdicts([Verdict(query.id, name, "left")])

        threads = [threading.Thread(target=answer, args=(f"t{i}", (store, again)[i % 2])) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.verdicts()) == 160


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries(queries(3))
        writer = store._db._writer
        pages = writer.exec_driver_sql("PRAGMA page_count").scalar()
        writer.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        writer.rollback()
        with pytest.raises(StorageError, match="disk is full; nothing was written"):
            store.add_queries(queries(50))
        assert store.queries() == queries(3)
        writer.exec_driver_sql("PRAGMA max_page_count=100000")
        writer.rollback()
        assert store.add_queries(queries(50)) == 47


def test_a_writer_that_hangs_is_named(backend: Backend, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    with Store(place) as store:
        with backend.stranger(place) as other:
            other.execute(backend.seize)
            with pytest.raises(BusyError, match="busy: another process has been writing"):
                store.add_queries(queries(1))
            assert store.queries() == []
        assert store.add_queries(queries(1)) == 1


def test_a_failure_inside_a_batch_undoes_the_batch_and_the_store_goes_on(place: str) -> None:
    with Store(place) as store:

        def broken():
            yield queries(1)[0]
            raise RuntimeError("the sampler broke")

        with pytest.raises(RuntimeError, match="sampler broke"):
            store.add_queries(broken())
        assert store.queries() == []
        assert store.add_queries(queries(2)) == 2


def test_strangers_files_are_refused_untouched(tmp_path: Path) -> None:
    words = tmp_path / "words.db"
    words.write_text("these are not the rows you are looking for " * 50)
    with pytest.raises(StorageError, match="not a database"):
        Store(words)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE cats (name TEXT)")
    raw.close()
    for read_only in (False, True):
        with pytest.raises(StorageError, match="not a backflip store"):
            Store(other, read_only=read_only)
    raw = sqlite3.connect(other)
    assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("cats",)]
    raw.close()


def test_a_newer_schema_says_to_install_a_newer_backflip(backend: Backend, place: str) -> None:
    Store(place).close()
    backend.vandal(place, f"UPDATE backflip_schema SET version = {VERSION + 1}")
    with pytest.raises(StorageError, match=f"schema {VERSION + 1}, and this backflip reads schema {VERSION}; install a newer"):
        Store(place)


def test_places_that_cannot_hold_a_store(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        Store(tmp_path / "nowhere" / "feedback.db")
    with pytest.raises(StorageError, match="there is no store at"):
        Store(tmp_path / "feedback.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="cannot be opened"):
        Store(tmp_path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write: /proc")
def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be (opened|written)"):
        Store("/proc/feedback.db")
    with (
        Store(tmp_path / "feedback.db") as store,
        pytest.raises(StorageError, match=r"/proc/out\.jsonl cannot be written"),
    ):
        store.export_jsonl("/proc/out.jsonl")


def test_a_reader_cannot_write_and_a_closed_store_says_so(place: str) -> None:
    store = Store(place)
    with Store(place, read_only=True) as reader, pytest.raises(StorageError, match="reading only"):
        reader.add_queries(queries(1))
    store.close()
    with pytest.raises(StorageError, match="is closed"):
        store.add_queries(queries(1))


def test_a_damaged_row_is_named(backend: Backend, place: str) -> None:
    with Store(place) as store:
        store.add_queries(queries(2))
        backend.vandal(place, "UPDATE queries SET body = '{' WHERE row = 2")
        with pytest.raises(StorageError, match="row 2 of queries is damaged"):
            store.queries()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: not a line of JSON"),
        ("[1]", "line 3: expected an object"),
        ('{"kind": "wish"}', "line 3: kind is query, verdict or retraction, not 'wish'"),
        ('{"kind": "query"}', "line 3: a query without 'query'"),
        ('{"kind": "query", "query": {"prompt": {"text": "p"}, "completions": ["a"]}}', "line 3: not a query"),
        ('{"kind": "verdict", "verdict": {"query_id": "q", "annotator": "x", "choice": "up"}}', "unknown choice 'up'"),
        ('{"kind": "verdict", "verdict": {"query_id": "q", "annotator": "x", "choice": "tie"}}', "line 3: query q"),
        ('{"kind": "retraction", "retraction": {"verdict_id": "v", "annotator": "x", "at": 1}}', "line 3: verdict v"),
        ('{"kind": "retraction", "retraction": "v"}', "line 3: not a retraction"),
        ("\udcff", "line 3: not a line of JSON"),
    ],
)
def test_import_names_the_line_and_takes_all_or_nothing(tmp_path: Path, line: str, message: str) -> None:
    good = '{"kind": "query", "query": {"prompt": {"text": "p"}, "completions": ["a", "b"]}}'
    path = tmp_path / "in.jsonl"
    path.write_text(f"{good}\n\n{line}\n", encoding="utf-8", errors="surrogateescape")
    with Store(tmp_path / "feedback.db") as store:
        with pytest.raises(DataError, match=rf"in\.jsonl, .*{message}"):
            store.import_jsonl(path)
        assert store.queries() == []


def test_import_from_nowhere(tmp_path: Path) -> None:
    with Store(tmp_path / "feedback.db") as store, pytest.raises(DataError, match=r"gone\.jsonl cannot be read"):
        store.import_jsonl(tmp_path / "gone.jsonl")


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries(queries(2))
        path = tmp_path / "out.jsonl"
        assert store.export_jsonl(path) == 2
        before = path.read_bytes()
        store.add_queries(queries(3))

        def full(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="cannot be written: No space left"):
            store.export_jsonl(path)
        assert path.read_bytes() == before
        assert not list(tmp_path.glob(".out.jsonl*"))
