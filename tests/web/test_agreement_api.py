"""What the Agreement page talks to: the figures of `quality`, kept until something is new; decisions beside the answers."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.errors import StorageError
from backflip.feedback import quality as module
from backflip.feedback.quality import quality
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Project, gold_purpose
from backflip.web import reports
from backflip.web.server import Studio, application
from tests.web.agreement_data import PEOPLE, differing, fill
from tests.web.conftest import HOST

As = Callable[..., TestClient]
API = "/api/v1/agreement"


@pytest.fixture
def asked(studio: Studio) -> list[Query]:
    """Forty pairs with answers of three people and a machine."""
    queries, verdicts = differing(40)
    for name in PEOPLE:
        studio.accounts.add(name, "annotator", by="test")
    studio.store.add_queries(queries)
    studio.store.add_verdicts(verdicts)
    return queries


def report(client: TestClient, project: str = "main") -> dict[str, Any]:
    """The report of this moment."""
    end = time.monotonic() + 30
    while True:
        said = client.get(f"{API}/{project}")
        assert said.status_code == 200, said.text
        found: dict[str, Any] = said.json()
        if found["current"]:
            return found
        assert time.monotonic() < end
        time.sleep(0.02)


def decide(client: TestClient, query: Query, choice: str = "left", key: str = "key-00001", **more: Any) -> Any:
    return client.post(f"{API}/main/adjudications", json={"key": key, "query": query.id, "choice": choice, **more})


def differ(client: TestClient, queries: list[Query]) -> Query:
    """A question on which people differ."""
    id = report(client)["report"]["contested"][0]["query"]
    return next(query for query in queries if query.id == id)


@pytest.mark.parametrize(
    ("role", "read", "decided"),
    [(None, 401, 401), ("viewer", 200, 403), ("annotator", 403, 403), ("adjudicator", 200, 200), ("admin", 200, 200)],
)
def test_who_may_read_and_who_may_decide(as_role: As, asked: list[Query], role: str | None, read: int, decided: int) -> None:
    client = as_role(role)
    for path in ("", "/main", f"/main/items/{asked[0].id}", "/main/adjudications"):
        assert client.get(f"{API}{path}").status_code == read, path
    assert decide(client, asked[0]).status_code == decided


def test_the_figures_are_those_of_quality(studio: Studio, owner: TestClient, asked: list[Query]) -> None:
    gold = Query(Prompt("2+2"), ("4", "5"), purpose=gold_purpose("train"))
    studio.projects.set_golds([(gold, "left")], by="test")
    studio.store.add_verdicts([Verdict(gold.id, "lena", "right"), Verdict(gold.id, "ann", "left")])
    found = report(owner)["report"]
    expected = quality(
        [*asked, gold], studio.store.verdicts(), seeds=Seeds(0), gold={gold.id: "left"}, people=(*PEOPLE, "owner")
    ).to_json()
    for name, key in (("alpha", "alpha_nominal"), ("alpha_ordinal", "alpha_ordinal"), ("ac1", "ac1"), ("raw", "raw")):
        assert found[name] == expected[key]
    assert sorted(found["raters"], key=lambda r: r["name"]) == expected["raters"]
    assert found["pairs"] == expected["pairs"]
    assert (found["questions"], found["answers"], found["units"], found["overlapping"]) == (40, 160, 40, 40)
    assert [(r["name"], r["person"]) for r in found["raters"]][-1] == ("reward model", False)
    assert set(found["matrix"]) == {*PEOPLE, "reward model"}
    contested = [c["query_id"] for c in expected["contested"]]
    assert [c["query"] for c in found["contested"]] == contested
    assert found["contested"][0]["split"] == [2, 1]


def test_whoever_stands_out_is_named(owner: TestClient, asked: list[Query]) -> None:
    notices = {(n["rater"], n["kind"]): n for n in report(owner)["report"]["notices"]}
    left = notices["lena", "left"]
    assert (left["value"], left["n"]) == (1.0, 40)
    assert left["p"] == pytest.approx(2 / 2**40)
    assert ("ann", "left") not in notices
    below = notices["lena", "consensus"]
    assert below["high"] < below["others"]


def test_known_answers_and_repeats_count(studio: Studio, owner: TestClient) -> None:
    studio.accounts.add("ann", "annotator", by="test")
    studio.store.add_queries([Query(Prompt(f"p{i}"), ("a", "b")) for i in range(12)])
    for _ in range(12):
        claim = studio.store.claim("ann", seed=1)
        assert claim is not None
        a, b = claim.view.handles
        studio.store.answer(claim.view.id, "ann", [[a], [b]], key=claim.view.id)
    again = studio.store.claim_again("ann", gap=3)
    assert again is not None
    a, b = again.view.handles
    studio.store.answer(again.view.id, "ann", [[a], [b]], key=again.view.id)  # the left one again, now the other
    [ann] = report(owner)["report"]["raters"]
    assert (ann["consistency"]["value"], ann["consistency"]["n"]) == (0.0, 1)
    assert ann["left"]["value"] == 1.0


def test_nothing_yet(studio: Studio, owner: TestClient) -> None:
    found = report(owner)["report"]
    assert (found["questions"], found["overlapping"], found["n_raters"], found["contested"]) == (0, 0, 0, [])
    assert (found["alpha"]["value"], found["alpha"]["why_key"]) == (None, "no_overlap")
    studio.save_project(Project(id="closed", purpose="closed", open=False, overlap=2), by="test")
    assert [(p["id"], p["open"], p["overlap"]) for p in owner.get(API).json()] == [("main", True, 1), ("closed", False, 2)]
    assert owner.get(f"{API}/nowhere").status_code == 404


# ------------------------------------------------------------------------------------------------- kept in the meantime


def test_a_report_is_kept_until_something_is_new(
    studio: Studio, owner: TestClient, asked: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SPARED", 0.0)
    worked: list[int] = []

    def counted(*args: Any, **more: Any) -> Any:
        worked.append(1)
        return quality(*args, **more)

    monkeypatch.setattr(module, "quality", counted)
    first = report(owner)
    assert report(owner) == first
    assert len(worked) == 1
    news = [
        lambda: studio.store.add_verdicts([Verdict(asked[0].id, "new", "tie")]),
        lambda: studio.store.retract(studio.store.verdicts()[-1].id, "new"),
        lambda: studio.store.add_queries([Query(Prompt("later"), ("a", "b"))]),
        lambda: studio.accounts.add("new", "annotator", by="test"),
        lambda: studio.store.adjudicate(Verdict(asked[0].id, "owner", "left"), key="k"),
    ]
    for i, happen in enumerate(news, 2):
        happen()
        assert report(owner)["report"]["seconds"] >= 0
        assert len(worked) == i
    assert report(owner)["report"]["questions"] == 41


def test_the_last_good_report_is_given_while_a_newer_one_is_worked_out(
    studio: Studio, owner: TestClient, asked: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SPARED", 0.0)
    first = report(owner)
    go_on = threading.Event()

    def slow(*args: Any, **more: Any) -> Any:
        assert go_on.wait(20)
        return quality(*args, **more)

    monkeypatch.setattr(module, "quality", slow)
    studio.store.add_verdicts([Verdict(asked[0].id, "new", "tie")])
    began = time.monotonic()
    older = owner.get(f"{API}/main").json()
    assert time.monotonic() - began < 5
    assert (older["current"], older["report"], older["failure"]) == (False, first["report"], None)
    go_on.set()
    assert report(owner)["report"]["answers"] == 161


def test_a_failure_says_which_step_and_the_last_good_report_stays(
    studio: Studio, owner: TestClient, asked: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SPARED", 0.0)
    monkeypatch.setattr(reports, "AGAIN_S", 0.0)

    def broken(*_args: Any, **_more: Any) -> Any:
        raise ZeroDivisionError("one by none")

    with monkeypatch.context() as patched:
        patched.setattr(module, "quality", broken)
        none = owner.get(f"{API}/main")
        assert none.status_code == 503
        assert none.json()["detail"] == "counting the answers of project main failed: one by none"
    first = report(owner)
    studio.store.add_verdicts([Verdict(asked[0].id, "new", "tie")])
    with monkeypatch.context() as patched:
        patched.setattr(module, "quality", broken)
        said = owner.get(f"{API}/main").json()
        assert (said["report"], said["current"]) == (first["report"], False)
        assert (said["failure"]["step"], said["failure"]["problem"]) == ("count", "one by none")

    def unreadable(*_args: Any) -> Any:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(studio.store, "repeats", unreadable)
        said = owner.get(f"{API}/main").json()
        assert (said["report"], said["failure"]["step"]) == (first["report"], "read")
        patched.setattr(reports, "moment", unreadable)
        said = owner.get(f"{API}/main").json()
        assert (said["report"], said["failure"]["problem"]) == (first["report"], "the disk is gone")
    assert report(owner)["report"]["answers"] == 161


# ------------------------------------------------------------------------------------------------------------ decisions


def test_a_decision_is_stored_once_and_changes_no_answer(studio: Studio, owner: TestClient, asked: list[Query]) -> None:
    query = differ(owner, asked)
    before = studio.store.verdicts(), studio.store.comparisons()
    more = {"note": "**short** was asked for", "shown_first": 1, "t": 1.7e9}
    made = decide(owner, query, "right", **more)
    assert decide(owner, query, "right", **more).json() == made.json()
    refused = decide(owner, query, "left", **more)
    assert refused.status_code == 422
    assert "was used for another event" in refused.json()["detail"]
    [event] = studio.store.events_of("adjudicate", 10)
    assert (event.id, event.actor, event.client_t) == (made.json()["event"], "owner", 1.7e9)
    assert event.payload == {
        "query_id": query.id, "choice": "right", "ranking": [], "shown_first": 1, "note": "**short** was asked for",
    }  # fmt: skip
    assert (studio.store.verdicts(), studio.store.comparisons()) == before
    assert studio.store.verify().verdicts == 160
    assert not studio.store.rebuild()

    assert decide(owner, query, "tie", key="key-00002").status_code == 200
    listed = owner.get(f"{API}/main/adjudications").json()
    assert [(d["choice"], d["by"], d["counts"]) for d in listed] == [("tie", "owner", True), ("right", "owner", False)]
    assert listed[1]["note_html"].strip() == "<p><strong>short</strong> was asked for</p>"
    found = report(owner)["report"]
    assert found["decided"] == 1
    assert [c["query"] for c in found["contested"] if c["decided"]] == [query.id]
    assert found["contested"][-1]["query"] == query.id, "what is settled comes last"
    assert [c.annotator for c in studio.store.comparisons(adjudicated=True) if c.query_id == query.id] == ["owner"]


def test_two_people_may_use_the_same_key(studio: Studio, as_role: As, owner: TestClient, asked: list[Query]) -> None:
    assert decide(owner, asked[0]).status_code == 200
    assert decide(as_role("adjudicator", "eve"), asked[0], "right").status_code == 200
    assert [e.actor for e in studio.store.events_of("adjudicate", 10)] == ["owner", "eve"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"choice": "skip"}, 422), ({"choice": "ranking"}, 422), ({"choice": "left", "ranking": [[0], [1]]}, 422),
        ({"choice": "ranking", "ranking": [[0]]}, 422), ({"choice": "left", "query": "nowhere"}, 404),
        ({"choice": "left", "by": "ann"}, 422), ({"choice": "left", "shown_first": 2}, 422),
        ({"choice": "left", "key": "short"}, 422), ({"choice": "left", "note": "x" * 4001}, 422),
        ({"choice": "ranking", "ranking": [[False], [1]]}, 422), ({}, 422),
    ],
)  # fmt: skip
def test_what_is_no_decision_is_refused(
    studio: Studio, owner: TestClient, asked: list[Query], body: dict[str, Any], status: int
) -> None:
    sent = {"key": "key-00001", "query": asked[0].id, **body}
    said = owner.post(f"{API}/main/adjudications", json=sent)
    assert said.status_code == status, said.text
    assert studio.store.events_of("adjudicate", 10) == []


def test_a_project_decides_about_its_own_questions_only(studio: Studio, owner: TestClient, asked: list[Query]) -> None:
    studio.save_project(Project(id="other", purpose="other"), by="test")
    body = {"key": "key-00001", "query": asked[0].id, "choice": "left"}
    assert owner.post(f"{API}/other/adjudications", json=body).status_code == 404
    assert owner.get(f"{API}/other/items/{asked[0].id}").status_code == 404
    decide(owner, asked[0])
    assert owner.get(f"{API}/other/adjudications").json() == []


def test_rankings_are_shown_and_decided(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="four", purpose="four", answers="rate"), by="test")
    query = Query(Prompt(""), ("w", "x", "y", "z"), purpose="four")
    studio.store.add_queries([query])
    studio.accounts.add("ann", "annotator", by="test")
    studio.store.add_verdicts(
        [
            Verdict(query.id, "ann", "ranking", ((3,), (0, 1), (2,))),
            Verdict(query.id, "owner", "rating", scores=(1, 5, 5, 2)),
            Verdict(query.id, "judge", "skip", code="cannot"),
        ]
    )
    [contested] = report(owner, "four")["report"]["contested"]
    assert contested["excerpt"] == "w"
    item = owner.get(f"{API}/four/items/{query.id}").json()
    assert sorted(item["places"]) == [0, 1, 2, 3]
    assert [slot["raw"] for slot in item["slots"]] == [query.completions[i] for i in item["places"]]
    said = {o["annotator"]: (o["person"], o["groups"], o["code"]) for o in item["opinions"]}
    assert said == {
        "ann": (True, [[3], [0, 1], [2]], ""), "owner": (True, [[1, 2], [3], [0]], ""), "judge": (False, [], "cannot"),
    }  # fmt: skip
    body = {"key": "key-00001", "query": query.id, "choice": "ranking", "ranking": [[2], [0, 1, 3]]}
    assert owner.post(f"{API}/four/adjudications", json=body).status_code == 200
    assert owner.get(f"{API}/four/items/{query.id}").json()["adjudications"][0]["ranking"] == [[2], [0, 1, 3]]


# ------------------------------------------------------------------------------------------------------- what is hidden


def test_nobody_learns_who_wrote_what_nor_is_shown_what_a_text_does(studio: Studio, as_role: As, asked: list[Query]) -> None:
    eve = as_role("adjudicator", "eve")
    nasty = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) \u202eevil"
    query = Query(Prompt(nasty), (f"{nasty} by zebra-one", "plain"), policies=("zebra-one", "zebra-two"))
    studio.store.add_queries([query])
    studio.store.add_verdicts(
        [Verdict(query.id, "ann", "left", note=f"{nasty} zebra-two"), Verdict(query.id, "bob", "right", note="no")]
    )
    decide(eve, query, note=f"{nasty} ZEBRA-ONE")
    bodies = [
        eve.get(path).text
        for path in (
            f"{API}/main",
            f"{API}/main/items/{query.id}",
            f"{API}/main/items/{asked[0].id}",
            f"{API}/main/adjudications",
        )
    ]
    assert all("zebra" not in body.lower() for body in bodies)
    assert all("\u202e" not in body for body in bodies)
    item = eve.get(f"{API}/main/items/{query.id}").json()
    htmls = [item["prompt_html"], *(s["html"] for s in item["slots"]), *(o["note_html"] for o in item["opinions"])]
    htmls += [d["note_html"] for d in item["adjudications"]]
    assert sum("&lt;img" in html for html in htmls) == 4
    assert not any("<img" in html or "href" in html for html in htmls)


def test_the_places_are_drawn_for_each_reader_and_stay(as_role: As, asked: list[Query]) -> None:
    def places(client: TestClient) -> list[list[int]]:
        return [client.get(f"{API}/main/items/{query.id}").json()["places"] for query in asked]

    eve, max = as_role("adjudicator", "eve"), as_role("adjudicator", "max")
    assert places(eve) == places(eve)
    assert places(eve) != places(max)
    assert 5 < sum(place[0] for place in places(eve)) < 35


# -------------------------------------------------------------------------------------------------------------- speed


def test_many_answers(tmp_path: Any) -> None:
    n = int(os.environ.get("BACKFLIP_ANSWERS", "10000"))  # 100000 to measure what docs/agreement.md tells
    with Store(tmp_path / "large.db") as store:
        fill(store, n)
        studio = Studio(store, tmp_path / "runs")
        secret = studio.begin()
        for i in range(40):
            studio.accounts.add(f"person {i}", "annotator", by="test")
        with TestClient(application(studio), base_url=HOST) as client:
            client.post("/api/v1/session", json={"link": secret})
            began = time.monotonic()
            first = report(client)["report"]
            cold = time.monotonic() - began
            served = []
            query = store.queries()[0]
            for i in range(20):
                store.add_verdicts([Verdict(query.id, f"person {i}", "tie", at=2e9 + i)])
                began = time.monotonic()
                assert client.get(f"{API}/main").status_code == 200
                served.append(time.monotonic() - began)
                time.sleep(0.1)
            assert (first["answers"], first["n_raters"], len(first["pairs"])) == (n, 40, 435)
            last = report(client)["report"]
            assert last["answers"] == n + 20
    print(f"\nfirst {cold:.2f} s; then p50 {statistics.median(served):.2f} s and p95 {sorted(served)[18]:.2f} s for a report,")
    print(f"the newest of which took {last['seconds']:.2f} s of work")
