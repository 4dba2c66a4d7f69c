"""What must not work: forged requests, foreign names, paths that lead out, text that runs, guessing, and secrets that leak."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import argon2
import httpx
import pytest
from fastapi.testclient import TestClient

from backflip.store import accounts
from backflip.web import security
from backflip.web.security import Bucket
from backflip.web.server import Studio, application
from tests.web.conftest import HOST, pairs
from tests.web.routes import UNSAFE, api, filled, parameters, routes

As = Callable[..., TestClient]
REFUSED = "this request comes from another site and was refused"
SECRET = re.compile(r"bf_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")


@pytest.fixture(autouse=True)
def quick(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of news end at once, hashing a password takes no time, and the clock of whoever guesses stands still."""
    studio.closing.set()
    studio.guesses = Bucket(0.2, 10, clock=lambda: 0.0)
    cheap = functools.partial(argon2.PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(argon2, "PasswordHasher", cheap)
    monkeypatch.setattr(accounts, "_decoy", [])


# ---------------------------------------------------------------------------------------------------------- whose names


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8042", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8042"])
def test_the_studio_answers_to_its_own_names(owner: TestClient, host: str) -> None:
    assert owner.get("/api/v1/session", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8042", "127.0.0.1.evil.example", "localhost.evil.example", "localhost.", "evil@localhost",
        "localhost:evil", "localhost:80@evil", "[::1].evil.example", "[::1]evil", "[::2]", "0.0.0.0", "", " localhost",
        "localhost, evil.example", "169.254.169.254", "2130706433", "localhost/", "127.1",
    ],
)  # fmt: skip
def test_and_to_no_other(owner: TestClient, host: str) -> None:
    answer = owner.get("/api/v1/session", headers={"host": host, "x-forwarded-host": "localhost", "forwarded": "host=localhost"})
    assert answer.status_code == 421
    assert owner.get("/label", headers={"host": host}).status_code == 421
    assert owner.get("/static/app.css", headers={"host": host}).status_code == 421


def test_a_name_can_be_added(studio: Studio) -> None:
    client = TestClient(application(studio, hosts=("studio.example",)), base_url="https://studio.example")
    assert client.get("/signin").status_code == 200
    client.post("/api/v1/session", json={"link": studio.begin()})
    assert client.get("/signin", headers={"host": "localhost"}).status_code == 421


# ------------------------------------------------------------------------------------------------------- forged requests

FOREIGN = [
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": ""}, {"sec-fetch-site": "evil"},
    {"sec-fetch-site": "cross-site", "origin": HOST}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": ""},
    {"origin": f"{HOST}:9999"}, {"origin": "http://localhost"}, {"origin": f"{HOST}.evil.example"}, {"origin": "http://127.0.0.1@evil"},
    {"origin": "127.0.0.1"},
]  # fmt: skip
OWN = [
    {},
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {"origin": HOST},
    {"sec-fetch-site": "same-origin", "origin": "null"},
]


def unsafe() -> list[tuple[str, str]]:
    return [(method, path) for method, path in routes() if method in UNSAFE]


def came_through(client: Any, method: str, path: str, headers: dict[str, str]) -> bool:
    """Whether a request was looked at, rather than refused for where it comes from."""
    answer = client.request(method, filled(path), content=b"no json", headers=headers)
    return not (answer.status_code == 403 and answer.json()["detail"] == REFUSED)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_other_site_can_change_anything(owner: TestClient, headers: dict[str, str]) -> None:
    assert len(unsafe()) > 20
    assert [each for each in unsafe() if came_through(owner, *each, headers)] == []
    assert owner.get("/api/v1/session").status_code == 200


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_our_own_pages_can(owner: TestClient, headers: dict[str, str]) -> None:
    assert [each for each in unsafe() if "session" not in each[1] and not came_through(owner, *each, headers)] == []


def test_a_program_with_a_token_and_no_cookie_needs_no_origin(owner: TestClient, studio: Studio) -> None:
    token = owner.post("/api/v1/manage/tokens", json={"scopes": ["admin"]}).json()["token"]
    program = {"authorization": f"Bearer {token}", "origin": "https://evil.example"}
    bare = TestClient(application(studio), base_url=HOST)
    assert all(came_through(bare, *each, program) for each in unsafe() if "session" not in each[1])
    assert not any(came_through(owner, *each, program) for each in unsafe()), "with a cookie it may be a browser"
    junk = {"authorization": "Bearer junk", "origin": "https://evil.example"}
    assert bare.put("/api/v1/manage/projects/x", json={}, headers=junk).status_code == 401


@pytest.mark.parametrize("type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_a_form_is_no_json(owner: TestClient, type: str) -> None:
    body = json.dumps({"name": "mallory", "role": "owner"})
    answer = owner.post("/api/v1/manage/people", content=body, headers={"content-type": type} if type else {})
    assert answer.status_code == 422
    assert len(owner.get("/api/v1/manage/people").json()) == 1


def test_the_cookie_is_for_this_site_and_no_script(studio: Studio) -> None:
    client = TestClient(application(studio), base_url=HOST)
    cookie = client.post("/api/v1/session", json={"link": studio.begin()}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    secure = TestClient(application(studio), base_url="https://127.0.0.1")
    assert "secure" in secure.post("/api/v1/session", json={"link": studio.begin()}).headers["set-cookie"].lower()


# ------------------------------------------------------------------------------------------------------ who somebody is

ALIASES = ("user", "user_id", "actor", "annotator", "by", "person_name", "role", "owner", "on_behalf_of")


def test_no_field_of_a_request_says_who_asks(owner: TestClient, as_role: As, studio: Studio) -> None:
    studio.store.add_queries(pairs(1))
    ann = as_role("annotator", "ann")
    claimed = dict.fromkeys(ALIASES, "owner")
    headers = {"x-user": "owner", "x-forwarded-user": "owner", "remote-user": "owner", "from": "owner"}
    (item,) = ann.post("/api/v1/projects/main/claims", json={}, params=claimed, headers=headers).json()["items"]
    event = {"kind": "answer", "key": "k" * 10, "view": item["view"]}
    stolen = owner.post("/api/v1/events", json={"events": [event]}, params={"user": "ann", "actor": "ann"}).json()["outcomes"][0]
    assert (stolen["status"], "somebody else" in stolen["error"]) == ("refused", True)
    answer = ann.post("/api/v1/events", json={"events": [event]}, params=claimed, headers=headers)
    assert answer.json()["outcomes"][0]["status"] == "stored"
    assert [verdict.annotator for verdict in studio.store.verdicts()] == ["ann"]
    ann.cookies.set("user", "owner")
    assert ann.get("/api/v1/session", params=claimed, headers=headers).json()["name"] == "ann"


def test_every_body_refuses_fields_that_it_does_not_know(owner: TestClient, studio: Studio) -> None:
    described = application(studio).openapi()
    schemas = described["components"]["schemas"]
    bodies = [
        content["application/json"]["schema"]["$ref"].split("/")[-1]
        for methods in described["paths"].values()
        for operation in methods.values()
        if "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
    ]
    assert len(bodies) > 12

    def inside(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if "$ref" in schema:
                yield schema["$ref"].split("/")[-1]
            for part in schema.values():
                yield from inside(part)
        elif isinstance(schema, list):
            for part in schema:
                yield from inside(part)

    seen: set[str] = set()
    while bodies:
        name = bodies.pop()
        if name not in seen:
            seen.add(name)
            bodies += inside(schemas[name])
    loose = [
        name for name in seen if schemas[name].get("type") == "object" and schemas[name].get("additionalProperties") is not False
    ]
    assert loose == []
    for method, path in unsafe():
        if api()[(method, path)].body_field is not None and "session" not in path:
            answer = owner.request(method, filled(path), json=dict.fromkeys(ALIASES, "owner"))
            assert answer.status_code in (404, 422), path
            assert answer.status_code == 404 or "not permitted" in answer.text or "body." in answer.text, path


def test_an_error_does_not_repeat_what_was_sent(owner: TestClient) -> None:
    for path, body in (
        ("session", {"link": "secret one" * 20, "password": 5}),
        ("manage/people", {"name": "x", "role": "y", "password": "secret one"}),
        ("manage/render", {"text": ["secret one"]}), ("events", {"events": [{"kind": "answer", "note": "secret one"}]}),
    ):  # fmt: skip
        answer = owner.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 422
        assert isinstance(answer.json()["detail"], str)
        assert "secret one" not in answer.text


HALVES = [r"\ud800", r"x\udfff", r"\u0000", r"\ud83d\ud83d"]
FIELDS = {
    "POST projects/main/queries": [
        {"queries": [{"prompt": "%", "completions": ["a", "%"], "policies": ["%", "b"], "columns": {"%": "%"}}]},
        {"queries": [{"prompt": "x", "completions": ["a", "b"], "columns": {"%": ["%"]}}]},
    ],
    "POST projects/main/golds": [{"golds": [{"prompt": "%", "completions": ["a", "b"], "choice": "tie"}]}],
    "PUT manage/projects/main": [{"title": "%", "question": "%", "guideline": "%"}],
    "PUT manage/projects/new": [{"purpose": "%"}],
    "POST manage/people": [{"name": "%", "role": "viewer"}, {"name": "p", "role": "viewer", "password": "long enough %"}],
    "POST manage/render": [{"text": "%"}],
    "POST manage/tokens": [{"scopes": ["read"], "note": "%"}, {"scopes": ["read"], "person": "%"}],
    "POST heartbeat": [{"views": ["%"]}],
    "POST projects/main/claims": [{"have": ["%"], "%": 1}],
    "POST session": [{"name": "%", "password": "%"}, {"link": "%"}],
    "POST events": [
        {"events": [{"kind": "flag", "key": "k2345678", "view": "VIEW", "note": "%"}]},
        {"events": [{"kind": "answer", "key": "k2345679", "view": "VIEW", "note": "%", "seen": {"%": 1}}]},
        {"events": [{"kind": "%", "key": "%", "view": "%"}]},
    ],
    "POST import": [
        {"prompt": "%", "completions": ["a", "b"]},
        {"kind": "query", "query": {"prompt": {"text": "%"}, "completions": ["a", "b"], "purpose": "%"}},
        {"%": 1},
    ],
}


@pytest.mark.parametrize("half", HALVES)
def test_half_characters_are_refused_or_kept_and_break_nothing(owner: TestClient, studio: Studio, half: str) -> None:
    studio.store.add_queries(pairs(1))
    view = owner.post("/api/v1/projects/main/claims", json={}).json()["items"][0]["view"]
    for line, body in ((line, body) for line, bodies in FIELDS.items() for body in bodies):
        method, path = line.split(" ")
        content = json.dumps(body).replace("%", half).replace("VIEW", view).encode()
        answer = owner.request(method, f"/api/v1/{path}", content=content, headers={"content-type": "application/json"})
        assert answer.status_code < 500, (line, body)
        assert answer.json()
    for path in ("projects/main", "manage/projects", "manage/people", "manage/audit", "projects/main/verdicts", "export"):
        assert owner.get(f"/api/v1/{path}").status_code == 200, path
    assert owner.post("/api/v1/projects/main/claims", json={"n": 64}).status_code == 200
    assert owner.get("/api/v1/manage/verify").json()["ok"]


# ------------------------------------------------------------------------------------------------- paths that lead out

PLACES = [
    "../", "../../", "..%2f", "%2e%2e%2f", "..%252f", "....//", "..\\", "..%5c", "/", "//", "%2f", "file://", "file:%2f%2f",
    "C:%5c", "%5c%5chost%5c", "~/", "./", "%00/", "..;/", "\u2025/", "%c0%ae%c0%ae/",
]  # fmt: skip
TARGETS = ["etc/passwd", "secret"]
CANARY = "canary-7f3a"


@pytest.fixture
def canary(studio: Studio, tmp_path: Path) -> None:
    """A run outside the folder of runs, which nothing may show, and one inside it."""
    for folder in (tmp_path / "secret", studio.runs / "mine"):
        folder.mkdir(parents=True)
        inside = folder.parent == studio.runs
        said = {"kind": "fine" if inside else CANARY, "settings": {"note": "fine" if inside else CANARY}}
        (folder / "run.json").write_text(json.dumps(said))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward": 1.0}) + "\n")


def test_no_path_leads_out(owner: TestClient, canary: None, tmp_path: Path) -> None:
    """Every parameter of every path, and the static files, with a corpus of ways out."""
    tried = 0
    for method, path in [*routes(), ("GET", "/static/{file}"), ("GET", "/{anything}")]:
        for parameter in parameters(path):
            name = parameter.split(":")[0]
            for place in PLACES if method == "GET" else PLACES[:6]:
                for target in [*TARGETS, f"{tmp_path}/secret"] if method == "GET" else TARGETS[:1]:
                    url = filled(path, **{name: place + target})
                    if url.startswith("//"):  # which a client takes for another host
                        url = f"{HOST}{url}"
                    answer = owner.request(method, url, json={} if method in UNSAFE else None, follow_redirects=False)
                    tried += 1
                    assert answer.status_code < 500, url
                    assert CANARY not in answer.text, url
                    assert "root:x:0" not in answer.text, url
                    assert "SQLite format" not in answer.text, url
    assert tried > 700


def test_a_link_in_the_folder_of_runs_is_not_followed_out(
    owner: TestClient, canary: None, studio: Studio, tmp_path: Path
) -> None:
    (studio.runs / "inviting").symlink_to(tmp_path / "secret")
    assert CANARY not in owner.get("/api/v1/runs").text
    assert CANARY not in owner.get("/api/v1/runs/inviting/card").text


def test_raw_paths_that_no_client_would_send(owner: TestClient, studio: Studio) -> None:
    app = application(studio)

    async def status(path: str) -> int:
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(errors="ignore"), "query_string": b"a=%ff",
            "headers": [(b"host", b"localhost")], "scheme": "http", "server": ("127.0.0.1", 80), "client": None, "root_path": "",
            "http_version": "1.1",
        }  # fmt: skip
        await app(scope, receive, send)
        return int(said[0]["status"])

    odd = [
        "",
        "*",
        "//",
        "/\0",
        "/static/../server.py",
        "/static//etc/passwd",
        "/static/\0",
        "/label/" + "x" * 9000,
        "/\ud800",
        "x:/",
    ]
    elsewhere = ThreadPoolExecutor(1)  # a browser of another test may have a loop in this thread
    for path in odd:
        assert elsewhere.submit(anyio.run, status, path).result() in (200, 303, 307, 401, 404), path


# ------------------------------------------------------------------------------------- addresses that the server might fetch

ADDRESSES = [
    "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:22/", "http://[::1]/", "file:///etc/passwd", "gopher://x:70/_",
    "http://2130706433/", "//evil.example/x", "ftp://evil.example/x", "evil/dataset", "org/name:train", "\\\\evil\\share",
]  # fmt: skip


def test_no_address_in_a_request_is_fetched(owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def caught(*args: Any, **kwargs: Any) -> None:
        called.append(args)
        raise OSError("the studio fetches nothing")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, caught)
    monkeypatch.setattr(socket, "getaddrinfo", caught)
    monkeypatch.setattr(socket, "create_connection", caught)
    for address in ADDRESSES:
        clip = {"prompt": address, "completions": [address, address + "?"], "form": "clip"}
        text = {
            "prompt": f"![x]({address}) <{address}> [y]({address})",
            "completions": [address, f"![]({address})"],
            "policies": [address, "b"],
        }
        board = {
            "prompt": address,
            "completions": [json.dumps({"url": address}), json.dumps({"image": address})],
            "form": "board",
        }
        for query in (clip, text, board):
            owner.post("/api/v1/projects/main/queries", json={"queries": [query]})
        row = {"prompt": {"text": address, "columns": {"url": address}}, "completions": [address, "x"]}
        owner.post("/api/v1/import", content=json.dumps(row), params={"project": "main"})
        owner.post("/api/v1/import", content=address)
        owner.post("/api/v1/media", content=address.encode(), headers={"content-type": "video/webm"})
        owner.put("/api/v1/manage/projects/main", json={"question": f"![x]({address})", "guideline": address, "title": address})
        owner.post("/api/v1/manage/render", json={"text": f"![x]({address}) [y]({address})"})
        owner.post("/api/v1/chat", json={"policy": address, "messages": [{"role": "user", "content": address}]})
        owner.get("/api/v1/runs", params={"run": address})
        owner.post("/api/v1/projects/main/claims", json={"n": 64})
    assert called == []


# ------------------------------------------------------------------------------------------------------------- how much


def chunks(size: int, part: bytes = b"x" * 4096) -> Iterator[bytes]:
    for _ in range(size // len(part) + 1):
        yield part


def test_a_body_is_read_up_to_a_limit(owner: TestClient) -> None:
    too_large = b'{"text": "' + b"x" * security.BODY + b'"}'
    json_type = {"content-type": "application/json"}
    for method, path in unsafe():
        if security.BODY and not re.fullmatch(r"/api/v1/(import|media|projects/.*/(queries|golds))", path):
            declared = owner.request(method, filled(path), content=too_large, headers=json_type)
            assert declared.status_code == 413, path
            if api()[(method, path)].body_field is not None:  # said nothing about its size, and read until it is too much
                undeclared = owner.request(method, filled(path), content=chunks(security.BODY + 1), headers=json_type)
                assert undeclared.status_code == 413, path
    assert owner.post(
        "/api/v1/manage/render", content=b'{"text": "x"}', headers={**json_type, "content-length": "9" * 30}
    ).status_code in (200, 400, 413)


def test_files_may_be_larger_from_somebody_who_is_signed_in(
    owner: TestClient, as_role: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = json.dumps({"prompt": "x" * (security.BODY + 1), "completions": ["a", "b"]}).encode()
    assert owner.post("/api/v1/import", content=row, params={"project": "main"}).status_code == 200
    stranger = as_role(None)
    assert stranger.post("/api/v1/import", content=row).status_code == 413
    assert stranger.post("/api/v1/import", content=chunks(security.BODY + 1)).status_code == 401, "not even read"
    assert (
        stranger.post(
            "/api/v1/projects/main/queries", content=chunks(security.BODY + 1), headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    monkeypatch.setattr(security, "LARGE_BODY", 2 * security.BODY)
    assert owner.post("/api/v1/import", content=b"x" * (2 * security.BODY + 1)).status_code == 413
    assert owner.post("/api/v1/import", content=chunks(2 * security.BODY + 1)).status_code == 413
    assert (
        owner.post("/api/v1/media", content=chunks(2 * security.BODY + 1), headers={"content-type": "image/png"}).status_code
        == 413
    )


def limited(studio: Studio, **cookies: str) -> TestClient:
    return TestClient(application(studio, limit=Bucket(1, 5, clock=lambda: 0.0)), base_url=HOST, cookies=cookies)


def test_whoever_asks_too_often_waits(studio: Studio) -> None:
    app = application(studio, limit=Bucket(2, 5, clock=lambda: 0.0))
    carried = [studio.accounts.issue("token", "owner", by="test", seconds=60, body={"scopes": ["read"]}) for _ in range(2)]
    first, second = (TestClient(app, base_url=HOST, headers={"authorization": f"Bearer {each}"}) for each in carried)
    assert [first.get("/api/v1/session").status_code for _ in range(6)] == [200] * 5 + [429]
    answer = first.get("/api/v1/session")
    assert int(answer.headers["retry-after"]) >= 1
    assert "try again" in answer.json()["detail"]
    assert second.get("/api/v1/session").status_code == 200, "each for itself"


def test_a_stranger_does_not_escape_the_limit_with_new_names(studio: Studio) -> None:
    app = application(studio, limit=Bucket(1, 5, clock=lambda: 0.0))
    carried = studio.accounts.issue("token", "owner", by="test", seconds=60, body={"scopes": ["read"]})
    stranger = TestClient(app, base_url=HOST)
    said = [
        stranger.get("/api/v1/session", headers={"authorization": f"Bearer bf_{i:016x}_{'x' * 43}"}).status_code for i in range(7)
    ]  # fmt: skip
    assert said == [401] * 5 + [429] * 2
    pretending = {"authorization": f"Bearer {carried[:20]}{'x' * 43}"}
    assert stranger.get("/api/v1/session", headers=pretending).status_code == 429
    real = TestClient(app, base_url=HOST, headers={"authorization": f"Bearer {carried}"})
    assert real.get("/api/v1/session").status_code == 200, "nobody spends another's share"


# ----------------------------------------------------------------------------------------------------------- guessing


def test_guessing_passwords_is_slow(studio: Studio, as_role: As) -> None:
    studio.accounts.add("ann", "annotator", by="test", password="correct horse")
    client = as_role(None)
    said = [client.post("/api/v1/session", json={"name": "ann", "password": f"guess {i}"}) for i in range(12)]
    assert [answer.status_code for answer in said] == [401] * 10 + [429] * 2
    assert int(said[-1].headers["retry-after"]) >= 1
    assert client.post("/api/v1/session", json={"name": "ann", "password": "correct horse"}).status_code == 429
    assert len({answer.json()["detail"] for answer in said[:10]}) == 1


def test_guessing_links_and_invitations_is_slow_too(as_role: As) -> None:
    client = as_role(None)
    carried = [f"bf_{i:016x}_{'x' * 43}" for i in range(12)]
    said = [
        client.post("/api/v1/session", json={"link" if i % 2 else "invitation": each, "name": ""})
        for i, each in enumerate(carried)
    ]
    assert [answer.status_code for answer in said] == [401] * 10 + [429] * 2


def test_signing_in_rightly_counts_for_nothing(studio: Studio, as_role: As) -> None:
    client = as_role(None)
    for _ in range(25):
        link = studio.accounts.issue("link", "owner", by="test", seconds=60)
        assert client.post("/api/v1/session", json={"link": link}).status_code == 200


def test_an_unknown_name_takes_as_long_as_a_wrong_password(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.accounts.add("ann", "annotator", by="test", password="correct horse")
    studio.accounts.add("bot", "annotator", by="test")
    studio.accounts.add("gone", "annotator", by="test", password="correct horse")
    studio.accounts.change("gone", by="test", active=False)
    verified: list[str] = []
    real = accounts._verify
    monkeypatch.setattr(accounts, "_verify", lambda hashed, password: verified.append(hashed) or real(hashed, password))
    for name in ("ann", "bot", "gone", "nobody", ""):
        assert studio.accounts.check_password(name, "wrong password") is None
    assert len(verified) == 5
    assert all(each.startswith("$argon2id$") for each in verified)
    assert studio.accounts.check_password("gone", "correct horse") is None


# ------------------------------------------------------------------------------------------------------------- headers


def check_headers(answer: httpx.Response, what: str) -> None:
    """The headers that every response has."""
    for name, value in security.HEADERS:
        assert answer.headers.get(name.decode()) == value.decode(), (what, name)
    assert "cache-control" in answer.headers, what
    assert "server" not in answer.headers, what
    assert "access-control-allow-origin" not in answer.headers, what


def test_every_response_has_its_headers(studio: Studio, owner: TestClient, as_role: As, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, path in routes():
        if "session" not in path:
            check_headers(owner.request(method, filled(path), json={} if method in UNSAFE else None), f"{method} {path}")
            check_headers(as_role(None).request(method, filled(path), follow_redirects=False), f"a stranger's {method} {path}")
    for path in (
        "/static/app.css",
        "/static/absent",
        "/absent",
        "/api/v1/absent",
        "/openapi.json",
        "/favicon.ico",
        "/api/absent/x/y",
    ):
        check_headers(owner.get(path), path)
    for method in ("PATCH", "OPTIONS", "HEAD", "TRACE", "FOO"):
        check_headers(owner.request(method, "/api/v1/session"), method)
    check_headers(owner.get("/api/v1/session", headers={"host": "evil.example"}), "421")
    check_headers(owner.post("/api/v1/session", headers={"origin": "https://evil.example"}), "403")
    check_headers(owner.post("/api/v1/events", content=b"x" * (security.BODY + 1)), "413")
    check_headers(
        owner.post("/api/v1/events", content=chunks(security.BODY + 1), headers={"content-type": "application/json"}), "413"
    )
    check_headers(owner.post("/api/v1/events", content=b"{", headers={"content-type": "application/json"}), "422")
    busy = limited(studio)
    check_headers([busy.get("/signin") for _ in range(6)][-1], "429")

    def broken() -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(studio.projects, "all", broken)
    client = TestClient(application(studio), base_url=HOST, cookies=dict(owner.cookies), raise_server_exceptions=False)
    answer = client.get("/api/v1/projects")
    assert answer.status_code == 500
    assert CANARY not in answer.text
    check_headers(answer, "500")


def test_pages_may_run_our_scripts_alone(owner: TestClient) -> None:
    policy = dict(part.strip().split(" ", 1) for part in owner.get("/label").headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    page = owner.get("/people").text
    assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", page)
    assert not re.search(r"\sstyle=|\son\w+=", page)


def test_media_cannot_be_taken_for_a_page(owner: TestClient) -> None:
    for content, type in ((b"\x89PNG\r\n\x1a\n<script>", "image/png"), (b"\x1a\x45\xdf\xa3<html>", "video/webm")):
        name = owner.post("/api/v1/media", content=content, headers={"content-type": type}).json()["id"]
        answer = owner.get(f"/api/v1/media/{name}")
        assert answer.headers["content-type"] == type
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        check_headers(answer, type)


# -------------------------------------------------------------------------------------------------------------- secrets


def test_secrets_stand_in_the_one_response_that_issues_them(
    studio: Studio, as_role: As, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    client = as_role(None)
    link = studio.begin()
    secrets = [link, "a long enough password", "another long password"]
    cookie = client.post("/api/v1/session", json={"link": link}).headers["set-cookie"]
    secrets += SECRET.findall(cookie)
    client.post("/api/v1/manage/people", json={"name": "ann", "role": "annotator", "password": secrets[1]})
    for path, body in (
        ("tokens", {"scopes": ["label", "read", "run", "admin"]}), ("invitations", {"role": "viewer"}),
        ("people/owner/link", None),
    ):  # fmt: skip
        issued = client.post(f"/api/v1/manage/{path}", json=body)
        assert len(SECRET.findall(issued.text)) == 1
        secrets += SECRET.findall(issued.text)
    program = TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {secrets[-3]}"})
    assert program.get("/api/v1/session").status_code == 200
    for wrong in (
        {"link": secrets[-1] + "x"},
        {"name": "ann", "password": secrets[2]},
        {"invitation": secrets[-2], "name": "/"},
        {"password": 5, "link": secrets[-2]},
    ):
        as_role(None).post("/api/v1/session", json=wrong)
    hidden = [each[20:] if each.startswith("bf_") else each for each in secrets]
    assert len(hidden) == 7
    for (method, path), asker in ((key, asker) for key in routes() for asker in (client, program)):
        if "session" not in path:
            answer = asker.request(method, filled(path), json={} if method in UNSAFE else None)
            found = [each for each in hidden if each in answer.text + str(answer.headers)]
            assert found == [], f"{method} {path}"
    assert [each for each in hidden if each in caplog.text] == []
    studio.store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("feedback.db*"))
    assert [each for each in hidden if each.encode() in stored] == []
    hashes = re.findall(rb"[0-9a-f]{64}|\$argon2id\$[^\s\"]{20,}", stored)
    assert hashes, "what is stored instead"


def test_the_output_of_a_served_studio_holds_nothing_but_the_first_link(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from backflip.cli.main import main; raise SystemExit(main())",
        "studio",
        str(tmp_path / "f.db"),
    ]
    command += ["--port", "0", "--no-browser", "--runs", str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(security.__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = ""
        while "signin#" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        address, first = re.search(r"(http://\S+)/signin#(\S+)", said).groups()  # type: ignore[union-attr]
        with httpx.Client(base_url=address, trust_env=False) as client:
            cookie = client.post("/api/v1/session", json={"link": first}).headers["set-cookie"]
            token = client.post("/api/v1/manage/tokens", json={"scopes": ["read"]}).json()["token"]
            invitation = client.post("/api/v1/manage/invitations", json={"role": "viewer"}).json()["link"]
            for path in ("/api/v1/session", f"/api/v1/media/{token}", f"/absent?{token}"):
                client.get(path, headers={"authorization": f"Bearer {token}"})
            client.post("/api/v1/session", json={"name": "owner", "password": "wrong password here"})
            client.post("/api/v1/session", content=b"{" + token.encode(), headers={"content-type": "application/json"})
            client.put("/api/v1/session/password", json={"password": "the new password"})
        process.terminate()
        rest = process.communicate(timeout=20)[0]
    finally:
        process.kill()
    for secret in (*SECRET.findall(cookie), token, *SECRET.findall(invitation), "wrong password here", "the new password"):
        assert secret not in said + rest
    assert SECRET.findall(rest) == []
    assert SECRET.findall(said) == [first]


def test_sessions_and_tokens_end_with_the_password_and_with_the_person(studio: Studio, owner: TestClient, as_role: As) -> None:
    studio.accounts.add("ann", "admin", by="test", password="correct horse")
    for end in ("password", "deactivation", "signing out"):
        one, two = as_role("admin", "ann"), as_role("admin", "ann")
        token = one.post("/api/v1/manage/tokens", json={"scopes": ["read", "label", "admin"]}).json()["token"]
        program = TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {token}"})
        one.post("/api/v1/manage/invitations", json={"role": "annotator"})
        assert [each.get("/api/v1/session").status_code for each in (one, two, program)] == [200] * 3
        if end == "password":
            assert one.put("/api/v1/session/password", json={"password": "a better horse"}).status_code == 200
        elif end == "deactivation":
            assert owner.put("/api/v1/manage/people/ann", json={"active": False}).status_code == 200
            assert owner.put("/api/v1/manage/people/ann", json={"active": True}).status_code == 200
        else:
            assert one.delete("/api/v1/session").status_code == 200
        ended = [401, 401, 401] if end != "signing out" else [401, 200, 200]
        assert [each.get("/api/v1/session").status_code for each in (one, two, program)] == ended, end
        held = [
            secret
            for kind in ("token", "invitation", "session")
            for secret in studio.accounts.held(kind)
            if secret.holder == "ann"
        ]  # type: ignore[arg-type]
        assert (held == []) == (end != "signing out")


def test_a_password_that_is_too_short_changes_nothing(owner: TestClient) -> None:
    assert owner.put("/api/v1/session/password", json={"password": "short"}).status_code == 422
    assert owner.get("/api/v1/session").status_code == 200
