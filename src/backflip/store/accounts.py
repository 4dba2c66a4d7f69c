"""Who may sign in, and what they carry: sessions, tokens, invitations and one-time links.

    bf_<id>_<32 random bytes>

Of what a person carries only the SHA-256 is stored, so a stolen store lets nobody in; 256 random bits need no slower hash.
Passwords have one: Argon2id. Whatever is changed here is an event of kind `admin`, sealed with the others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets as random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Row, insert, select, update

from backflip.errors import DataError
from backflip.store.events import ADMIN, Log
from backflip.store.schema import people, secrets
from backflip.store.store import Store

Role = Literal["owner", "admin", "adjudicator", "annotator", "viewer"]
ROLES: tuple[Role, ...] = ("owner", "admin", "adjudicator", "annotator", "viewer")
SCOPES = ("label", "read", "run", "admin")
Kind = Literal["session", "token", "invitation", "link"]

_NAME = re.compile(r"[\w.@+-][\w.@+ -]{0,62}[\w.@+-]|[\w.@+-]")
_CARRIED = re.compile(r"bf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
SHORTEST_PASSWORD = 10
USED_EVERY_S = 60.0  # how often "last used" is written: a write for every request would cost a flush of the disk


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in. `at` is when they came, seconds since 1970."""

    name: str
    role: Role
    active: bool
    at: float
    has_password: bool = False


@dataclass(frozen=True, slots=True)
class Secret:
    """What is known of something that a person carries, without it itself. `holder` is whose it is; `until` when it ends,
    `used` when it was used last, in seconds since 1970."""

    id: str
    kind: Kind
    holder: str
    body: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0
    until: float = 0.0
    used: float | None = None


class Accounts:
    """The people of a store and their secrets. Writing methods can be handed to `store.submit`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ------------------------------------------------------------------------------------------------------ people

    def everybody(self) -> list[Person]:
        """All people, those who may no longer sign in included, in the order they came."""
        with self._store._db.read() as connection:
            return [_person(row) for row in connection.execute(select(people).order_by(people.c.at, people.c.name))]

    def person(self, name: str) -> Person | None:
        """Somebody by name."""
        with self._store._db.read() as connection:
            row = connection.execute(select(people).where(people.c.name == name)).first()
            return None if row is None else _person(row)

    def add(self, name: str, role: Role, *, by: str, password: str | None = None) -> Person:
        """Let somebody in. Raises DataError for a name that is taken or cannot be one, and a password too short."""
        if not _NAME.fullmatch(name):
            raise DataError(f"{name[:70]!r} cannot be a name: use up to 64 letters, digits, spaces or any of . _ @ + -")
        hashed = None if password is None else hash_password(password)
        with self._store._log() as log:
            if log.connection.scalar(select(people.c.name).where(people.c.name == name)) is not None:
                raise DataError(f"there is somebody called {name} already; choose another name")
            values = {"name": name, "role": _role(role), "password": hashed, "active": 1, "at": log.now}
            log.connection.execute(insert(people), values)
            record(log, by, "person added", person=name, role=role)
            return Person(name, role, True, log.now, hashed is not None)

    def change(
        self, name: str, *, by: str, role: Role | None = None, active: bool | None = None, password: str | None = None
    ) -> Person:
        """Change somebody's role or password, or stop them from signing in; what they carried ends when the latter two change,
        and their invitations with the role.

        Raises DataError for an unknown person, a password too short, and where no active owner would be left.
        """
        changed: dict[str, Any] = {}
        if role is not None:
            changed["role"] = _role(role)
        if active is not None:
            changed["active"] = int(active)
        hashed = None if password is None else hash_password(password)
        with self._store._log() as log:
            row = log.connection.execute(select(people).where(people.c.name == name)).first()
            if row is None:
                raise DataError(f"there is nobody called {name}")
            owners = select(people.c.name).where(people.c.role == "owner", people.c.active == 1, people.c.name != name)
            gone = role not in (None, "owner") or active is False
            if row.role == "owner" and gone and log.connection.scalar(owners) is None:
                raise DataError(f"{name} is the last owner; make somebody else one first")
            if not changed and not hashed:
                return _person(row)
            log.connection.execute(
                update(people).where(people.c.name == name).values(**changed, **({"password": hashed} if hashed else {}))
            )
            if active is False or hashed:
                _end(log, secrets.c.holder == name)
            elif role is not None:  # whom they may invite depends on it
                _end(log, secrets.c.holder == name, secrets.c.kind == "invitation")
            record(log, by, "person changed", person=name, password_changed=hashed is not None, **changed)
        found = self.person(name)
        assert found is not None
        return found

    def check_password(self, name: str, password: str) -> Person | None:
        """The person if name and password are right and they may sign in. A wrong name takes as long as a wrong password."""
        with self._store._db.read() as connection:
            row = connection.execute(select(people).where(people.c.name == name)).first()
        right = _verify(row.password if row is not None and row.password else _nobody(), password)
        return _person(row) if row is not None and row.password and row.active and right else None

    # ----------------------------------------------------------------------------------------------------- secrets

    def issue(self, kind: Kind, holder: str, *, by: str, seconds: float, body: Mapping[str, Any] | None = None) -> str:
        """A new secret of somebody's, as they will carry it; it is shown this once. It ends after `seconds`."""
        id, random_part = uuid.uuid4().hex[:16], random.token_urlsafe(32)
        carried = f"bf_{id}_{random_part}"
        with self._store._log() as log:
            values = {
                "id": id, "kind": kind, "hash": _hash(carried), "holder": holder, "body": json.dumps(dict(body or {})),
                "at": log.now, "until": log.now + seconds, "used": None,
            }  # fmt: skip
            log.connection.execute(insert(secrets), values)
            if kind in ("token", "invitation") or (kind == "link" and by != holder):
                record(log, by, f"{kind} issued", id=id, holder=holder, **dict(body or {}))
        return carried

    def read(self, kind: Kind, carried: str) -> Secret | None:
        """What is known of a secret that somebody presents; None unless it is one of ours, of this kind, and still good."""
        found = _CARRIED.fullmatch(carried)
        if found is None:
            return None
        with self._store._db.read() as connection:
            row = connection.execute(select(secrets).where(secrets.c.id == found[1], secrets.c.kind == kind)).first()
        good = row is not None and hmac.compare_digest(row.hash, _hash(carried)) and row.until > self._store._clock()
        return _secret(row) if good and row is not None else None

    def redeem(self, kind: Kind, carried: str) -> Secret | None:
        """`read`, and end it: a link or an invitation lets one person in once, however many present it at the same time."""
        found = self.read(kind, carried)
        if found is None:
            return None
        with self._store._log() as log:
            unused = secrets.c.used.is_(None) & (secrets.c.until > log.now)
            ended = update(secrets).where(secrets.c.id == found.id, unused).values(used=log.now, until=log.now)
            return found if log.connection.execute(ended).rowcount == 1 else None

    def touch(self, secret: Secret) -> bool:
        """Note that a secret was used, at most once in `USED_EVERY_S`; whether anything was written."""
        if not self._due(secret):
            return False
        with self._store._log() as log:
            log.connection.execute(update(secrets).where(secrets.c.id == secret.id).values(used=log.now))
        return True

    def touch_soon(self, secret: Secret) -> None:
        """`touch`, by the store's writer thread: nobody waits for it, and a disk without room lets people read on."""
        if self._due(secret):
            self._store.submit(self.touch, secret)

    def _due(self, secret: Secret) -> bool:
        return secret.used is None or self._store._clock() - secret.used >= USED_EVERY_S

    def held(self, kind: Kind) -> list[Secret]:
        """All secrets of a kind that are still good, oldest first."""
        with self._store._db.read() as connection:
            wanted = select(secrets).where(secrets.c.kind == kind, secrets.c.until > self._store._clock())
            return [_secret(row) for row in connection.execute(wanted.order_by(secrets.c.at))]

    def revoke(self, id: str, *, by: str) -> bool:
        """End a secret; False when there is none that is still good."""
        with self._store._log() as log:
            ended = _end(log, secrets.c.id == id)
            if ended:
                record(log, by, "secret revoked", id=id)
            return ended > 0


def record(log: Log, by: str, what: str, **details: Any) -> None:
    """Store an event that says who changed what."""
    log.append(f"{ADMIN} {uuid.uuid4().hex}", by, ADMIN, {"what": what, **details})


def hash_password(password: str) -> str:
    """The Argon2id hash of a password. Raises DataError for one shorter than `SHORTEST_PASSWORD`."""
    import argon2

    if len(password) < SHORTEST_PASSWORD:
        raise DataError(f"a password has at least {SHORTEST_PASSWORD} characters; this one has {len(password)}")
    return argon2.PasswordHasher().hash(password)


def _verify(hashed: str, password: str) -> bool:
    import argon2

    try:
        return argon2.PasswordHasher().verify(hashed, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _nobody() -> str:
    """A hash that no password has."""
    if not _decoy:
        _decoy.append(hash_password(random.token_urlsafe(32)))
    return _decoy[0]


_decoy: list[str] = []


def _end(log: Log, *which: Any) -> int:
    ended = update(secrets).where(*which, secrets.c.until > log.now).values(until=log.now)
    return int(log.connection.execute(ended).rowcount)


def _role(role: str) -> str:
    if role not in ROLES:
        raise DataError(f"there is no role {role!r}; use {', '.join(ROLES)}")
    return role


def _hash(carried: str) -> str:
    return hashlib.sha256(carried.encode()).hexdigest()


def _person(row: Row[Any]) -> Person:
    return Person(row.name, row.role, bool(row.active), row.at, row.password is not None)


def _secret(row: Row[Any]) -> Secret:
    return Secret(row.id, row.kind, row.holder, json.loads(row.body), row.at, row.until, row.used)
