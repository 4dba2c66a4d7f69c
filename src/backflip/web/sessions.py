"""Signing in and out: by a one-time link, by name and password, or by an invitation."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import Field

from backflip.store.accounts import Person
from backflip.web import models
from backflip.web.identity import COOKIE, SESSION_S, Actor, someone, studio

router = APIRouter(prefix="/api/v1/session", tags=["session"])


class SignIn(models.Body):
    """A link's or an invitation's secret, or a name and a password. With an invitation, the name to go by and a password to
    set, if one is wanted."""

    link: Annotated[str, Field(max_length=100)] = ""
    invitation: Annotated[str, Field(max_length=100)] = ""
    name: Annotated[str, Field(max_length=64)] = ""
    password: Annotated[str, Field(max_length=256)] = ""


class NewPassword(models.Body):
    """A new password."""

    password: Annotated[str, Field(max_length=256)]


@router.get("", summary="Who is signed in")
def me(actor: Annotated[Actor, Depends(someone)]) -> models.Me:
    """Name, role and permissions."""
    return _me(actor)


@router.post("", summary="Sign in")
async def sign_in(request: Request, response: Response, body: SignIn) -> models.Me:
    """Start a session, a cookie that no script can read. Ten wrong tries make the next ones wait."""
    here = studio(request)
    asker = request.client.host if request.client else ""
    counted = (f"address {asker}", *([f"name {body.name}"] if body.name else []))
    for each in counted:
        wait = here.guesses.wait(each)
        if wait > 0:
            raise HTTPException(429, "too many tries; wait a little", {"Retry-After": str(round(wait) + 1)})
    person: Person | None = None
    if body.link:
        secret = await asyncio.to_thread(here.accounts.redeem, "link", body.link)
        person = None if secret is None else here.accounts.person(secret.holder)
    elif body.invitation:
        person = await asyncio.to_thread(_join, here, body)
    elif body.name:
        person = await asyncio.to_thread(here.accounts.check_password, body.name, body.password)
    if person is None or not person.active:
        raise HTTPException(401, "this does not let anybody in: the link was used or is old, or name and password do not match")
    for each in counted:
        here.guesses.give_back(each)
    carried = await here.write(here.accounts.issue, "session", person.name, by=person.name, seconds=SESSION_S)
    response.set_cookie(
        COOKIE, carried, max_age=int(SESSION_S), httponly=True, samesite="lax", path="/",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    secret = here.accounts.read("session", carried)
    assert secret is not None
    return _me(Actor(person.name, person.role, None, secret))


@router.put("/password", summary="Set a password")
async def set_password(
    request: Request, response: Response, actor: Annotated[Actor, Depends(someone)], body: NewPassword
) -> models.Done:
    """Set one's own password; every session and token of one's own ends, this one too."""
    here = studio(request)
    if actor.scopes is not None:
        raise HTTPException(403, "a token cannot set a password; sign in on a page")
    await asyncio.to_thread(here.accounts.change, actor.name, by=actor.name, password=body.password)
    here.identities.forget()
    response.delete_cookie(COOKIE, path="/")
    return models.Done()


@router.delete("", summary="Sign out")
async def sign_out(request: Request, response: Response, actor: Annotated[Actor, Depends(someone)]) -> models.Done:
    """End the session."""
    here = studio(request)
    await here.write(here.accounts.revoke, actor.secret.id, by=actor.name)
    here.identities.forget()
    response.delete_cookie(COOKIE, path="/")
    return models.Done()


def _join(here: object, body: SignIn) -> Person | None:
    """Make whoever was invited a person. The invitation is spent only once the name is accepted."""
    accounts = here.accounts  # type: ignore[attr-defined]
    invited = accounts.read("invitation", body.invitation)
    if invited is None:
        return None
    person: Person = accounts.add(body.name, invited.body["role"], by=invited.holder, password=body.password or None)
    if accounts.redeem("invitation", body.invitation) is None:  # somebody else was quicker
        accounts.change(body.name, by=invited.holder, active=False)
        return None
    return person


def _me(actor: Actor) -> models.Me:
    return models.Me(name=actor.name, role=actor.role, permissions=list(actor.permissions))
