"""Who asks, and what they may do. Identity comes from a session or a token, never from what a request says about itself."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastapi import HTTPException, Request

from backflip.store.accounts import Accounts, Person, Secret

if TYPE_CHECKING:
    from backflip.web.server import Studio

COOKIE = "backflip_session"
SESSION_S = 30 * 86400.0
REMEMBERED_S = 5.0  # how long a checked secret is taken as checked

Permission = Literal["label", "read", "adjudicate", "run", "admin"]
MAY: dict[Permission, frozenset[str]] = {
    "label": frozenset({"owner", "admin", "adjudicator", "annotator"}),
    "read": frozenset({"owner", "admin", "adjudicator", "viewer"}),
    "adjudicate": frozenset({"owner", "admin", "adjudicator"}),
    "run": frozenset({"owner", "admin"}),
    "admin": frozenset({"owner", "admin"}),
}
"""Which roles have which permission; whatever is not here is denied."""
SCOPE: dict[Permission, str] = {"label": "label", "read": "read", "adjudicate": "label", "run": "run", "admin": "admin"}
"""The scope that a token needs besides its holder's role."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a person's name, their role, and the scopes of the token they came with (None: a session has all)."""

    name: str
    role: str
    scopes: frozenset[str] | None
    secret: Secret

    def may(self, permission: Permission) -> bool:
        """Whether they have a permission."""
        return self.role in MAY[permission] and (self.scopes is None or SCOPE[permission] in self.scopes)

    @property
    def permissions(self) -> list[Permission]:
        """Everything they may do."""
        return [permission for permission in MAY if self.may(permission)]


class Identities:
    """Secrets to actors, each remembered for a few seconds: otherwise every click would read the accounts anew."""

    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts, self._clock = accounts, clock
        self._known: dict[str, tuple[float, Actor | None]] = {}

    def forget(self) -> None:
        """Check everybody again; called when accounts change."""
        self._known.clear()

    def of(self, request: Request) -> Actor | None:
        """Who sends a request, or None for a stranger."""
        header = request.headers.get("authorization", "")
        if header:
            kind, _, carried = header.partition(" ")
            return self._actor("token", carried.strip()) if kind.lower() == "bearer" else None
        carried = request.cookies.get(COOKIE, "")
        return self._actor("session", carried) if carried else None

    def _actor(self, kind: Literal["session", "token"], carried: str) -> Actor | None:
        digest = hashlib.sha256(f"{kind}{carried}".encode()).hexdigest()
        until, actor = self._known.get(digest, (0.0, None))
        if until > self._clock():
            return actor
        actor = self._look_up(kind, carried)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[digest] = (self._clock() + REMEMBERED_S, actor)
        return actor

    def _look_up(self, kind: Literal["session", "token"], carried: str) -> Actor | None:
        secret = self._accounts.read(kind, carried)
        person: Person | None = None if secret is None else self._accounts.person(secret.holder)
        if secret is None or person is None or not person.active:
            return None
        scopes = frozenset(secret.body.get("scopes", ())) if kind == "token" else None
        if kind == "token":
            self._accounts.touch_soon(secret)
        return Actor(person.name, person.role, scopes, secret)


def need(permission: Permission) -> Callable[[Request], Awaitable[Actor]]:
    """A dependency: the actor, if they have the permission; otherwise 401 for strangers and 403 for others."""

    async def check(request: Request) -> Actor:
        actor = await someone(request)
        if not actor.may(permission):
            raise HTTPException(403, f"this needs the permission to {permission}, which {actor.name} does not have here")
        return actor

    check.permission = permission  # type: ignore[attr-defined]
    return check


async def someone(request: Request) -> Actor:
    """A dependency: whoever is signed in, whatever they may do."""
    actor = studio(request).identities.of(request)
    if actor is None:
        raise HTTPException(401, "sign in first, or send a token", {"WWW-Authenticate": "Bearer"})
    return actor


someone.permission = "someone"  # type: ignore[attr-defined]


def studio(request: Request) -> Studio:
    """The studio that serves a request (`server.Studio`)."""
    found: Studio = request.app.state.studio
    return found
