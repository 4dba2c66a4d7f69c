"""Who may call what: every role and every token scope against every route. A route that is missing here fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route

from backflip.store.accounts import ROLES, SCOPES, Secret
from backflip.web.identity import MAY, Actor, need, someone
from backflip.web.pages import PAGES
from backflip.web.server import Studio, application
from tests.web.conftest import HOST
from tests.web.routes import Key, api, filled, permissions

PUBLIC: set[Key] = {("POST", "/api/v1/session")}
"""The routes of the API that anybody may call: signing in is the only one."""
NEEDS: dict[str, str] = {
    "GET /api/v1/session": "someone",
    "PUT /api/v1/session/password": "someone",
    "DELETE /api/v1/session": "someone",
    "GET /api/v1/projects": "label",
    "GET /api/v1/projects/{project}": "label",
    "POST /api/v1/projects/{project}/claims": "label",
    "POST /api/v1/events": "label",
    "POST /api/v1/heartbeat": "label",
    "POST /api/v1/release": "label",
    "GET /api/v1/projects/{project}/mine": "label",
    "GET /api/v1/media/{name}": "label",
    "GET /api/v1/runs": "read",
    "GET /api/v1/runs/stream": "read",
    "GET /api/v1/runs/{id:path}/stream": "read",
    "GET /api/v1/runs/{id:path}/card": "read",
    "GET /api/v1/runs/{id:path}/guard": "read",
    "GET /api/v1/runs/{id:path}/series": "read",
    "GET /api/v1/runs/{id:path}/samples": "read",
    "POST /api/v1/runs/{id:path}/control": "run",
    "POST /api/v1/runs/{id:path}/label": "run",
    "GET /api/v1/arena": "read",
    "GET /api/v1/arena/project": "label",
    "GET /api/v1/arena/offers": "run",
    "POST /api/v1/arena/queue": "run",
    "GET /api/v1/chat/policies": "run",
    "POST /api/v1/chat": "run",
    "GET /api/v1/agreement": "read",
    "GET /api/v1/agreement/{project}": "read",
    "GET /api/v1/agreement/{project}/items/{query}": "read",
    "GET /api/v1/agreement/{project}/adjudications": "read",
    "POST /api/v1/agreement/{project}/adjudications": "adjudicate",
    "GET /api/v1/manage/projects": "admin",
    "GET /api/v1/manage/projects/{project}": "admin",
    "PUT /api/v1/manage/projects/{project}": "admin",
    "POST /api/v1/manage/projects/{project}/starter": "admin",
    "POST /api/v1/manage/render": "admin",
    "GET /api/v1/manage/audit": "admin",
    "GET /api/v1/manage/verify": "admin",
    "GET /api/v1/manage/people": "admin",
    "POST /api/v1/manage/people": "admin",
    "PUT /api/v1/manage/people/{name}": "admin",
    "POST /api/v1/manage/people/{name}/link": "admin",
    "GET /api/v1/manage/invitations": "admin",
    "POST /api/v1/manage/invitations": "admin",
    "DELETE /api/v1/manage/invitations/{id}": "admin",
    "GET /api/v1/manage/tokens": "admin",
    "POST /api/v1/manage/tokens": "admin",
    "DELETE /api/v1/manage/tokens/{id}": "admin",
    "POST /api/v1/projects/{project}/queries": "run",
    "POST /api/v1/projects/{project}/golds": "admin",
    "GET /api/v1/projects/{project}/progress": "read",
    "GET /api/v1/projects/{project}/verdicts": "read",
    "GET /api/v1/projects/{project}/comparisons": "read",
    "POST /api/v1/media": "run",
    "POST /api/v1/import": "admin",
    "GET /api/v1/export": "admin",
}
MAY_DO = {
    "owner": {"someone", "label", "read", "adjudicate", "run", "admin"},
    "admin": {"someone", "label", "read", "adjudicate", "run", "admin"},
    "adjudicator": {"someone", "label", "read", "adjudicate"},
    "annotator": {"someone", "label"},
    "viewer": {"someone", "read"},
}
SCOPE_OPENS = {
    "label": {"someone", "label", "adjudicate"},
    "read": {"someone", "read"},
    "run": {"someone", "run"},
    "admin": {"someone", "admin"},
}
LAST = "DELETE /api/v1/session"  # ends what the others are asked with


def asked(client: TestClient, line: str) -> int:
    """The status that a route answers with; its body is not looked at before its permission."""
    method, path = line.split(" ")
    return client.request(method, filled(path), json={} if method in ("POST", "PUT") else None).status_code


def wrong(client: TestClient, allowed: set[str]) -> list[str]:
    """The routes that let somebody in who may not, or keep somebody out who may."""
    found = []
    for line in sorted(NEEDS, key=lambda line: line == LAST):
        status = asked(client, line)
        if (status in (401, 403)) == (NEEDS[line] in allowed):
            found.append(f"{line} ({NEEDS[line]}): {status}")
    return found


@pytest.fixture(autouse=True)
def streams_end(studio: Studio) -> None:
    """Streams of news end at once."""
    studio.closing.set()


def test_the_table_has_every_route_and_no_other() -> None:
    there = {f"{method} {path}" for method, path in api() if (method, path) not in PUBLIC}
    assert sorted(there - NEEDS.keys()) == [], "say here who may call it"
    assert sorted(NEEDS.keys() - there) == []


def test_every_route_asks_for_its_permission_before_anything_else() -> None:
    for (method, path), route in api().items():
        asks = list(permissions(route.dependant))
        if (method, path) in PUBLIC:
            assert asks == []
            continue
        strict = [each for each in asks if each != "someone"]
        assert strict == ([] if NEEDS[f"{method} {path}"] == "someone" else [NEEDS[f"{method} {path}"]]), path
        assert asks, f"{method} {path} asks for nothing"


def test_nothing_but_the_routers_answers(studio: Studio) -> None:
    app = application(studio)
    described = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert described == {(method, path.replace(":path}", "}")) for method, path in api()}
    beside = {route.path for route in app.routes if isinstance(route, Mount) or type(route) is Route}
    assert beside == {"/openapi.json", "/static"}


@pytest.mark.parametrize("role", [*ROLES, None])
def test_every_role_against_every_route(as_role: Callable[..., TestClient], role: str | None) -> None:
    client = as_role(role)
    assert wrong(client, MAY_DO[role] if role else set()) == []
    if role is None:
        assert all(asked(client, line) == 401 for line in NEEDS)


@pytest.mark.parametrize("scope", [*SCOPES, "none", "unknown"])
def test_every_scope_of_a_token_against_every_route(studio: Studio, scope: str) -> None:
    body = {"scopes": [] if scope == "none" else [scope]}
    carried = studio.accounts.issue("token", "owner", by="test", seconds=60, body=body)
    client = TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {carried}"})
    assert wrong(client, SCOPE_OPENS.get(scope, {"someone"})) == []


@pytest.mark.parametrize("role", ROLES)
def test_a_token_opens_nothing_that_its_holder_may_not(studio: Studio, role: str) -> None:
    name = f"program of {role}"
    studio.accounts.add(name, role, by="test")
    carried = studio.accounts.issue("token", name, by="test", seconds=60, body={"scopes": list(SCOPES)})
    client = TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {carried}"})
    assert wrong(client, MAY_DO[role]) == []


def test_a_token_sets_no_password(studio: Studio) -> None:
    carried = studio.accounts.issue("token", "owner", by="test", seconds=60, body={"scopes": list(SCOPES)})
    client = TestClient(application(studio), base_url=HOST, headers={"authorization": f"Bearer {carried}"})
    assert client.put("/api/v1/session/password", json={"password": "correct horse"}).status_code == 403


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer x", "Basic b3duZXI6eA==", "bearer bf_0123456789abcdef_" + "x" * 43, "Token {token}", "{token}"],
)
def test_anything_else_in_its_place_is_no_token(studio: Studio, header: str) -> None:
    carried = studio.accounts.issue("token", "owner", by="test", seconds=60, body={"scopes": list(SCOPES)})
    client = TestClient(application(studio), base_url=HOST, headers={"authorization": header.format(token=carried)})
    assert client.get("/api/v1/session").status_code == 401


def test_one_kind_of_secret_is_not_another(studio: Studio) -> None:
    app = application(studio)
    for kind in ("session", "token", "invitation", "link"):
        carried = studio.accounts.issue(kind, "owner", by="test", seconds=60, body={"scopes": list(SCOPES), "role": "owner"})  # type: ignore[arg-type]
        by_token = TestClient(app, base_url=HOST, headers={"authorization": f"Bearer {carried}"}).get("/api/v1/session")
        by_cookie = TestClient(app, base_url=HOST, cookies={"backflip_session": carried}).get("/api/v1/session")
        assert (by_token.status_code == 200) == (kind == "token")
        assert (by_cookie.status_code == 200) == (kind == "session")


def test_who_is_denied_by_default() -> None:
    stranger = Actor("x", "unheard of", None, Secret("", "session", "x"))
    assert stranger.permissions == []
    assert {role for roles in MAY.values() for role in roles} == set(ROLES)
    assert need("admin").permission == "admin"  # type: ignore[attr-defined]
    assert someone.permission == "someone"  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        stranger.may("fly")  # type: ignore[arg-type]


@pytest.mark.parametrize("role", [*ROLES, None])
def test_pages_are_shown_to_whoever_may_see_them(as_role: Callable[..., TestClient], role: str | None) -> None:
    client = as_role(role)
    for page, permission in PAGES.items():
        for path in (f"/{page}", f"/{page}/main"):
            answer = client.get(path, follow_redirects=False)
            if role is None:
                assert (answer.status_code, answer.headers["location"]) == (303, "/signin")
            else:
                assert answer.status_code == (200 if permission in MAY_DO[role] else 403), path
    home = client.get("/", follow_redirects=False).headers["location"]
    first: Any = next((f"/{page}" for page, permission in PAGES.items() if role and permission in MAY_DO[role]), "/signin")
    assert home == first
