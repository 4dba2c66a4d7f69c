"""What happens to answers when the machine misbehaves: a full disk, a locked database, a frozen or killed server, odd clocks."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backflip.store import Store
from backflip.web.server import Studio, application
from tests.web.clients import Person, Server, prepare
from tests.web.conftest import pairs
from tests.web.kill import kill
from tests.web.test_label_api import answer, claim, send


def test_killed_again_and_again_nothing_acknowledged_is_missing(tmp_path: Path) -> None:
    count = kill(tmp_path / "feedback.db", 2, people=6, answers=20)
    assert count.acknowledged >= 60
    assert (count.missing, count.doubled) == (0, 0)


def test_a_full_disk_acknowledges_nothing_until_there_is_room(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(40))
    items = claim(owner, 40)

    def pages(most: int) -> int:
        with studio.store._db.write() as connection:
            return int(connection.exec_driver_sql(f"PRAGMA max_page_count={most}").scalar() or 0)

    used = pages(1)  # SQLite answers with what there is where that is more
    acknowledged = 0
    for item in items:
        said = owner.post("/api/v1/events", json={"events": [answer(item, note="n" * 3000)]})
        if said.status_code == 507:
            break
        acknowledged += 1
    assert said.status_code == 507
    assert "disk is full" in said.json()["detail"]
    assert len(studio.store.verdicts()) == acknowledged
    pages(used * 10)
    assert send(owner, answer(item, note="n" * 3000))[0]["status"] == "stored"
    studio.store.verify()


def test_a_database_that_another_process_holds_makes_answers_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backflip.store.database.BUSY_MS", 1500)
    with Store(tmp_path / "feedback.db") as store:
        studio = Studio(store, tmp_path)
        secret = studio.begin()
        store.add_queries(pairs(2))
        with TestClient(application(studio), base_url="http://127.0.0.1") as client:
            client.post("/api/v1/session", json={"link": secret})
            first, second = claim(client, 2)
            other = sqlite3.connect(tmp_path / "feedback.db", isolation_level=None, check_same_thread=False)
            for item, held, expected in ((first, 0.4, 200), (second, 4.0, 503)):
                other.execute("BEGIN IMMEDIATE")
                letting_go = threading.Timer(held, lambda: other.execute("ROLLBACK"))
                letting_go.start()
                said = client.post("/api/v1/events", json={"events": [answer(item)]})
                assert said.status_code == expected
                letting_go.join()
            assert said.headers["retry-after"]
            assert send(client, answer(second))[0]["status"] == "stored"
            other.close()
        assert len(store.verdicts()) == 2
        store.verify()


def test_a_server_that_is_frozen_loses_nothing(tmp_path: Path) -> None:
    tokens = prepare(tmp_path / "feedback.db", queries=600, people=3)
    server, over = Server(tmp_path / "feedback.db"), threading.Event()
    server.start()
    people = [Person(server.port, token) for token in tokens]

    def work(person: Person) -> None:
        while not over.is_set():
            if not person.step(claims=5):
                time.sleep(0.05)
        person.close()

    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    assert server.process is not None
    for _ in range(2):
        time.sleep(0.7)
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(server.process.pid, signal.SIGCONT)
    time.sleep(0.7)
    over.set()
    for thread in threads:
        thread.join()
    assert server.stop() == 0
    with Store(tmp_path / "feedback.db") as store:
        keys = {event.key.split(":", 1)[1] for event in store.events() if event.kind == "verdict"}
        store.verify()
    acknowledged = {key for person in people for key in person.acknowledged}
    assert acknowledged
    assert acknowledged <= keys


@pytest.mark.parametrize("jump", [-86_400.0 * 400, -30.0, 3600.0, 86_400.0 * 400])
def test_a_clock_that_jumps_changes_no_answer(tmp_path: Path, jump: float) -> None:
    now = [1_800_000_000.0]
    with Store(tmp_path / "feedback.db", clock=lambda: now[0]) as store:
        studio = Studio(store, tmp_path, clock=lambda: now[0])
        secret = studio.begin()
        store.add_queries(pairs(6))
        with TestClient(application(studio), base_url="http://127.0.0.1") as client:
            client.post("/api/v1/session", json={"link": secret})
            items = claim(client, 3)
            send(client, answer(items[0]))
            now[0] += jump
            if jump > 86_400 * 30:  # by this clock the session has ended; a new link lets its person in again
                client.post("/api/v1/session", json={"link": studio.begin()})
            outcomes = [send(client, answer(item, t=5.0e10))[0]["status"] for item in items[1:]]
            assert set(outcomes) <= {"stored", "late"}
            assert len(store.verdicts()) == 3
            assert len(claim(client, 6)) == 3
        store.verify()


def test_two_studios_on_one_store_share_its_questions(tmp_path: Path, as_role: Callable[..., TestClient], studio: Studio) -> None:
    """Another process, or another tab: each question goes to one person, whoever leases it."""
    studio.store.add_queries(pairs(30))
    with Store(studio.store.path) as again:
        other = application(Studio(again, tmp_path))
        ann = as_role("annotator", "ann")
        studio.accounts.add("bob", "annotator", by="test")
        with TestClient(other, base_url="http://127.0.0.1") as bob:
            bob.post("/api/v1/session", json={"link": studio.accounts.issue("link", "bob", by="test", seconds=60)})
            seen: list[str] = []
            for _ in range(15):
                for client in (ann, bob):
                    [item] = claim(client)
                    seen.append(item["prompt_raw"])
                    send(client, answer(item))
    assert len(set(seen)) == 30
    assert len(studio.store.verdicts()) == 30
