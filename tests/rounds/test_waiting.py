"""People answer while a loop waits: it goes on when enough answers are in, and can be stopped meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from backflip.errors import Interrupted
from backflip.records import Prompt, Query, Verdict
from backflip.rounds import waiting
from backflip.rounds.waiting import TITLES, offer, told, wait_for_answers
from backflip.runs import Run
from backflip.store import Store
from backflip.store.projects import Project, Projects


def asked(store: Store, n: int) -> list[Query]:
    queries = [Query(Prompt(f"p{i}"), ("x", "y")) for i in range(n)]
    store.add_queries(queries)
    return queries


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.01)


def test_it_goes_on_when_enough_are_answered(tmp_path: Path) -> None:
    with Store(tmp_path / "f.db") as store, Run.open(tmp_path / "run", kind="demo", settings={}, quiet=True) as run:
        queries = asked(store, 8)
        looked: list[int] = []

        def person() -> None:
            for query in queries[:5]:
                time.sleep(0.02)
                store.add_verdicts([Verdict(query.id, "ann", "skip" if query is queries[0] else "left")])

        thread = threading.Thread(target=person)
        thread.start()
        assert wait_for_answers(store, queries, 5, run, lambda: looked.append(1)) == 5
        thread.join()
        assert looked
        assert wait_for_answers(store, queries, 3, run, lambda: pytest.fail("there is nothing to wait for")) == 5


def test_fewer_questions_than_enough_are_enough(tmp_path: Path) -> None:
    with Store(tmp_path / "f.db") as store, Run.open(tmp_path / "run", kind="demo", settings={}, quiet=True) as run:
        queries = asked(store, 2)
        store.add_verdicts(Verdict(query.id, "ann", "left") for query in queries)
        assert wait_for_answers(store, queries, 100, run, lambda: None) == 2


def test_a_wait_can_be_ended(tmp_path: Path) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with (
        Store(tmp_path / "f.db") as store,
        Run.open(tmp_path / "run", kind="demo", settings={}, quiet=True) as run,
        pytest.raises(Interrupted),
    ):
        wait_for_answers(store, asked(store, 2), 2, run, stop)


def test_every_question_of_a_loop_has_a_page_and_nobodys_project_is_taken(tmp_path: Path) -> None:
    with Store(tmp_path / "f.db") as store:
        mine = Project(id="verify", purpose="train", title="Mine")
        Projects(store).save(mine, by="ann")
        for _ in range(2):
            for purpose in ("train", "verify", "arena", "something else"):
                offer(store, purpose)
        found = {project.purpose: project for project in Projects(store).all()}
        assert found["train"] == mine, "who made a project for these questions keeps it"
        assert found["verify"].id == "rounds-verify", "and its name"
        assert set(found) == set(TITLES)
        assert found["arena"].reveal


def test_who_is_waited_for_reads_which_questions_where_and_what_then(tmp_path: Path) -> None:
    said = told({"verify"}, 3, 40, Path("runs/mine"))
    assert said.startswith("3 of 40 questions wait for an answer (whether this round's policy is better); ")
    assert "'backflip studio runs/mine/feedback.db' and answer there" in said, "the runs of this folder are shown as it is"
    assert "then run the same command again; with --studio" in said
    elsewhere = told({"train", "mine"}, 1, 2, tmp_path / "a b")
    assert f"'{tmp_path / 'a b' / 'feedback.db'}' --runs {tmp_path}" in elsewhere
    assert "(mine and what the reward model learns from)" in elsewhere
