"""What the Arena page talks to: the ratings of `standings`, kept until something is answered, blind before the vote."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.arena import ratings as arena_ratings
from backflip.arena import standings
from backflip.maths import ratings as maths_ratings
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store.projects import Project
from backflip.web import board
from backflip.web.server import Studio
from tests.kept_runs import answers, write_run

As = Callable[..., TestClient]
NAMES = ("sft", "round1", "round2")


def duels(n: int, *pairs: tuple[str, str]) -> list[Query]:
    return [
        Query(Prompt(f"Question {i}"), (f"One {a} {i}", f"Two {b} {i}" + " more" * (i % 5)), policies=(a, b), purpose="arena")
        for a, b in pairs or itertools.combinations(NAMES, 2)
        for i in range(n)
    ]


def vote(studio: Studio, queries: list[Query], by: str = "judge", start: int = 0) -> None:
    """The later generation wins 3 times in 4."""
    choices = ("right", "right", "right", "left")
    given = [Verdict(q.id, by, choices[(start + i) % 4]) for i, q in enumerate(queries)]  # type: ignore[arg-type]
    studio.store.add_queries(queries)
    studio.store.add_verdicts(given)


def get(client: TestClient, **params: Any) -> dict[str, Any]:
    """The ratings, once they are of now."""
    for _ in range(100):
        said = client.get("/api/v1/arena", params=params)
        assert said.status_code == 200, said.text
        found: dict[str, Any] = said.json()
        if not found["stale"]:
            return found
        time.sleep(0.1)
    raise AssertionError("the ratings stay stale")


@pytest.mark.parametrize(
    ("method", "path", "body", "may"),
    [
        ("GET", "/api/v1/arena", None, {"owner", "admin", "adjudicator", "viewer"}),
        ("GET", "/api/v1/arena/offers", None, {"owner", "admin"}),
        ("POST", "/api/v1/arena/queue", {"run": "x", "pairs": [["a", "b"]]}, {"owner", "admin"}),
    ],
)
def test_who_may(as_role: As, method: str, path: str, body: Any, may: set[str]) -> None:
    for role in ("owner", "admin", "adjudicator", "annotator", "viewer", None):
        said = as_role(role).request(method, path, json=body)
        allowed = said.status_code in (200, 404)
        assert allowed == (role in may), (role, said.status_code)
        if not allowed:
            assert said.status_code == (401 if role is None else 403)


def test_the_ratings_are_those_of_standings(studio: Studio, owner: TestClient) -> None:
    vote(studio, duels(12))
    said = get(owner)
    table = standings(studio.store, seeds=Seeds(0), anchor="sft")
    assert [p["policy"] for p in said["policies"]] == [r.policy for r in table.ratings] == ["round2", "round1", "sft"]
    for policy, rating in zip(said["policies"], table.ratings, strict=True):
        assert (policy["rating"], policy["low"], policy["high"]) == (rating.rating, rating.low, rating.high)
        assert policy["games"] == rating.matches == 24
        assert tuple(policy["rank"]) == table.rank_ranges[rating.policy]
    assert said["generations"] == list(NAMES)
    rates = {(r["policy"], r["against"]): [r["mean"], r["low"], r["high"], r["n"]] for r in said["win_rates"]}
    assert rates == {pair: list(rate) for pair, rate in table.win_rates.items()}
    better = {p["policy"]: p["better"] for p in said["policies"]}
    assert better["sft"] is None
    assert better["round2"] == {"than": "round1", "p": table.better["round2", "round1"], "n": 12}
    assert 0.9 < better["round2"]["p"] < 1
    assert (said["votes"], said["annotators"], said["prompts"], said["anchor"]) == (36, 1, 12, "sft")
    assert (said["comparable"], said["enough"], said["regularised"], said["links"]) == (True, True, False, [])
    assert said["cursor"] == studio.store.cursor == 36


def test_the_anchor_is_chosen_or_nobody(studio: Studio, owner: TestClient) -> None:
    vote(studio, duels(12))
    by_name = {p["policy"]: p for p in get(owner, anchor="round1")["policies"]}
    assert by_name["round1"]["rating"] == by_name["round1"]["low"] == 1000
    mean = get(owner, anchor="")
    assert mean["anchor"] is None
    assert sum(p["rating"] for p in mean["policies"]) / 3 == pytest.approx(1000)
    said = owner.get("/api/v1/arena", params={"anchor": "rond1"})
    assert said.status_code == 422
    assert "did you mean 'round1'" in said.json()["detail"]
    assert owner.get("/api/v1/arena", params={"by": "nobody"}).status_code == 422


def test_people_and_machines(studio: Studio, owner: TestClient, as_role: As) -> None:
    as_role("annotator", name="ann")
    queries = duels(12, ("sft", "round1"))
    same = [Query(Prompt(f"Same {i}"), ("x", "x"), policies=("sft", "round1"), purpose="arena-same-text") for i in range(4)]
    studio.store.add_queries(same)
    studio.store.add_verdicts([Verdict(q.id, "same-text", "tie") for q in same])
    vote(studio, queries, by="ann")
    studio.store.add_verdicts([Verdict(q.id, "judge", "left") for q in queries])
    people, machines, everybody = (get(owner, by=by) for by in ("people", "machines", "all"))
    assert [s["votes"] for s in (people, machines, everybody)] == [12, 12, 24]
    assert [s["annotators"] for s in (people, machines, everybody)] == [1, 1, 2]
    rate = {by: s["win_rates"][0] for by, s in (("p", people), ("m", machines))}
    assert (rate["p"]["policy"], rate["p"]["mean"], rate["p"]["n"]) == ("round1", (9 + 2) / 16, 16)
    assert (rate["m"]["policy"], rate["m"]["mean"], rate["m"]["n"]) == ("sft", (12 + 2) / 16, 16)
    expected = standings(studio.store, seeds=Seeds(0), anchor="sft", counts=lambda name: name == "ann")
    assert [p["rating"] for p in people["policies"]] == [r.rating for r in expected.ratings]
    studio.accounts.add("judge", "annotator", by="test")  # the judge turns out to be a person
    assert get(owner, by="people")["votes"] == 24
    assert get(owner, by="machines")["votes"] == 0


def test_at_equal_length(studio: Studio, owner: TestClient) -> None:
    vote(studio, duels(15))
    raw, even = get(owner), get(owner, length="controlled")
    assert raw["effect"] is None
    assert even["effect"]["low"] < even["effect"]["coefficient"] < even["effect"]["high"]
    expected = standings(studio.store, seeds=Seeds(0), anchor="sft", length_controlled=True)
    assert [p["rating"] for p in even["policies"]] == [r.rating for r in expected.ratings]
    by_pair = [{(r["policy"], r["against"]): r for r in said["win_rates"]} for said in (raw, even)]
    assert by_pair[0] == by_pair[1], "how often who won is what it is"


def count_fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    fits: list[int] = []
    real = maths_ratings.bootstrap_ratings

    def counted(*args: Any, **more: Any) -> Any:
        fits.append(1)
        return real(*args, **more)

    monkeypatch.setattr(arena_ratings, "bootstrap_ratings", counted)
    return fits


def test_kept_until_something_is_answered(studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = count_fits(monkeypatch)
    queries = duels(12)
    vote(studio, queries)
    first = get(owner)
    assert get(owner) == first
    assert len(fits) == 1
    studio.store.add_queries([Query(Prompt("t"), ("x", "y"))])
    studio.store.add_verdicts([Verdict(studio.store.queries("train")[0].id, "ann", "left")])
    other = get(owner)
    assert len(fits) == 1, "an answer to another question changes no rating"
    assert other["cursor"] == first["cursor"] + 1
    assert other["policies"] == first["policies"]
    get(owner, anchor="round1")
    get(owner, by="machines")
    assert len(fits) == 3
    verdict = Verdict(queries[0].id, "another", "left")
    studio.store.add_verdicts([verdict])
    assert get(owner)["votes"] == 37
    studio.store.retract(verdict.id, "another")
    back = get(owner)
    assert (back["votes"], back["policies"], back["win_rates"]) == (36, first["policies"], first["win_rates"])
    assert len(fits) == 5


def test_the_last_ratings_are_given_while_newer_ones_are_worked_out(
    studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vote(studio, duels(12))
    first, going, real = get(owner), threading.Event(), maths_ratings.bootstrap_ratings
    monkeypatch.setattr(board, "PATIENCE_S", 0.01)
    monkeypatch.setattr(arena_ratings, "bootstrap_ratings", lambda *a, **k: (going.wait(20), real(*a, **k))[1])
    vote(studio, duels(12)[:6], by="another")
    for _ in range(3):
        said = owner.get("/api/v1/arena").json()
        assert said == {**first, "stale": True}
    going.set()
    assert get(owner)["votes"] == 42


def test_what_does_not_converge_leaves_the_last_ratings(
    studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vote(studio, duels(12))
    first, tries = get(owner), []

    def fail(*_args: Any, **_more: Any) -> Any:
        tries.append(1)
        raise ArithmeticError("3 of 1000 fits did not converge")

    monkeypatch.setattr(arena_ratings, "bootstrap_ratings", fail)
    vote(studio, duels(12)[:6], by="another")
    for _ in range(3):
        said = get(owner)
        assert "did not converge" in said["problem"]
        assert {**said, "problem": ""} == first
    assert len(tries) == 1, "nobody tries again before something has changed"
    said = owner.get("/api/v1/arena", params={"anchor": "round2"})
    assert said.status_code == 422
    assert "did not converge" in said.json()["detail"]
    monkeypatch.undo()
    vote(studio, duels(12)[6:12], by="another")
    assert get(owner)["problem"] == ""


def test_few_answers_give_counts_and_no_rating(studio: Studio, owner: TestClient) -> None:
    empty = get(owner)
    assert (empty["enough"], empty["policies"], empty["votes"], empty["notes"][0]) == (False, [], 0, "no matches yet")
    queries = duels(10, ("sft", "round1"))
    vote(studio, queries[:9])
    few = get(owner)
    assert (few["enough"], few["votes"], few["win_rates"], few["comparable"]) == (False, 9, [], False)
    assert [(p["policy"], p["rating"], p["low"], p["rank"], p["better"], p["games"]) for p in few["policies"]] == [
        ("round1", None, None, None, None, 9), ("sft", None, None, None, None, 9)
    ]  # fmt: skip
    assert "too few answers" in few["notes"][-1]
    vote(studio, queries[9:], start=9)
    assert get(owner)["enough"]


def test_a_match_that_names_nobody_is_one_sentence(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries([Query(Prompt("p"), ("x", "y"), purpose="arena")])
    said = owner.get("/api/v1/arena")
    assert said.status_code == 422
    assert "does not say which policies wrote its texts" in said.json()["detail"]


def test_the_missing_link_is_named_and_can_be_asked(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs, "loop", {name: answers(name, 6) for name in ("sft", "round1", "round2", "round3")})
    queue = {"run": "loop", "pairs": [["sft", "round1"], ["round2", "round3"]]}
    assert {(o["a"], o["b"]): o["n"] for o in owner.get("/api/v1/arena/offers").json()}["sft", "round3"] == 6
    assert owner.post("/api/v1/arena/queue", json=queue).json() == {"queued": 12, "same_text": 0}
    assert owner.post("/api/v1/arena/queue", json=queue).json() == {"queued": 0, "same_text": 0}
    vote(studio, studio.store.queries("arena"))
    apart = get(owner)
    assert not apart["comparable"]
    assert apart["groups"] == [["round1", "sft"], ["round2", "round3"]]
    assert apart["links"] == [{"a": "round1", "b": "round2", "waiting": 0}]
    assert apart["notes"] == ["not comparable yet: {round1, sft} and {round2, round3} share no matches"]
    assert {p["rating"] for p in apart["policies"]} == {None}
    assert len(apart["win_rates"]) == 4
    link = {"run": "loop", "pairs": [["round1", "round2"]], "limit": 4}
    assert owner.post("/api/v1/arena/queue", json=link).json()["queued"] == 4
    assert get(owner)["links"] == [{"a": "round1", "b": "round2", "waiting": 4}]
    vote(studio, [q for q in studio.store.queries("arena") if set(q.policies) == {"round1", "round2"}])
    joined = get(owner)
    assert (joined["comparable"], joined["links"], len(joined["policies"])) == (True, [], 4)


def test_what_cannot_be_queued_is_one_sentence(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs, "loop", {name: answers(name, 6) for name in ("sft", "round1")})

    def status(**body: Any) -> tuple[int, str]:
        said = owner.post("/api/v1/arena/queue", json={"run": "loop", "pairs": [["sft", "round1"]], **body})
        return said.status_code, str(said.json()["detail"])

    assert status(run="../loop") == (404, "there is no run '../loop' with samples for the arena")
    assert status(pairs=[["sft", "sft"]])[0] == 422
    assert "no samples of 'x'" in status(pairs=[["sft", "x"]])[1]
    assert status(pairs=[["sft"]])[0] == status(pairs=[])[0] == status(limit=0)[0] == status(policy="x")[0] == 422
    assert studio.store.queries() == []


def test_names_stay_hidden_until_the_vote(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="arena", purpose="arena", reveal=True), by="test")
    names = ("zebra-sft", "zebra-round1")
    write_run(studio.runs, "loop", {name: [f"I am {name}, {i}" for i in range(8)] for name in names})
    assert owner.post("/api/v1/arena/queue", json={"run": "loop", "pairs": [list(names)]}).json()["queued"] == 8
    claimed = owner.post("/api/v1/projects/arena/claims", json={"n": 8})
    said = claimed.content + json.dumps(dict(claimed.headers)).encode() + owner.get("/api/v1/projects/arena").content
    assert b"zebra" not in said
    asked = {query.prompt.plain: query for query in studio.store.queries()}
    for item in claimed.json()["items"]:
        best, worst = (slot["handle"] for slot in item["slots"])
        event = {"kind": "answer", "key": f"key-{item['view']}"[:40], "view": item["view"], "groups": [[best], [worst]]}
        [outcome] = owner.post("/api/v1/events", json={"events": [event]}).json()["outcomes"]
        query = asked[item["prompt_raw"]]
        [verdict] = [v for v in studio.store.verdicts() if v.query_id == query.id]
        won, lost = query.policies if verdict.choice == "left" else query.policies[::-1]
        assert outcome["reveal"] == {best: won, worst: lost}
    undo = {"kind": "undo", "key": "undo-000001", "view": claimed.json()["items"][0]["view"]}
    [outcome] = owner.post("/api/v1/events", json={"events": [undo]}).json()["outcomes"]
    assert (outcome["status"], outcome["error"]) == ("refused", "who wrote what was shown after this answer, so it stands")
    assert len(studio.store.verdicts()) == 8
    assert get(owner)["project"] == "arena"
    assert {p["policy"] for p in get(owner)["policies"]} == set(names)
