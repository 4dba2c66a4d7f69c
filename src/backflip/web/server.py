"""The studio as one application: what every page and route stands on, and how it is served.

    store, accounts, projects      what is asked, answered, and by whom
    runs                           the folder whose runs are shown
    identities                     who is signed in
    overview                       what is known of the runs
    reports                        how far the answers of each project can be trusted
    board, chat                    ratings, and the policy that is talked with
    closing                        set when the studio stops, for whoever waits for news

Writes go through the store's writer thread, so whatever the API acknowledges is on the disk.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from backflip import __version__
from backflip.errors import BackflipError, BusyError, DataError, FullDiskError, StorageError
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Project, Projects
from backflip.store.views import Answer
from backflip.web import agreement, arena, chat, exchange, labels, manage, models, pages, people, runs, sessions
from backflip.web.board import Board
from backflip.web.identity import Identities
from backflip.web.overview import Overview
from backflip.web.reports import Reports
from backflip.web.security import Bucket, Guard

P = ParamSpec("P")
T = TypeVar("T")

HERE = Path(__file__).parent
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LINK_S = 86_400.0  # how long a sign-in link waits to be opened: whoever starts a long job may come back the next day
OWNER = "owner"
ROUTERS = (
    sessions.router, labels.router, runs.router, arena.router, chat.router, agreement.router, manage.router, people.router,
    exchange.router, pages.router,
)  # fmt: skip


class Studio:
    """Everything the routes work with. `rate` is how many requests a second one person may make in the long run."""

    def __init__(self, store: Store, runs: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.store, self.runs, self.clock = store, runs, clock
        self.accounts, self.projects = Accounts(store), Projects(store)
        self.identities = Identities(self.accounts)
        self.overview = Overview(runs, clock=clock)
        self.board, self.chat = Board(store, clock=clock), chat.Chat(runs)
        self.reports = Reports(store, self.projects, self.accounts, clock=clock)
        self.closing = threading.Event()
        self.guesses = Bucket(rate=0.2, burst=10)
        self.seed = int.from_bytes(secrets.token_bytes(4), "big")
        self._revealing: frozenset[str] | None = None

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have the store's writer thread call a writing method."""
        return self.store.submit(work, *args, **kwargs)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`submit`, and wait until it is on the disk."""
        return await asyncio.wrap_future(self.submit(work, *args, **kwargs))

    def note(self, kind: str, actor: str, payload: Mapping[str, Any], *, key: str, view_id: str, client_t: float | None) -> int:
        """`Store.note` on a view of the actor's own. Raises DataError for anybody else's."""
        if self.projects.shown(view_id, actor) is None:
            raise DataError(f"view {view_id} was not shown to {actor}")
        return self.store.note(kind, actor, payload, key=key, view_id=view_id, client_t=client_t)

    @property
    def reveals(self) -> frozenset[str]:
        """The purposes whose projects say after the vote who wrote what."""
        if self._revealing is None:
            self._revealing = frozenset(project.purpose for project in self.projects.all() if project.reveal)
        return self._revealing

    def reveal(self, view_id: str, annotator: str) -> dict[str, str]:
        """Who wrote what is shown in each place of a view that its person has answered, by handle."""
        found = self.projects.shown(view_id, annotator)
        if found is None or found[1].purpose not in self.reveals:
            return {}
        view, query = found
        return {handle: query.policies[i] for handle, i in zip(view.handles, view.places, strict=True) if query.policies}

    def undo(self, view_id: str, annotator: str, *, key: str, client_t: float | None) -> Answer:
        """`Store.undo`. Raises DataError where the answer has shown who wrote what: another one would not be blind."""
        found = self.projects.shown(view_id, annotator)
        if found is not None and found[1].purpose in self.reveals:
            raise DataError("who wrote what was shown after this answer, so it stands")
        return self.store.undo(view_id, annotator, key=key, client_t=client_t)

    def save_project(self, project: Project, *, by: str) -> None:
        """Make or change a project."""
        self.projects.save(project, by=by)
        self._revealing = None

    def begin(self) -> str:
        """Make the owner and the first project where there are none; the secret of a link that lets the owner in once."""
        if not self.accounts.everybody():
            self.accounts.add(OWNER, "owner", by="studio")
        if not self.projects.all():
            self.save_project(Project(id="main", purpose="train"), by="studio")
        owner = next(p.name for p in self.accounts.everybody() if p.role == "owner" and p.active)
        return self.accounts.issue("link", owner, by="studio", seconds=LINK_S)


def application(
    studio: Studio, *, hosts: tuple[str, ...] = LOOPBACK, limit: Bucket | None = None, on_stop: Callable[[], None] | None = None
) -> FastAPI:
    """The studio as an ASGI application that answers to the names in `hosts`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(studio.chat.close)
        if on_stop is not None:
            on_stop()

    app = FastAPI(
        title="backflip studio", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Push questions, lease and answer them, read what was answered. Sign in on a page, or send a token: "
        "`Authorization: Bearer bf_…`.",
    )  # fmt: skip
    app.state.studio = studio
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")  # before the pages, which take any path
    for router in ROUTERS:
        app.include_router(router, responses=PROBLEMS)
    app.exception_handler(BackflipError)(_say)
    app.exception_handler(RequestValidationError)(_say_where)
    app.add_middleware(Guard, hosts=hosts, large=LARGE, limit=limit, who=_who(studio.identities))
    return app


_MEANINGS = {
    400: "The body is no JSON.",
    401: "Nobody is signed in.",
    403: "Whoever is may not do this, or the request comes from another site.",
    404: "There is no such thing.",
    409: "It cannot be done now.",
    413: "The request is too large.",
    422: "Something in the request is wrong: what, in one sentence.",
    429: "Too many requests; Retry-After says when.",
    503: "The store is busy or damaged.",
    507: "The disk is full.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": models.Problem, "description": meaning} for status, meaning in _MEANINGS.items()
}
"""What every route may answer besides what it is for."""

LARGE = re.compile(r"/api/v1/(import|media|projects/[^/]+/(queries|golds))")


def _who(identities: Identities) -> Callable[[MutableMapping[str, Any]], str | None]:
    """What the requests of somebody signed in are counted under, by their ASGI scope."""

    def of(scope: MutableMapping[str, Any]) -> str | None:
        try:
            actor = identities.of(Request(scope))
        except BackflipError:  # the store cannot be read now; the route that needs it will say so
            return None
        return None if actor is None else actor.secret.id

    return of


async def _say(_request: Request, problem: Exception) -> JSONResponse:
    """An error of ours as one sentence with a fitting status."""
    statuses = {FullDiskError: 507, BusyError: 503, StorageError: 503}
    status = next((code for kind, code in statuses.items() if isinstance(problem, kind)), 422)
    headers = {"Retry-After": "2"} if status == 503 else {}
    return JSONResponse({"detail": str(problem)}, status, headers)


async def _say_where(_request: Request, problem: Exception) -> JSONResponse:
    """What is wrong with the form of a request, as a sentence. What was sent is not repeated: it may be a password."""
    assert isinstance(problem, RequestValidationError)
    wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in problem.errors()[:3]]
    said = "; ".join(wrong).encode("utf-8", "backslashreplace").decode()  # half a character in a name cannot be sent
    return JSONResponse({"detail": said[:1000]}, 422)
