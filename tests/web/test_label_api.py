"""What the Label page talks to: leases, answers, undo, notes; blind before the vote; nothing twice, nothing lost."""

from __future__ import annotations

import collections
import dataclasses
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.errors import BusyError, FullDiskError, StorageError
from backflip.records import Prompt, Query
from backflip.store.projects import REPEAT_GAP, Project, gold_purpose
from backflip.store.views import show
from backflip.web.server import Studio
from tests.web.conftest import pairs

As = Callable[..., TestClient]


def claim(client: TestClient, n: int = 1, project: str = "main", **more: Any) -> list[dict[str, Any]]:
    said = client.post(f"/api/v1/projects/{project}/claims", json={"n": n, **more})
    assert said.status_code == 200, said.text
    items: list[dict[str, Any]] = said.json()["items"]
    return items


def answer(item: dict[str, Any], best: int = 0, key: str = "", **more: Any) -> dict[str, Any]:
    a, b = (slot["handle"] for slot in item["slots"])
    groups = [[a], [b]] if best == 0 else [[b], [a]]
    return {"kind": "answer", "key": key or f"key-{item['view']}"[:40], "view": item["view"], "groups": groups, **more}


def send(client: TestClient, *events: dict[str, Any]) -> list[dict[str, Any]]:
    said = client.post("/api/v1/events", json={"events": list(events)})
    assert said.status_code == 200, said.text
    outcomes: list[dict[str, Any]] = said.json()["outcomes"]
    return outcomes


def test_an_answer_is_what_was_chosen_whatever_stood_where(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(20))
    for item in claim(owner, 20):
        chosen = next(i for i, slot in enumerate(item["slots"]) if slot["raw"].startswith("Answer A"))
        [outcome] = send(owner, answer(item, chosen, ms=1200, note="why not", strength=2, seen={"plays": 1}))
        assert outcome["status"] == "stored"
    verdicts = studio.store.verdicts()
    assert {v.choice for v in verdicts} == {"left"}
    assert {(v.annotator, v.ms, v.note, v.strength) for v in verdicts} == {("owner", 1200, "why not", 2)}
    assert {v.shown_first for v in verdicts} == {0, 1}
    assert studio.store.events()[-1].payload["seen"] == {"plays": 1}


def test_ties_skips_rankings_and_ratings(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(2))
    first, second = claim(owner, 2)
    handles = [slot["handle"] for slot in first["slots"]]
    send(owner, {"kind": "answer", "key": "tie-000001", "view": first["view"], "groups": [handles], "code": "bad"})
    send(owner, {"kind": "answer", "key": "skip-000001", "view": second["view"], "code": "unsafe"})
    assert [(v.choice, v.code) for v in studio.store.verdicts()] == [("tie", "bad"), ("skip", "unsafe")]

    studio.save_project(Project(id="four", purpose="four"), by="test")
    studio.save_project(Project(id="rate", purpose="rate", answers="rate"), by="test")
    texts = ("w", "x", "y", "z")
    studio.store.add_queries([Query(Prompt("p"), texts, purpose="four"), Query(Prompt("p"), texts[:3], purpose="rate")])
    [item] = claim(owner, project="four")
    by_text = {slot["raw"]: slot["handle"] for slot in item["slots"]}
    groups = [[by_text["y"]], [by_text["w"], by_text["z"]], [by_text["x"]]]
    send(owner, {"kind": "answer", "key": "rank-000001", "view": item["view"], "groups": groups})
    [ranked] = studio.store.verdicts(purpose="four")
    assert [set(group) for group in ranked.ranking] == [{2}, {0, 3}, {1}]
    [item] = claim(owner, project="rate")
    scores = {slot["handle"]: float(ord(slot["raw"]) - ord("w") + 1) for slot in item["slots"]}
    send(owner, {"kind": "answer", "key": "rate-000001", "view": item["view"], "scores": scores})
    [rated] = studio.store.verdicts(purpose="rate")
    assert (rated.choice, rated.scores) == ("rating", (1.0, 2.0, 3.0))
    assert [(c.left, c.right, c.p_left) for c in studio.store.comparisons(purpose="rate")] == [
        ("w", "x", 0.0), ("w", "y", 0.0), ("x", "y", 0.0),
    ]  # fmt: skip
    studio.store.verify()


def test_sent_twice_stored_once_and_a_key_cannot_mean_two_things(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(1))
    [item] = claim(owner)
    assert [o["status"] for o in send(owner, answer(item), answer(item))] == ["stored", "repeated"]
    assert send(owner, answer(item))[0]["status"] == "repeated"
    refused = send(owner, answer(item, 1))[0]
    assert refused["status"] == "refused"
    assert "was used for another event" in refused["error"]
    assert send(owner, answer(item, 1, key="another-key"))[0]["status"] == "surplus"
    assert len(studio.store.verdicts()) == 1


def test_undo_and_again(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(1))
    [item] = claim(owner)
    send(owner, answer(item))
    undo = {"kind": "undo", "key": "undo-000001", "view": item["view"]}
    assert [o["status"] for o in send(owner, undo, undo)] == ["stored", "repeated"]
    assert studio.store.verdicts() == []
    assert [again["view"] for again in claim(owner)] == [item["view"]], "the question is still this person's"
    assert send(owner, answer(item, 1, key="second-answer"))[0]["status"] == "stored"
    assert len(studio.store.verdicts()) == 1
    assert send(owner, {**undo, "key": "undo-000002", "view": "0" * 32})[0]["status"] == "refused"


def test_notes_belong_to_a_view_of_ones_own(studio: Studio, as_role: As) -> None:
    studio.store.add_queries(pairs(2))
    ann, bob = as_role("annotator", "ann"), as_role("annotator", "bob")
    [item] = claim(ann)
    handle = item["slots"][0]["handle"]
    where = {"view": item["view"], "handle": handle}
    notes = [
        {"kind": "edit", "key": "edit-000001", **where, "text": "better"},
        {"kind": "span", "key": "span-000001", **where, "start": 1, "end": 4, "of": "raw", "tag": "wrong"},
        {"kind": "flag", "key": "flag-000001", "view": item["view"], "note": "no question"},
    ]
    assert [o["status"] for o in send(ann, *notes)] == ["stored"] * 3
    assert [(e.kind, e.actor) for e in studio.store.events() if e.view_id] == [("edit", "ann"), ("span", "ann"), ("flag", "ann")]
    assert {o["status"] for o in send(bob, *({**note, "key": f"bob-{note['key']}"} for note in notes))} == {"refused"}
    assert send(bob, answer(item))[0]["status"] == "refused"


def test_one_persons_key_is_not_anothers(studio: Studio, as_role: As) -> None:
    studio.store.add_queries(pairs(2))
    for name in ("ann", "bob"):
        client = as_role("annotator", name)
        [item] = claim(client)
        assert send(client, answer(item, key="the-same-key"))[0]["status"] == "stored"


def test_leases_are_kept_given_back_and_come_late(tmp_path: Any) -> None:
    from backflip.store import Store
    from backflip.web.server import application

    now = [1_000_000.0]
    with Store(tmp_path / "f.db", clock=lambda: now[0]) as store:
        studio = Studio(store, tmp_path, clock=lambda: now[0])
        secret = studio.begin()
        store.add_queries(pairs(3))
        with TestClient(application(studio), base_url="http://127.0.0.1") as client:
            client.post("/api/v1/session", json={"link": secret})
            first, second = claim(client, 2)
            views = [first["view"], second["view"]]
            now[0] += 100
            kept = client.post("/api/v1/heartbeat", json={"views": views[:1]}).json()["until"]
            assert kept == {views[0]: now[0] + 180}
            assert client.post("/api/v1/release", json={"views": views[1:]}).json() == {"ok": True}
            assert [item["view"] for item in claim(client, 1)] == views[:1]
            now[0] += 500
            assert client.post("/api/v1/heartbeat", json={"views": views}).json()["until"] == {}
            assert send(client, answer(first))[0]["status"] == "late"
            assert len(store.verdicts()) == 1


def test_what_a_page_holds_is_not_given_again(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(6))
    held = [item["view"] for item in claim(owner, 3)]
    fresh = [item["view"] for item in claim(owner, 3, have=held)]
    assert len({*held, *fresh}) == 6
    assert [item["view"] for item in claim(owner, 6)] == held + fresh, "a page that was loaded anew gets them back"


def test_before_the_vote_no_byte_says_who_wrote_what(studio: Studio, owner: TestClient) -> None:
    names = ("zebra-one", "zebra-two")
    texts = ("I am Zebra-One, trained by nobody", "zebra-two at your service; zebra-twofold stays")
    studio.save_project(Project(id="arena", purpose="arena", reveal=True), by="test")
    query = Query(Prompt("Who are you, zebra-one?", {"source": "zebra-two"}), texts, policies=names, purpose="arena")
    studio.store.add_queries([query, *pairs(3, "arena")])
    said = owner.post("/api/v1/projects/arena/claims", json={"n": 4})
    sent = said.text + str(said.headers) + owner.get("/label/arena").text + owner.get("/api/v1/projects/arena").text
    assert "zebra-twofold" in sent
    for hidden in (*names, query.id):
        assert hidden not in sent.lower().replace("zebra-twofold", "")
    item = said.json()["items"][0]
    [outcome] = send(owner, answer(item))
    assert sorted(outcome["reveal"].values()) == sorted(names)
    assert set(outcome["reveal"]) == {slot["handle"] for slot in item["slots"]}


def test_a_project_that_does_not_reveal_never_says(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(1))
    [item] = claim(owner)
    assert send(owner, answer(item))[0]["reveal"] == {}


def test_known_answers_and_repeats_are_mixed_in_and_teach_nothing(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="main", purpose="train", gold_share=0.2, repeat_share=0.2), by="test")
    studio.store.add_queries(pairs(200))
    golds = [dataclasses.replace(query, purpose=gold_purpose("train")) for query in pairs(300)[200:]]
    studio.projects.set_golds([(query, "left") for query in golds], by="test")
    first: dict[str, str] = {}
    for _ in range(200):
        [item] = claim(owner)
        left, right = item["slots"]
        first.setdefault(item["prompt_raw"], left["raw"])
        if item["prompt_raw"] in first and first[item["prompt_raw"]] != left["raw"]:
            assert right["raw"] == first[item["prompt_raw"]], "shown again with the sides the other way round"
        send(owner, answer(item))
    n_gold = len(studio.store.verdicts(purpose=gold_purpose("train")))
    repeats = studio.store.repeats("train")
    assert 20 <= n_gold <= 60
    assert 10 <= len(repeats) <= 60
    assert len(studio.store.verdicts(purpose="train")) == 200 - n_gold - len(repeats)
    assert len(studio.store.comparisons()) == 200 - n_gold - len(repeats)
    for once, again in repeats:
        assert once.query_id == again.query_id
        assert once.shown_first != again.shown_first
        assert once.choice != again.choice, "whoever always says left contradicts themselves"
    order = [event.payload["verdict"]["query_id"] for event in studio.store.events() if event.kind in ("verdict", "repeat")]
    for once, _ in repeats:
        places = [i for i, query in enumerate(order) if query == once.query_id]
        assert places[1] - places[0] > REPEAT_GAP
    studio.store.verify()


def test_undoing_a_repeat(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="main", purpose="train", repeat_share=0.5), by="test")
    studio.store.add_queries(pairs(60))
    while not studio.store.repeats():
        [item] = claim(owner)
        send(owner, answer(item))
    before = len(studio.store.verdicts())
    assert send(owner, {"kind": "undo", "key": "undo-repeat", "view": item["view"]})[0]["status"] == "stored"
    assert studio.store.repeats() == []
    assert send(owner, {"kind": "undo", "key": "undo-repeat-2", "view": item["view"]})[0]["status"] == "refused"
    send(owner, answer(item, 1, key="again-000001"))
    assert len(studio.store.repeats()) == 1
    assert len(studio.store.verdicts()) == before


@pytest.mark.parametrize(
    ("problem", "status"),
    [(FullDiskError("no room"), 507), (BusyError("busy"), 503), (StorageError("broken"), 503)],
    ids=["full", "busy", "broken"],
)
def test_a_disk_that_refuses_acknowledges_nothing(
    studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int
) -> None:
    studio.store.add_queries(pairs(1))
    [item] = claim(owner)

    def refuse(*args: object, **kwargs: object) -> None:
        raise problem

    with monkeypatch.context() as patched:
        patched.setattr(studio.store, "answer", refuse)
        said = owner.post("/api/v1/events", json={"events": [answer(item)]})
    assert said.status_code == status
    assert str(problem) in said.json()["detail"]
    assert (said.headers.get("retry-after") is not None) == (status == 503)
    assert send(owner, answer(item))[0]["status"] == "stored", "sent again it is stored"


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": [["nobody"], ["else"]]}, {"groups": "left"}, {"key": "short"}, {"key": "with spaces in it"}, {"ms": -1},
        {"ms": True},
        {"strength": 5}, {"note": "x" * 4001}, {"user": "ann"}, {"kind": "vote"}, {"code": "whatever"}, {"scores": {"a": 1.0}},
        {"t": 1e300}, {"view": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_answer_is_refused_in_a_sentence(studio: Studio, owner: TestClient, wrong: dict[str, Any]) -> None:
    studio.store.add_queries(pairs(1))
    [item] = claim(owner)
    said = owner.post("/api/v1/events", json={"events": [answer(item) | wrong]})
    if said.status_code == 200:
        [outcome] = said.json()["outcomes"]
        assert outcome["status"] == "refused"
        assert outcome["error"]
    else:
        assert said.status_code == 422
    assert studio.store.verdicts() == []
    assert send(owner, answer(item))[0]["status"] == "stored"


def test_one_wrong_event_does_not_stop_its_neighbours(studio: Studio, owner: TestClient) -> None:
    studio.store.add_queries(pairs(3))
    a, b, c = claim(owner, 3)
    wrong = answer(b) | {"view": "f" * 32}
    assert [o["status"] for o in send(owner, answer(a), wrong, answer(c))] == ["stored", "refused", "stored"]


def test_clips_come_whole_and_in_parts(studio: Studio, owner: TestClient) -> None:
    content = b"\x1a\x45\xdf\xa3" + bytes(range(200))
    name = studio.projects.add_media(content, "video/webm")
    whole = owner.get(f"/api/v1/media/{name}")
    assert (whole.content, whole.headers["content-type"]) == (content, "video/webm")
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = owner.get(f"/api/v1/media/{name}", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, content[10:20], "bytes 10-19/204")
    assert owner.get(f"/api/v1/media/{name}", headers={"Range": "bytes=-4"}).content == content[-4:]
    assert owner.get(f"/api/v1/media/{name}", headers={"Range": "bytes=200-"}).content == content[200:]
    for nonsense in ("bytes=a-b", "bytes=9-3", "bytes=-", "items=1-2", "bytes=0-1,3-4", "bytes=999-"):
        assert owner.get(f"/api/v1/media/{name}", headers={"Range": nonsense}).status_code in (200, 416)
    assert owner.get("/api/v1/media/..%2f..%2fetc%2fpasswd").status_code == 404


def test_a_closed_project_gives_no_questions(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="main", purpose="train", open=False), by="test")
    said = owner.post("/api/v1/projects/main/claims", json={})
    assert said.status_code == 409
    assert owner.get("/api/v1/projects").json() == []


def test_boards_that_are_none_are_shown_as_text(studio: Studio, owner: TestClient) -> None:
    studio.save_project(Project(id="boards", purpose="boards"), by="test")
    state = {"kind": "grid", "rows": ["XO"]}
    studio.store.add_queries([Query(Prompt("p"), (json.dumps(state), "no json"), purpose="boards", form="board")])
    [item] = claim(owner, project="boards")
    assert sorted((slot["board"] is not None, slot["raw"]) for slot in item["slots"]) == [(False, "no json"), (True, "")]


def test_200_annotators_answer_everything_exactly_k_times(studio: Studio) -> None:
    """Eight threads play 200 people; nobody is given a question twice, and no question more than k people at once."""
    k, n = 3, 120
    project = Project(id="main", purpose="train", overlap=k)
    studio.save_project(project, by="test")
    studio.store.add_queries(pairs(n))
    held: collections.Counter[str] = collections.Counter()
    most: list[int] = []
    lock = threading.Lock()

    def play(thread: int) -> None:
        rng, people = random.Random(thread), [f"person {i}" for i in range(thread, 200, 8)]
        while people:
            name = rng.choice(people)
            claims = studio.submit(studio.projects.claim, project, name, rng.randint(1, 3), seed=0, render="1").result()
            if not claims:
                people.remove(name)
            with lock:
                held.update(claim.query.id for claim in claims)
                most.append(max((held[claim.query.id] for claim in claims), default=0))
            for claim in claims:
                a, b = claim.view.handles
                studio.submit(studio.store.answer, claim.view.id, name, [[a], [b]], key=claim.view.id).result()

    threads = [threading.Thread(target=play, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = studio.store.verdicts()
    assert set(collections.Counter(v.query_id for v in verdicts).values()) == {k}
    assert len({(v.query_id, v.annotator) for v in verdicts}) == len(verdicts) == k * n
    assert max(most) == k
    studio.store.verify()


def test_sides_are_balanced_over_10_000_views(studio: Studio) -> None:
    """χ² with one degree of freedom: beyond 10.83 with probability 0.001."""
    queries = pairs(200)
    studio.store.add_queries(queries)
    with studio.store._log() as log:  # what a claim does when it has found a question
        shown = [view for i in range(50) for view in show(log, queries, f"person {i}", studio.seed, "1")]
    first = collections.Counter(view.places[0] for view in shown)
    assert first.total() == 10_000
    assert sum((first[side] - 5000) ** 2 / 5000 for side in (0, 1)) < 10.83
    assert len({handle for view in shown for handle in view.handles}) == 20_000


def test_nobody_reads_what_others_answered(studio: Studio, as_role: As) -> None:
    studio.store.add_queries(pairs(4))
    ann, bob = as_role("annotator", "ann"), as_role("annotator", "bob")
    for item in claim(ann, 2):
        send(ann, answer(item, note="my secret reason"))
    told = "".join(
        bob.get(path).text for path in ("/api/v1/projects", "/api/v1/projects/main", "/api/v1/projects/main/mine", "/label")
    )
    told += bob.post("/api/v1/projects/main/claims", json={"n": 4}).text
    assert "my secret reason" not in told
    assert "ann" not in json.loads(bob.get("/api/v1/projects/main/mine").text).values()
    assert bob.get("/api/v1/projects/main/mine").json()["answers"] == 0
    for path in ("/runs", "/arena", "/agreement", "/projects", "/people"):
        assert bob.get(path).status_code == 403
