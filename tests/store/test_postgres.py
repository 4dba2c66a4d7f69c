"""What is particular to a store on PostgreSQL: its server comes and goes, refuses, and must never be told on."""

from __future__ import annotations

import contextlib
import random
import shlex
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest

from backflip.cli.main import main
from backflip.errors import BackflipError, DataError, FullDiskError, StorageError, UserError
from backflip.jobs import read_reward_data
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.migrations import migrate
from backflip.store.projects import Project, Projects
from backflip.store.schema import VERSION
from tests.store.backends import Postgres

QUERIES = [Query(Prompt(f"p{i}"), ("x", "y")) for i in range(20)]


@pytest.fixture
def place(postgres: Postgres) -> str:
    return postgres.new()


@pytest.fixture
def store(place: str):
    with Store(place) as opened:
        yield opened


# ---------------------------------------------------------------------------------------------------- what the server keeps


def test_the_database_refuses_to_forget_and_to_be_told_what_no_event_says(store: Store, postgres: Postgres, place: str) -> None:
    store.add_queries(QUERIES)
    with postgres.stranger(place) as raw:
        with pytest.raises(postgres.refused, match="queries is append-only: TRUNCATE refused"):
            raw.execute("TRUNCATE queries CASCADE")
        with pytest.raises(postgres.refused, match="verdicts follow from events"):
            raw.execute("INSERT INTO verdicts VALUES (1, 'v', %s, 'eve', '{}')", [QUERIES[0].id])
    assert store.verify().queries == 20


def test_rows_are_numbered_without_gaps(store: Store, postgres: Postgres, place: str) -> None:
    """A sequence of PostgreSQL's would skip the numbers of whatever was refused or there already."""
    store.add_queries([*QUERIES[:2], *QUERIES[:2]])
    with pytest.raises(DataError):
        store.add_verdicts([Verdict(QUERIES[0].id, "ann", "left"), Verdict("nowhere", "ann", "left")])
    store.add_queries(QUERIES[:3])
    store.add_verdicts([Verdict(QUERIES[0].id, "ann", "left")])
    with postgres.stranger(place) as raw:
        assert raw.execute('SELECT "row" FROM queries ORDER BY 1').fetchall() == [(1,), (2,), (3,)]
        assert raw.execute("SELECT id FROM events").fetchall() == [(1,)]
        assert raw.execute("SELECT count(*) FROM pg_sequences").fetchone() == (0,)


def test_numbers_have_64_bits(store: Store) -> None:
    store.add_queries(QUERIES[:1])
    claim = store.claim("ann", overlap=2**40, seed=2**62)
    assert claim is not None
    assert store.held("ann")[0].view.seed == 2**62
    with pytest.raises(DataError, match="cannot hold what it was given: bigint out of range"):
        store.claim("bob", overlap=2, seed=2**63)


def test_a_commit_is_on_the_disk_whatever_the_database_is_set_to(postgres: Postgres, place: str) -> None:
    with postgres.stranger(place) as raw:
        raw.execute(f"ALTER DATABASE {place.split('/')[3].split('?')[0]} SET synchronous_commit = off")
    with Store(place) as store, store._db.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"


def test_a_read_sees_one_snapshot_and_cannot_write(store: Store) -> None:
    store.add_queries(QUERIES[:1])
    count = "SELECT count(*) FROM queries"
    with store._db.read() as connection:
        assert connection.exec_driver_sql(count).scalar() == 1
        store.add_queries(QUERIES)
        assert connection.exec_driver_sql(count).scalar() == 1
    with pytest.raises(StorageError, match="its server is read-only"), store._db.read() as connection:
        connection.exec_driver_sql("DELETE FROM leases")


def test_what_the_studio_keeps(store: Store) -> None:
    accounts, projects = Accounts(store), Projects(store)
    accounts.add("ann", "owner", by="setup", password="a long password")
    with pytest.raises(DataError, match="somebody called ann already"):
        accounts.add("ann", "viewer", by="ann")
    assert accounts.check_password("ann", "a long password") == accounts.person("ann")
    carried = accounts.issue("link", "ann", by="ann", seconds=60)
    first, second = accounts.redeem("link", carried), accounts.redeem("link", carried)
    assert (first and first.holder, second) == ("ann", None)
    project = Project(id="p", purpose="train", repeat_share=0.5)
    projects.save(project, by="ann")
    assert projects.all() == [project]
    clip = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    assert projects.media(projects.add_media(clip, "image/png")) == ("image/png", clip)
    gold = Query(Prompt("easy"), ("x", "y"), purpose="train-gold")
    assert (projects.set_golds([(gold, "left")], by="ann"), projects.golds()) == (1, {gold.id: "left"})
    store.add_queries(QUERIES)
    for _ in range(20):
        for claim in projects.claim(project, "ann", 3, seed=0, render=""):
            a, b = claim.view.handles
            store.answer(claim.view.id, "ann", [[a], [b]], key=claim.view.id)
    assert projects.count(project, "ann").answered == len(projects.own_answers(project, "ann")) == 20
    assert len(store.repeats()) > 0
    store.verify()


def test_the_newest_store_has_nothing_to_migrate(store: Store, postgres: Postgres, place: str) -> None:
    with store._db.write() as connection:
        migrate(connection, store.name)
    with postgres.stranger(place) as raw:
        assert raw.execute("SELECT version, version_num FROM backflip_schema, alembic_version").fetchall() == [
            (VERSION, str(VERSION))
        ]


# ---------------------------------------------------------------------------------------------------- what it cannot hold


def test_what_postgresql_cannot_hold_is_the_callers_mistake_and_nobody_elses(store: Store) -> None:
    query = Query(Prompt("with a \0 in it"), ("x\0", "y"))
    assert store.add_queries([query]) == 1
    names = ("ann", "a\0nn", random.Random(0).randbytes(3000).hex())
    good, nul, long = (store.submit(store.add_verdicts, [Verdict(query.id, name, "left")]) for name in names)
    assert good.result(10) == 1
    with pytest.raises(DataError, match="cannot hold what it was given: PostgreSQL text fields cannot contain NUL"):
        nul.result(10)
    with pytest.raises(DataError, match=r"cannot hold what it was given: index row size .* exceeds"):
        long.result(10)
    with pytest.raises(DataError, match="cannot contain NUL"):
        store.note("edit", "ann", {}, key="\0")
    with pytest.raises(DataError, match="cannot contain NUL"):
        store.unanswered("\0")
    assert store.note("edit", "ann", {"text": "a\0b"}, key="k") == 2
    assert store.queries() == [query]
    assert store.verify().events == 2


def test_a_full_disk_is_one_sentence_and_loses_nothing(store: Store, postgres: Postgres, place: str) -> None:
    with postgres.stranger(place) as raw:
        raw.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file'; END $$"
        )
        raw.execute("CREATE TRIGGER full_disk BEFORE INSERT ON queries EXECUTE FUNCTION full_disk()")
        with pytest.raises(FullDiskError, match="the disk of its server is full; nothing was written"):
            store.submit(store.add_queries, QUERIES).result(10)
        assert store.queries() == []
        raw.execute("DROP TRIGGER full_disk ON queries")
    assert store.submit(store.add_queries, QUERIES).result(10) == 20


# ---------------------------------------------------------------------------------------------------- when it goes away


def test_reading_and_writing_go_on_after_the_server_was_restarted(store: Store, postgres: Postgres) -> None:
    store.add_queries(QUERIES[:1])
    assert len(store.queries()) == 1
    with postgres.server.stopped():
        with pytest.raises(StorageError, match="cannot be reached"):
            store.queries()
        with pytest.raises(StorageError, match="cannot be reached"):
            store.add_queries(QUERIES[:2])
    assert store.add_queries(QUERIES[:3]) == 2
    assert len(store.queries()) == 3
    with postgres.server.stopped():
        pass
    assert store.submit(store.add_queries, QUERIES).result(10) == 17
    assert len(store.queries()) == 20


def test_a_server_that_crashes_under_load_loses_no_acknowledged_answer_and_doubles_none(store: Store, postgres: Postgres) -> None:
    """What was not acknowledged is sent again under its key when the server is back, as a page does."""
    store.add_queries(QUERIES)
    acknowledged: list[str] = []
    lost: list[StorageError] = []
    ready, back = threading.Semaphore(0), threading.Event()

    def insist(work, *args, **kwargs):
        while True:
            try:
                return store.submit(work, *args, **kwargs).result(30)
            except StorageError as problem:
                lost.append(problem)
                assert back.wait(30)

    def work(name: str) -> None:
        for _ in range(10):
            claim = insist(store.claim, name, overlap=1000)
            a, b = claim.view.handles
            key = f"{name} {claim.query.id}"
            insist(store.answer, claim.view.id, name, [[a], [b]], key=key)
            acknowledged.append(key)
            ready.release()

    threads = [threading.Thread(target=work, args=(f"person {i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert ready.acquire(timeout=30)
    with postgres.server.stopped("immediate"):
        before = len(acknowledged)
    back.set()
    for thread in threads:
        thread.join()
    assert lost, "the server stopped in the middle"
    assert all("lost its server" in str(problem) or "cannot be reached" in str(problem) for problem in lost)
    assert 30 <= before < len(acknowledged) == 120
    stored = Counter(f"{verdict.annotator} {verdict.query_id}" for verdict in store.verdicts())
    assert (set(acknowledged) - set(stored), max(stored.values())) == (set(), 1)
    assert set(acknowledged) <= {event.key for event in store.events()}
    store.verify()


def test_a_writer_that_falls_silent_does_not_hold_the_others_up(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backflip.store.postgres.IDLE_MS", 200)
    with Store(place) as silent, Store(place) as other:

        def fall_silent() -> None:
            with silent._db.write() as connection:
                time.sleep(1)
                connection.exec_driver_sql("DELETE FROM leases")

        with pytest.raises(StorageError, match=r"lost its server; .* send it again"):
            fall_silent()
        assert (silent.add_queries(QUERIES[:5]), other.add_queries(QUERIES)) == (5, 15)


# ---------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://guarded:opensesame@/postgres?host={host}", "password authentication failed"),
        ("postgresql://guarded@/postgres?host={host}&password=opensesame", "password authentication failed"),
        ("postgres://u:opensesame@/nowhere?host={host}", 'role "u" does not exist'),
        ("postgresql+psycopg://backflip:opensesame@/nowhere?host={host}", 'database "nowhere" does not exist'),
        ("postgresql://u:opensesame@127.0.0.1:1/db", "cannot be reached"),
        ("postgresql://u:opensesame@/db?host={host}&colour=red", 'invalid connection option "colour"'),
        ("postgresql://u:opensesame@/db?host={host}&options=-c%20nothing%3D1", "cannot be reached"),
        ("postgresql://u:opensesame@host:port/db", "write postgresql://user@host:5432/database"),
        ("postgresql://u:open@sesame@host/db", "write an @ in the password as %40"),
        ("postgresql://u:open@se/same@host/db", "write an @ in the password as %40"),
        ("postgresql://u:opensesame@host", "names no database; write postgresql://user@host:5432/database"),
    ],
)
def test_a_password_is_never_told(postgres: Postgres, address: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    rules = postgres.server.folder / "data" / "pg_hba.conf"
    if "guarded" not in rules.read_text(encoding="utf-8"):
        rules.write_text("local all guarded scram-sha-256\n" + rules.read_text(encoding="utf-8"), encoding="utf-8")
        postgres.server.sql("postgres", "CREATE ROLE guarded LOGIN PASSWORD 'something else'")
        postgres.server.sql("postgres", "SELECT pg_reload_conf()")
    address = address.format(host=postgres.server.folder)
    with pytest.raises(BackflipError) as told:
        Store(address)
    assert message in str(told.value)
    assert main(["store", "verify", address]) == 2
    assert main(["store", "backup", address, "--to", "copy.dump"]) == 2
    assert main(["label", address]) == 2
    everything = "".join(traceback.format_exception(told.value)) + "".join(capsys.readouterr())
    assert not any(part in everything for part in ("opensesame", "sesame", "open@"))


def test_the_right_password_opens_the_store(postgres: Postgres, place: str) -> None:
    address = place.replace("backflip@", "backflip:o%40p%2Fen@")
    with Store(address) as store:
        assert store.name == place.replace(str(postgres.server.folder), quote(str(postgres.server.folder), safe=""))
        with pytest.raises(UserError, match="is not a file"):
            _ = store.path


def test_without_the_driver_the_sentence_says_what_to_install(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs the PostgreSQL driver; install it with: pip install 'backflip\[postgres\]'"):
        Store(place)


def test_databases_that_cannot_be_a_store(postgres: Postgres, place: str) -> None:
    with pytest.raises(StorageError, match="is a PostgreSQL database but not a backflip store"):
        Store(place, read_only=True)
    with postgres.stranger(place) as raw:
        raw.execute("CREATE TABLE cats (name TEXT)")
        with pytest.raises(StorageError, match="is a PostgreSQL database but not a backflip store"):
            Store(place)
        assert raw.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == [("cats",)]
        raw.execute("DROP TABLE cats")
        raw.execute("DROP ROLE IF EXISTS guest")
        raw.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(StorageError, match=r"cannot be used: its user lacks a right \(permission denied for schema public"):
        Store(place.replace("backflip@", "guest@"))
    narrow = place.replace("feedback_", "narrow_")
    postgres.server.sql("postgres", f"CREATE DATABASE {narrow.split('/')[3].split('?')[0]} ENCODING SQL_ASCII TEMPLATE template0")
    with pytest.raises(StorageError, match="cannot hold every text: its encoding is SQL_ASCII; make one with UTF8"):
        Store(narrow)


# ---------------------------------------------------------------------------------------------------- looking after it


def test_training_reads_it(store: Store, place: str) -> None:
    store.add_queries(QUERIES)
    store.add_verdicts([Verdict(QUERIES[0].id, "ann", "left")])
    assert read_reward_data(place) == store.comparisons() != []


def test_verify_and_rebuild(store: Store, postgres: Postgres, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.add_queries(QUERIES)
    store.add_verdicts([Verdict(query.id, "ann", "left") for query in QUERIES])
    assert main(["store", "verify", place]) == 0
    postgres.vandal(place, "UPDATE verdicts SET annotator = 'eve' WHERE row = 3")
    assert main(["store", "verify", place]) == 2
    assert main(["store", "rebuild", place]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{store.name}: 20 queries, 20 verdicts, 0 retractions, 20 events, all sound; last hash ")
    assert "rebuilt; 20 queries" in told.out
    assert f"row 3 of verdicts differs (compared with the events); `backflip store rebuild {store.name}`" in told.err


def test_the_commands_that_backup_and_restore_name_do_it(
    store: Store, postgres: Postgres, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.add_queries(QUERIES)
    store.add_verdicts([Verdict(query.id, "ann", "left") for query in QUERIES])
    copy, other = tmp_path / "the copy.dump", postgres.new()
    for words in (["backup", place, "--to", str(copy)], ["restore", str(copy), "--to", other]):
        assert main(["store", *words]) == 2
        told = capsys.readouterr().err
        assert "lies on a server, whose own tools do that; run: pg_" in told
        command = shlex.split(told.partition("; run: ")[2])
        subprocess.run([postgres.server.programs / command[0], *command[1:]], check=True)
    with Store(other) as restored:
        assert restored.verify() == store.verify()
        assert restored.add_verdicts([Verdict(QUERIES[0].id, "bob", "tie")]) == 1
    with postgres.stranger(other) as raw, pytest.raises(postgres.refused, match="append-only"):
        raw.execute("DELETE FROM events")


def test_nothing_is_made_for_somebody_who_only_meant_to_answer(
    postgres: Postgres, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", place]) == 2
    assert "there is no store at postgresql://" in capsys.readouterr().err
    with postgres.stranger(place) as raw:
        assert raw.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    with contextlib.closing(Store(place)):
        assert main(["label", place]) == 2
    assert "holds no questions yet" in capsys.readouterr().err
