"""What the People page talks to: who may do what, and how they get in: invitations, one-time links and tokens.

Only an owner makes or unmakes owners and admins, and lets anybody in as one. What lets somebody in is in one response, to
whoever asked for it, and nowhere else: the store has its hash.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field

from backflip.store.accounts import Person, Role, Secret
from backflip.web import models
from backflip.web.identity import Actor, need, studio

router = APIRouter(prefix="/api/v1/manage", tags=["people"])
Admin = Annotated[Actor, Depends(need("admin"))]
Scope = Literal["label", "read", "run", "admin"]
GUARDED = ("owner", "admin")
LINK_HOURS = 24


class PersonBody(models.Body):
    """Somebody to let in. Without a password they come in by a link, or, being a program, with a token."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role
    password: Annotated[str, Field(max_length=256)] | None = None


class ChangeBody(models.Body):
    """What changes; what is left out stays. Somebody who is not active cannot sign in, and what they carried has ended."""

    role: Role | None = None
    active: bool | None = None


class PersonSay(models.Say):
    """Somebody who may sign in, or no longer may. `at` is when they came, seconds since 1970."""

    name: str
    role: str
    active: bool
    has_password: bool
    at: float


class InvitationBody(models.Body):
    """An invitation to join in a role, for as many hours."""

    role: Role
    hours: Annotated[int, Field(ge=1, le=720)] = 72


class LinkSay(models.Say):
    """A link that lets one person in, once, until `until`, seconds since 1970. It is shown this once."""

    link: str
    until: float


class InvitationSay(models.Say):
    """An invitation that waits to be taken."""

    id: str
    by: str
    role: str
    at: float
    until: float


class TokenBody(models.Body):
    """A token for oneself (`person` left out) or for a program: somebody without a password. `note` says what it is for."""

    person: Annotated[str, Field(max_length=64)] | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    days: Annotated[int, Field(ge=1, le=3650)] = 90
    note: Annotated[str, Field(max_length=100)] = ""


class TokenMade(models.Say):
    """A token as it will be carried. It is shown this once."""

    token: str
    until: float


class TokenSay(models.Say):
    """What is known of a token without it itself; `used` is when it was last used, to the minute."""

    id: str
    person: str
    scopes: list[str]
    note: str
    at: float
    until: float
    used: float | None


@router.get("/people", summary="Everybody")
def everybody(request: Request, actor: Admin) -> list[PersonSay]:
    """In the order they came."""
    return [_person(person) for person in studio(request).accounts.everybody()]


@router.post("/people", summary="Let somebody in", status_code=201)
async def add(request: Request, actor: Admin, body: PersonBody) -> PersonSay:
    """A person, or a program that will have tokens. 422 for a name that is taken or cannot be one."""
    here = studio(request)
    _only_owners(actor, body.role)
    made = await asyncio.to_thread(here.accounts.add, body.name, body.role, by=actor.name, password=body.password)
    here.identities.forget()
    return _person(made)


@router.put("/people/{name}", summary="Change a role, or whether somebody may sign in")
async def change(request: Request, actor: Admin, name: str, body: ChangeBody) -> PersonSay:
    """At once, also where they are signed in. The last owner stays one."""
    here = studio(request)
    person = await _known(request, name)
    _only_owners(actor, person.role, *([body.role] if body.role else []))
    made = await asyncio.to_thread(here.accounts.change, name, by=actor.name, role=body.role, active=body.active)
    here.identities.forget()
    return _person(made)


@router.post("/people/{name}/link", summary="A link that signs somebody in once", status_code=201)
async def link(request: Request, actor: Admin, name: str) -> LinkSay:
    """For somebody who has no password or forgot it; good for a day."""
    person = await _known(request, name)
    _only_owners(actor, person.role)
    if not person.active:
        raise HTTPException(409, f"{name} may not sign in; let them in again first")
    return await _link(request, actor, "link", name, LINK_HOURS, {})


@router.get("/invitations", summary="Invitations that wait to be taken")
def invitations(request: Request, actor: Admin) -> list[InvitationSay]:
    """Oldest first; those taken, revoked or too old are left out."""
    held = studio(request).accounts.held("invitation")
    return [InvitationSay(id=s.id, by=s.holder, role=s.body["role"], at=s.at, until=s.until) for s in held]


@router.post("/invitations", summary="Invite somebody", status_code=201)
async def invite(request: Request, actor: Admin, body: InvitationBody) -> LinkSay:
    """A link with which one person joins, under a name and with a password of their own choice."""
    _only_owners(actor, body.role)
    return await _link(request, actor, "invitation", actor.name, body.hours, {"role": body.role})


@router.delete("/invitations/{id}", summary="Revoke an invitation")
async def uninvite(request: Request, actor: Admin, id: str) -> models.Done:
    """Nobody joins with it any more."""
    return await _revoke(request, actor, "invitation", id)


@router.get("/tokens", summary="Tokens")
def tokens(request: Request, actor: Admin) -> list[TokenSay]:
    """Everybody's, oldest first; those revoked or too old are left out."""
    return [_token(secret) for secret in studio(request).accounts.held("token")]


@router.post("/tokens", summary="Issue a token", status_code=201)
async def issue(request: Request, actor: Admin, body: TokenBody) -> TokenMade:
    """For a program that acts in somebody's name. A token cannot issue one with a scope that it lacks."""
    here, name = studio(request), body.person or actor.name
    if name != actor.name:
        person = await _known(request, name)
        _only_owners(actor, person.role)
        if person.has_password:
            raise HTTPException(403, f"{name} has a password, so is no program; nobody issues tokens in another person's name")
    missing = set(body.scopes) - (actor.scopes if actor.scopes is not None else set(body.scopes))
    if missing:
        raise HTTPException(403, f"this token does not have the scope {', '.join(sorted(missing))}, so it cannot pass it on")
    seconds = body.days * 86400.0
    details = {"scopes": list(dict.fromkeys(body.scopes)), "note": body.note}
    carried = await here.write(here.accounts.issue, "token", name, by=actor.name, seconds=seconds, body=details)
    return TokenMade(token=carried, until=here.clock() + seconds)


@router.delete("/tokens/{id}", summary="Revoke a token")
async def revoke(request: Request, actor: Admin, id: str) -> models.Done:
    """It opens nothing any more."""
    return await _revoke(request, actor, "token", id)


def _only_owners(actor: Actor, *roles: str) -> None:
    if actor.role != "owner" and any(role in GUARDED for role in roles):
        raise HTTPException(403, "only an owner makes or unmakes owners and admins")


async def _known(request: Request, name: str) -> Person:
    person = await asyncio.to_thread(studio(request).accounts.person, name)
    if person is None:
        raise HTTPException(404, f"there is nobody called {name[:70]!r}")
    return person


async def _link(
    request: Request, actor: Actor, kind: Literal["invitation", "link"], holder: str, hours: int, body: dict[str, str]
) -> LinkSay:
    here, seconds = studio(request), hours * 3600.0
    carried = await here.write(here.accounts.issue, kind, holder, by=actor.name, seconds=seconds, body=body)
    behind = carried if kind == "link" else f"{kind}={carried}"
    return LinkSay(link=f"{request.base_url}signin#{behind}", until=here.clock() + seconds)


async def _revoke(request: Request, actor: Actor, kind: Literal["invitation", "token"], id: str) -> models.Done:
    here = studio(request)
    held = await asyncio.to_thread(here.accounts.held, kind)
    if not any(secret.id == id for secret in held) or not await here.write(here.accounts.revoke, id, by=actor.name):
        raise HTTPException(404, f"there is no such {kind}, or it has ended already")
    here.identities.forget()
    return models.Done()


def _person(person: Person) -> PersonSay:
    return PersonSay(
        name=person.name, role=person.role, active=person.active, has_password=person.has_password, at=person.at
    )  # fmt: skip


def _token(secret: Secret) -> TokenSay:
    return TokenSay(
        id=secret.id, person=secret.holder, scopes=list(secret.body.get("scopes", ())), note=secret.body.get("note", ""),
        at=secret.at, until=secret.until, used=secret.used,
    )  # fmt: skip
