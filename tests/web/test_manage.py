"""Projects, people, secrets, the audit, questions in and verdicts out: what the management API promises."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.store import Store
from backflip.web.server import Studio, application
from tests.web.conftest import HOST, pairs

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


def push(client: Any, n: int, project: str = "main", start: int = 0, **more: Any) -> Any:
    queries = [{"prompt": f"Q{i}", "completions": [f"a{i}", f"b{i}"], **more} for i in range(start, start + n)]
    return client.post(f"/api/v1/projects/{project}/queries", json={"queries": queries})


def answered(studio: Studio, n: int, *, by: str = "ann", purpose: str = "train") -> list[Verdict]:
    """`n` answers to fresh questions."""
    queries = [Query(Prompt(f"{by} {i}"), (f"a{i}", f"b{i}"), purpose=purpose) for i in range(n)]
    studio.store.add_queries(queries)
    verdicts = [Verdict(query.id, by, "left", at=float(i + 1)) for i, query in enumerate(queries)]
    studio.store.add_verdicts(verdicts)
    return verdicts


def token(client: TestClient, *scopes: str, **more: Any) -> str:
    made = client.post("/api/v1/manage/tokens", json={"scopes": list(scopes), **more})
    assert made.status_code == 201, made.text
    found: str = made.json()["token"]
    return found


def bearer(studio: Studio, carried: str) -> TestClient:
    return TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {carried}"})


# ------------------------------------------------------------------------------------------------------------ projects


def test_a_project_is_made_changed_and_listed_with_its_counts(owner: TestClient, studio: Studio) -> None:
    made = owner.put("/api/v1/manage/projects/haiku", json={"title": "Haiku", "overlap": 2, "gold_share": 0.1})
    assert made.status_code == 200
    assert made.json()["purpose"] == "haiku"
    answered(studio, 3, purpose="haiku")
    answered(studio, 2, by="bob", purpose="haiku")
    studio.store.retract(studio.store.verdicts(purpose="haiku")[0].id, "ann")
    found = {each["id"]: each for each in owner.get("/api/v1/manage/projects").json()}
    assert list(found) == ["main", "haiku"]
    counts = {"questions": 5, "answered": 4, "answers": 4, "people": 2, "golds": 0, "repeats": 0}
    assert found["haiku"]["progress"] == counts
    assert owner.get("/api/v1/projects/haiku/progress").json() == counts
    changed = owner.put("/api/v1/manage/projects/haiku", json={"question": "Which *haiku*?", "open": False})
    assert changed.json()["overlap"] == 1, "what is left out has its default"
    assert changed.json()["progress"] == counts
    assert [project["id"] for project in owner.get("/api/v1/projects").json()] == ["main"]


def test_revealing_changes_at_once(owner: TestClient, studio: Studio) -> None:
    assert studio.reveals == frozenset()
    owner.put("/api/v1/manage/projects/main", json={"purpose": "train", "reveal": True})
    assert studio.reveals == {"train"}
    owner.put("/api/v1/manage/projects/main", json={"reveal": False})
    assert studio.reveals == frozenset()


@pytest.mark.parametrize(
    ("id", "body", "said"),
    [
        ("Big", {}, "an id is up to 63 small letters"),
        ("other", {"purpose": "train"}, "asked by project main already"),
        ("main", {"purpose": "elsewhere"}, "cannot change"),
        ("other", {"purpose": "x-gold"}, "cannot be its purpose"),
        ("other", {"gold_share": 0.4, "repeat_share": 0.4}, "together at most 0.5"),
        ("other", {"overlap": 0}, "greater than or equal to 1"),
        ("other", {"overlap": "2"}, "valid integer"),
        ("other", {"open": 1}, "valid boolean"),
        ("other", {"by": "somebody"}, "not permitted"),
    ],
)
def test_a_project_that_cannot_be_is_refused_with_a_sentence(owner: TestClient, id: str, body: dict[str, Any], said: str) -> None:
    answer = owner.put(f"/api/v1/manage/projects/{id}", json=body)
    assert answer.status_code == 422
    assert said in answer.text
    assert len(owner.get("/api/v1/manage/projects").json()) == 1


def test_markdown_is_previewed_as_the_pages_show_it(owner: TestClient) -> None:
    said = owner.post("/api/v1/manage/render", json={"text": "**good** <script>x</script>"}).json()["html"]
    assert said.strip() == "<p><strong>good</strong> &lt;script&gt;x&lt;/script&gt;</p>"


def test_the_starter_set_is_loaded_once(owner: TestClient, studio: Studio) -> None:
    first = owner.post("/api/v1/manage/projects/main/starter").json()
    assert first["new"] >= 30
    assert owner.post("/api/v1/manage/projects/main/starter").json() == {"new": 0}
    asked = studio.store.queries("train")
    assert len(asked) == first["new"]
    chinese = [query for query in asked if any("\u4e00" <= letter <= "\u9fff" for letter in query.prompt.plain)]
    assert 10 < len(chinese) < len(asked) - 10
    assert all(len(set(query.completions)) == 2 for query in asked)


# -------------------------------------------------------------------------------------------------------------- people


def test_people_are_let_in_changed_and_shut_out(owner: TestClient, as_role: Callable[..., TestClient]) -> None:
    made = owner.post("/api/v1/manage/people", json={"name": "ann", "role": "annotator", "password": "correct horse"})
    assert made.status_code == 201
    assert made.json()["has_password"]
    ann = as_role(None)
    assert ann.post("/api/v1/session", json={"name": "ann", "password": "correct horse"}).status_code == 200
    assert ann.get("/api/v1/manage/people").status_code == 403
    assert owner.put("/api/v1/manage/people/ann", json={"role": "admin"}).json()["role"] == "admin"
    assert [p["name"] for p in ann.get("/api/v1/manage/people").json()] == ["owner", "ann"], "at once, in the same session"
    assert owner.put("/api/v1/manage/people/ann", json={"active": False}).json()["active"] is False
    assert ann.get("/api/v1/session").status_code == 401
    assert owner.put("/api/v1/manage/people/nobody", json={"active": False}).status_code == 404
    assert owner.put("/api/v1/manage/people/owner", json={"role": "viewer"}).status_code == 422


def test_only_an_owner_makes_or_unmakes_owners_and_admins(owner: TestClient, as_role: Callable[..., TestClient]) -> None:
    admin = as_role("admin")
    for role in ("owner", "admin"):
        assert admin.post("/api/v1/manage/people", json={"name": f"new {role}", "role": role}).status_code == 403
        assert admin.post("/api/v1/manage/invitations", json={"role": role}).status_code == 403
        assert owner.post("/api/v1/manage/people", json={"name": f"new {role}", "role": role}).status_code == 201
        assert admin.put(f"/api/v1/manage/people/new {role}", json={"role": "viewer"}).status_code == 403
        assert admin.put(f"/api/v1/manage/people/new {role}", json={"active": False}).status_code == 403
        assert admin.post(f"/api/v1/manage/people/new {role}/link").status_code == 403
        assert admin.post("/api/v1/manage/tokens", json={"person": f"new {role}", "scopes": ["read"]}).status_code == 403
    assert admin.post("/api/v1/manage/people", json={"name": "ann", "role": "annotator"}).status_code == 201
    assert admin.put("/api/v1/manage/people/ann", json={"role": "admin"}).status_code == 403
    assert admin.put("/api/v1/manage/people/ann", json={"role": "adjudicator"}).status_code == 200


def test_an_invitation_lets_one_person_in_under_a_name_of_their_own(
    owner: TestClient, as_role: Callable[..., TestClient]
) -> None:
    made = owner.post("/api/v1/manage/invitations", json={"role": "adjudicator", "hours": 1}).json()
    assert made["link"].startswith(f"{HOST}/signin#invitation=bf_")
    secret = made["link"].split("=")[1]
    (waiting,) = owner.get("/api/v1/manage/invitations").json()
    assert (waiting["by"], waiting["role"]) == ("owner", "adjudicator")
    joined = as_role(None)
    answer = joined.post("/api/v1/session", json={"invitation": secret, "name": "joe", "password": "correct horse"})
    assert answer.json()["role"] == "adjudicator"
    assert as_role(None).post("/api/v1/session", json={"invitation": secret, "name": "moe"}).status_code == 401
    assert owner.get("/api/v1/manage/invitations").json() == []


def test_an_invitation_ends_when_it_is_revoked_or_its_maker_may_no_longer_invite(
    owner: TestClient, studio: Studio, as_role: Callable[..., TestClient]
) -> None:
    owner.post("/api/v1/manage/invitations", json={"role": "annotator"})
    (waiting,) = owner.get("/api/v1/manage/invitations").json()
    assert owner.delete(f"/api/v1/manage/tokens/{waiting['id']}").status_code == 404, "an invitation is no token"
    assert owner.delete(f"/api/v1/manage/invitations/{waiting['id']}").status_code == 200
    assert owner.delete(f"/api/v1/manage/invitations/{waiting['id']}").status_code == 404
    as_role("admin").post("/api/v1/manage/invitations", json={"role": "annotator"})
    assert len(studio.accounts.held("invitation")) == 1
    owner.put("/api/v1/manage/people/the admin", json={"role": "annotator"})
    assert studio.accounts.held("invitation") == []


def test_a_link_signs_somebody_in_once(owner: TestClient, as_role: Callable[..., TestClient]) -> None:
    owner.post("/api/v1/manage/people", json={"name": "ann", "role": "annotator"})
    secret = owner.post("/api/v1/manage/people/ann/link").json()["link"].split("#")[1]
    assert as_role(None).post("/api/v1/session", json={"link": secret}).json()["name"] == "ann"
    assert as_role(None).post("/api/v1/session", json={"link": secret}).status_code == 401
    owner.put("/api/v1/manage/people/ann", json={"active": False})
    assert owner.post("/api/v1/manage/people/ann/link").status_code == 409
    assert owner.post("/api/v1/manage/people/nobody/link").status_code == 404


def test_tokens_are_issued_listed_used_and_revoked(owner: TestClient, studio: Studio) -> None:
    program = bearer(studio, token(owner, "read", days=1, note="nightly"))
    assert program.get("/api/v1/projects/main/verdicts").status_code == 200
    assert program.get("/api/v1/manage/projects").status_code == 403, "it lacks the scope"
    studio.submit(int).result()  # the note of its use is written by now
    (known,) = owner.get("/api/v1/manage/tokens").json()
    assert (known["person"], known["scopes"], known["note"]) == ("owner", ["read"], "nightly")
    assert known["used"] is not None
    assert owner.delete(f"/api/v1/manage/tokens/{known['id']}").status_code == 200
    assert program.get("/api/v1/projects/main/verdicts").status_code == 401
    assert owner.get("/api/v1/manage/tokens").json() == []


def test_a_token_is_for_oneself_or_a_program_and_passes_on_only_its_own_scopes(owner: TestClient, studio: Studio) -> None:
    owner.post("/api/v1/manage/people", json={"name": "ann", "role": "annotator", "password": "correct horse"})
    owner.post("/api/v1/manage/people", json={"name": "bot", "role": "annotator"})
    assert owner.post("/api/v1/manage/tokens", json={"person": "ann", "scopes": ["label"]}).status_code == 403
    bot = bearer(studio, token(owner, "label", person="bot"))
    assert bot.get("/api/v1/session").json()["name"] == "bot"
    narrow = bearer(studio, token(owner, "admin", "read"))
    assert narrow.post("/api/v1/manage/tokens", json={"scopes": ["read"]}).status_code == 201
    refused = narrow.post("/api/v1/manage/tokens", json={"scopes": ["read", "run"]})
    assert refused.status_code == 403
    assert "run" in refused.json()["detail"]


def test_every_change_is_in_the_audit_and_the_audit_pages_both_ways(owner: TestClient, studio: Studio) -> None:
    before = owner.get("/api/v1/manage/audit").json()["until"]
    owner.put("/api/v1/manage/projects/main", json={"title": "New"})
    owner.post("/api/v1/manage/people", json={"name": "ann", "role": "viewer"})
    owner.put("/api/v1/manage/people/ann", json={"role": "annotator"})
    owner.post("/api/v1/manage/people/ann/link")
    owner.post("/api/v1/manage/invitations", json={"role": "viewer"})
    (waiting,) = owner.get("/api/v1/manage/invitations").json()
    owner.delete(f"/api/v1/manage/invitations/{waiting['id']}")
    token(owner, "read")
    push(owner, 2)
    owner.post("/api/v1/manage/projects/main/starter")
    new = owner.get("/api/v1/manage/audit", params={"after": before}).json()
    assert [row["what"] for row in new["rows"]] == [
        "project changed", "person added", "person changed", "link issued", "invitation issued", "secret revoked",
        "token issued", "imported",
    ]  # fmt: skip
    assert {row["actor"] for row in new["rows"]} == {"owner"}
    assert not new["more"]
    assert owner.get("/api/v1/manage/audit", params={"after": new["until"]}).json() == {
        "rows": [], "until": new["until"], "more": False
    }  # fmt: skip
    pages, at = [], 2**62
    while page := owner.get("/api/v1/manage/audit", params={"before": at, "limit": 3}).json()["rows"]:
        pages.append(page)
        at = page[0]["id"]
    assert [row for page in reversed(pages) for row in page] == owner.get("/api/v1/manage/audit").json()["rows"]
    assert [row["id"] for row in owner.get("/api/v1/manage/audit", params={"after": 0, "limit": 2}).json()["rows"]] == [1, 2]


def test_the_store_is_verified_and_damage_is_said(owner: TestClient, studio: Studio) -> None:
    answered(studio, 2)
    found = owner.get("/api/v1/manage/verify").json()
    assert (found["ok"], found["verdicts"], found["queries"]) == (True, 2, 2)
    assert len(found["head"]) == 64
    with studio.store._db.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER events_no_update")
        connection.exec_driver_sql("UPDATE events SET actor = 'mallory' WHERE id = 1")
    found = owner.get("/api/v1/manage/verify").json()
    assert not found["ok"]
    assert "event 1" in found["problem"]


# --------------------------------------------------------------------------------------------------------- questions in


def test_questions_are_asked_once(owner: TestClient, studio: Studio) -> None:
    first = push(owner, 3, policies=["p", "q"], columns={"topic": "x", "deep": [1, {"a": None}]}).json()
    assert first["new"] == 3
    assert push(owner, 4, policies=["p", "q"], columns={"topic": "x", "deep": [1, {"a": None}]}).json()["new"] == 1
    asked = studio.store.queries("train")
    assert [query.id for query in asked][:3] == first["ids"]
    assert asked[0].policies == ("p", "q")
    assert asked[0].prompt.columns["deep"] == [1, {"a": None}]
    chat = {"prompt": [{"role": "user", "content": "Hi"}], "completions": ["a", "b", "c"]}
    assert owner.post("/api/v1/projects/main/queries", json={"queries": [chat]}).json()["new"] == 1
    assert studio.store.queries("train")[-1].prompt.messages[0].content == "Hi"


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "x", "completions": ["one"]},
        {"prompt": "x", "completions": "ab"},
        {"prompt": 5, "completions": ["a", "b"]},
        {"prompt": [], "completions": ["a", "b"]},
        {"prompt": "x", "completions": ["a", "b"], "policies": ["p"]},
        {"prompt": "x", "completions": ["a", "b"], "form": "hologram"},
        {"prompt": "x", "completions": ["0" * 64, "1" * 64], "form": "clip"},
        {"prompt": "x", "completions": ["a", "b"], "purpose": "test"},
        {"prompt": "x", "completions": ["a", "b"], "columns": {"deep": [[[[[[[[[[[]]]]]]]]]] * 1] * 1}, "annotator": "ann"},
    ],
)
def test_a_wrong_question_stops_the_whole_request(owner: TestClient, studio: Studio, wrong: dict[str, Any]) -> None:
    fine = {"prompt": "fine", "completions": ["a", "b"]}
    assert owner.post("/api/v1/projects/main/queries", json={"queries": [fine, wrong]}).status_code == 422
    assert studio.store.queries() == []


@pytest.mark.parametrize("columns", ['{"x": NaN}', '{"x": 1e999}', '{"x": ' + "[" * 200 + "]" * 200 + "}"])
def test_columns_that_could_not_be_read_back_are_refused(owner: TestClient, columns: str) -> None:
    body = '{"queries": [{"prompt": "x", "completions": ["a", "b"], "columns": ' + columns + "}]}"
    answer = owner.post("/api/v1/projects/main/queries", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "question 1" in answer.json()["detail"]


def test_questions_of_a_project_that_is_not_there(owner: TestClient) -> None:
    for method, path in [
        ("POST", "queries"), ("POST", "golds"), ("GET", "progress"), ("GET", "verdicts"), ("GET", "comparisons"),
    ]:  # fmt: skip
        body: dict[str, Any] = {"queries": [{"prompt": "x", "completions": ["a", "b"]}]}
        if path == "golds":
            body = {"golds": [{"prompt": "x", "completions": ["a", "b"], "choice": "tie"}]}
        answer = owner.request(method, f"/api/v1/projects/absent/{path}", json=body if method == "POST" else None)
        assert answer.status_code == 404
        assert "absent" in answer.json()["detail"]
    assert owner.post("/api/v1/manage/projects/absent/starter").status_code == 404


def test_known_answers_are_filed_apart(owner: TestClient, studio: Studio) -> None:
    golds = [{"prompt": f"G{i}", "completions": ["yes", "no"], "choice": choice} for i, choice in enumerate(("left", "tie"))]
    assert owner.post("/api/v1/projects/main/golds", json={"golds": golds}).json() == {"new": 2}
    assert owner.post("/api/v1/projects/main/golds", json={"golds": golds}).json() == {"new": 0}
    assert sorted(studio.projects.golds().values()) == ["left", "tie"]
    assert len(studio.store.queries("train-gold")) == 2
    assert studio.store.queries("train") == []
    assert owner.get("/api/v1/projects/main/progress").json()["golds"] == 2


def test_a_picture_is_kept_under_its_hash_and_asked_about(owner: TestClient) -> None:
    made = owner.post("/api/v1/media", content=PNG, headers={"content-type": "image/png"}).json()["id"]
    other = owner.post("/api/v1/media", content=PNG + b"x", headers={"content-type": "Image/PNG; x=y"}).json()["id"]
    assert owner.get(f"/api/v1/media/{made}").content == PNG
    clip = {"prompt": "", "completions": [made, other], "form": "clip"}
    assert owner.post("/api/v1/projects/main/queries", json={"queries": [clip]}).json()["new"] == 1
    for content, type in ((b"<svg/>", "image/svg+xml"), (b"<svg/>", "image/png"), (PNG, "text/html"), (b"", "image/png")):
        refused = owner.post("/api/v1/media", content=content, headers={"content-type": type})
        assert refused.status_code == 422, type


# --------------------------------------------------------------------------------------------------- files in and out


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


ROWS = [
    {"prompt": "P1", "completions": ["a", "b", "c"], "policies": ["x", "y", "z"], "purpose": "somewhere"},
    {"prompt": "P2", "chosen": "good", "rejected": "bad"},
    {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"},
    {"prompt": {"text": "P3", "columns": {"k": 1}}, "left": "l", "right": "r", "p_left": 0.0, "left_policy": "one"},
    {"prompt": [{"role": "user", "content": "P4"}], "completions": ["a", "b"], "rank": [1, 2]},
]


@pytest.mark.parametrize(
    "content", [lines(*ROWS), json.dumps(ROWS).encode(), gzip.compress(lines(*ROWS), mtime=0), b"\xef\xbb\xbf" + lines(*ROWS)]
)
def test_a_file_becomes_the_projects_questions(owner: TestClient, studio: Studio, content: bytes) -> None:
    answer = owner.post("/api/v1/import", params={"project": "main"}, content=content)
    assert answer.json() == {"rows": 5, "new": 5}
    asked = studio.store.queries("train")
    assert [query.completions for query in asked][1:4] == [("good", "bad"), (" hello", " go away"), ("l", "r")]
    assert asked[0].policies == ("x", "y", "z")
    assert asked[3].policies == ("one", "")
    assert studio.store.verdicts() == [], "whom the file prefers is nobody's answer"


def test_known_answers_come_from_a_file(owner: TestClient, studio: Studio) -> None:
    rows = [*ROWS[1:4], {"prompt": "P5", "completions": ["a", "b"], "choice": "tie"}]
    answer = owner.post("/api/v1/import", params={"project": "main", "known": "true"}, content=lines(*rows))
    assert answer.json() == {"rows": 4, "new": 4}
    assert sorted(studio.projects.golds().values()) == ["left", "left", "right", "tie"]
    wrong = lines({"prompt": "P", "completions": ["a", "b"], "choice": "skip"})
    assert "line 1" in owner.post("/api/v1/import", params={"project": "main", "known": "true"}, content=wrong).json()["detail"]
    assert owner.post("/api/v1/import", params={"known": "true"}, content=wrong).status_code == 422


BAD = [
    b"{",
    b"5",
    b"\xff\xfe",
    lines({"prompt": "x"}),
    lines({"prompt": "x", "completions": ["a"]}),
    lines({"prompt": "x", "completions": ["a", "b"], "policies": [1, 2]}),
    lines({"prompt": "x", "completions": ["a", "b"], "policies": 5}),
    lines({"prompt": {"text": 5}, "completions": ["a", "b"]}),
    lines({"prompt": {"text": "x", "columns": [1]}, "completions": ["a", "b"]}),
    lines({"prompt": {"text": [{"role": 1, "content": 2}]}, "completions": ["a", "b"]}),
    lines({"prompt": {"text": "x", "stray": 1}, "chosen": "a", "rejected": "b"}),
    lines({"kind": "query"}),
    lines({"kind": "query", "query": {"prompt": {"text": "x"}, "completions": [1, 2]}}),
    lines({"kind": "verdict", "verdict": {"query_id": "absent", "annotator": "ann", "choice": "left"}}),
    lines({"kind": "verdict", "verdict": {"query_id": "absent", "annotator": 5, "choice": "left"}}),
    lines({"kind": "retraction", "retraction": {"verdict_id": "v", "annotator": "ann", "at": "now"}}),
    lines({"kind": "people", "people": {}}),
    b'{"prompt": "\\ud800", "completions": ["a", "b"]}',
    b'{"prompt": {"text": "x", "columns": {"k": NaN}}, "completions": ["a", "b"]}',
    b'{"prompt": "x", "chosen": "a", "rejected": "b", "margin": 1e999}',
    b'{"kind": "retraction", "retraction": {"verdict_id": "v", "annotator": "ann", "at": 1' + b"0" * 400 + b"}}",
    b'{"prompt": "x", "completions": ["a", "b"], "n": ' + b"9" * 5000 + b"}",
    b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_one_bad_line_refuses_the_whole_file_and_is_named(owner: TestClient, studio: Studio, bad: bytes) -> None:
    good = lines({"prompt": "P", "completions": ["a", "b"]})
    answer = owner.post("/api/v1/import", params={"project": "main"}, content=good + b"\n\n" + bad + b"\n" + good)
    assert answer.status_code == 422, answer.text
    assert "line 3" in answer.json()["detail"]
    assert studio.store.queries() == []


BOMB = b"".join([gzip.compress(b" " * 2**20, mtime=0)] * 256)
"""A quarter of a gigabyte of spaces in a quarter of a megabyte: members of a gzip file may follow one another."""


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]", b"\x1f\x8bjunk", gzip.compress(b"x" * 99, mtime=0)[:-9], BOMB])
def test_a_file_with_nothing_usable_in_it(owner: TestClient, content: bytes) -> None:
    answer = owner.post("/api/v1/import", content=content)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the file")


def test_export_and_import_carry_a_store(owner: TestClient, studio: Studio, tmp_path: Any) -> None:
    answered(studio, 3)
    studio.store.retract(studio.store.verdicts()[0].id, "ann")
    answer = owner.get("/api/v1/export")
    assert answer.headers["content-type"] == "application/jsonl"
    assert "attachment" in answer.headers["content-disposition"]
    assert len(answer.content.splitlines()) == 7
    with Store(tmp_path / "other.db") as store:
        other = Studio(store, tmp_path)
        other.begin()
        fresh = TestClient(application(other), base_url=HOST)
        fresh.post("/api/v1/session", json={"link": other.begin()})
        assert fresh.post("/api/v1/import", content=answer.content).json() == {"rows": 7, "new": 7}
        assert fresh.post("/api/v1/import", content=answer.content).json() == {"rows": 7, "new": 0}
        assert fresh.get("/api/v1/export").content == answer.content


# --------------------------------------------------------------------------------------------------------- verdicts out


def every(client: Any, kind: str, **params: Any) -> tuple[list[Any], int]:
    """All rows, page by page, and the last cursor."""
    rows, since = [], 0
    while True:
        page = client.get(f"/api/v1/projects/main/{kind}", params={"since": since, **params}).json()
        rows += page["rows"]
        assert page["until"] >= since
        since = page["until"]
        if not page["more"]:
            return rows, since


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_are_whole_whatever_their_size(owner: TestClient, studio: Studio, limit: int) -> None:
    given = answered(studio, 7)
    answered(studio, 3, purpose="arena")
    studio.store.retract(given[2].id, "ann")
    rows, until = every(owner, "verdicts", limit=limit)
    assert [row.pop("id") for row in rows] == [verdict.id for verdict in given if verdict is not given[2]]
    assert [Verdict.from_json(row) for row in rows] == studio.store.verdicts(purpose="train")
    assert until == studio.store.cursor
    rows, _ = every(owner, "comparisons", limit=limit)
    assert [Comparison.from_json(row) for row in rows] == studio.store.comparisons()


def test_nothing_is_missed_or_doubled_while_somebody_writes(owner: TestClient, studio: Studio) -> None:
    studio.store.add_queries(pairs(300))
    ids = [query.id for query in studio.store.queries()]

    def write() -> None:
        for i, id in enumerate(ids):
            studio.submit(studio.store.add_verdicts, [Verdict(id, "ann", "left", at=i + 1.0)]).result()

    writer = threading.Thread(target=write)
    writer.start()
    rows, since = [], 0
    while len(rows) < 300:
        page = owner.get("/api/v1/projects/main/verdicts", params={"since": since, "limit": 7}).json()
        rows += [row["query_id"] for row in page["rows"]]
        since = page["until"]
    writer.join()
    assert rows == ids
    assert owner.get("/api/v1/projects/main/verdicts", params={"since": since}).json() == {
        "rows": [], "until": since, "more": False
    }  # fmt: skip


def test_a_ranking_comes_out_as_its_pairs_and_a_rating_as_scores(owner: TestClient, studio: Studio) -> None:
    query = Query(Prompt("P", {"topic": "x"}), ("a", "b", "c"), policies=("x", "y", "z"))
    studio.store.add_queries([query])
    studio.store.add_verdicts([
        Verdict(query.id, "ann", "ranking", ((1,), (0, 2)), at=1.0), Verdict(query.id, "bob", "rating", scores=(1, 2, 3), at=2.0),
        Verdict(query.id, "cat", "skip", code="unsafe", at=3.0),
    ])  # fmt: skip
    rows, _ = every(owner, "comparisons", limit=1)
    assert len(rows) == 6
    assert rows[0]["prompt"] == {"text": "P", "columns": {"topic": "x"}}
    verdicts, _ = every(owner, "verdicts")
    assert [row["ranking"] for row in verdicts] == [[[1], [0, 2]], [], []]
    assert [row["scores"] for row in verdicts] == [[], [1, 2, 3], []]
    assert verdicts[2]["code"] == "unsafe"
