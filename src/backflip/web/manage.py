"""What the Projects page talks to: projects and how far they are, the starter set, and what was changed by whom."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from backflip.errors import StorageError
from backflip.store.projects import Project
from backflip.web import intake, models
from backflip.web.identity import Actor, need, studio
from backflip.web.labels import Named
from backflip.web.render import markdown

router = APIRouter(prefix="/api/v1/manage", tags=["manage"])
Admin = Annotated[Actor, Depends(need("admin"))]
STARTER = Path(__file__).with_name("starter.jsonl")
LARGEST = 2**62  # no number of a row or an event is larger


class ProjectBody(models.Body):
    """How the questions of one purpose are put to people; what is left out has its default. See `store.projects.Project`.

    `purpose` files the questions: it cannot change once the project is made, and is the project's id where it is left out.
    """

    purpose: Annotated[str, Field(max_length=64)] = ""
    title: Annotated[str, Field(max_length=200)] = ""
    question: Annotated[str, Field(max_length=4000)] = ""
    guideline: Annotated[str, Field(max_length=40_000)] = ""
    answers: Literal["compare", "rate"] = "compare"
    overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    repeat_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    floor_ms: Annotated[int, Field(ge=0, le=600_000)] = 600
    reveal: bool = False
    whole_clip: bool = True
    open: bool = True


class ProgressSay(models.Say):
    """How far a project is: questions, those with an answer, answers, the people who gave them, questions with a known answer,
    and answers to what was shown again. Only standing answers count; a skip is one."""

    questions: int
    answered: int
    answers: int
    people: int
    golds: int
    repeats: int


class ManagedSay(models.Say):
    """Everything about a project."""

    id: str
    purpose: str
    title: str
    question: str
    guideline: str
    answers: Literal["compare", "rate"]
    overlap: int
    gold_share: float
    repeat_share: float
    floor_ms: int
    reveal: bool
    whole_clip: bool
    open: bool
    progress: ProgressSay


class Text(models.Body):
    """A text in Markdown."""

    text: Annotated[str, Field(max_length=40_000)]


class Html(models.Say):
    """The same as HTML that can do no harm."""

    html: str


class New(models.Say):
    """How many of what was sent were new; the rest was there already."""

    new: int


class AuditSay(models.Say):
    """Something that was changed: by whom, when (seconds since 1970), what, and how."""

    id: int
    actor: str
    at: float
    what: str
    details: dict[str, Any]


class Audit(models.Say):
    """Changes in the order they were made. `until` is the `after` of the next request for newer ones, `more` says whether there
    are any in the direction that was asked for."""

    rows: list[AuditSay]
    until: int
    more: bool


class VerifiedSay(models.Say):
    """Whether everything in the store holds: references, the chain of events, what follows from them, every record. `problem` is
    the first thing that does not; `head` the seal of the last event, to be noted elsewhere."""

    ok: bool
    problem: str = ""
    queries: int = 0
    verdicts: int = 0
    retractions: int = 0
    events: int = 0
    head: str = ""


@router.get("/projects", summary="Every project, with its settings and counts")
def projects(request: Request, actor: Admin) -> list[ManagedSay]:
    """In the order they were made, closed ones included."""
    return [_managed(request, project) for project in studio(request).projects.all()]


@router.get("/projects/{project}", summary="One project, with its settings and counts")
def project(request: Request, actor: Admin, found: Named) -> ManagedSay:
    """Everything about it."""
    return _managed(request, found)


@router.put("/projects/{project}", summary="Make or change a project")
async def save(request: Request, actor: Admin, project: str, body: ProjectBody) -> ManagedSay:
    """All settings at once. 422 where another project asks the questions of this purpose, or the purpose would change."""
    here = studio(request)
    known = await asyncio.to_thread(here.projects.get, project)
    settings = body.model_dump()
    settings["purpose"] = body.purpose or (known.purpose if known else project)
    made = Project(id=project, **settings)
    await asyncio.to_thread(here.save_project, made, by=actor.name)
    return await asyncio.to_thread(_managed, request, made)


@router.post("/projects/{project}/starter", summary="Load the starter set")
async def starter(request: Request, actor: Admin, found: Named) -> New:
    """A few dozen pairs of texts in two languages, so that somebody can try labelling at once."""
    here = studio(request)
    entries = intake.entries(await asyncio.to_thread(STARTER.read_bytes), found.purpose)
    return New(new=await here.write(here.projects.add_entries, entries, by=actor.name))


@router.post("/render", summary="Markdown as the pages show it")
def render(actor: Admin, body: Text) -> Html:
    """For a preview."""
    return Html(html=markdown(body.text))


@router.get("/audit", summary="What was changed, by whom")
def audit(
    request: Request, actor: Admin,
    after: Annotated[int | None, Query(ge=0, le=LARGEST)] = None, before: Annotated[int, Query(ge=0, le=LARGEST)] = LARGEST,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Audit:  # fmt: skip
    """Changes of projects, people and secrets: those after an event (0: from the first), or else the newest before one."""
    store = studio(request).store
    found = store.events_of("admin", limit + 1, since=after or 0, before=None if after is not None else before)
    kept = found[:limit] if after is not None else found[-limit:]
    rows = []
    for event in kept:
        details = {name: value for name, value in event.payload.items() if name != "what"}
        rows.append(AuditSay(id=event.id, actor=event.actor, at=event.server_t, what=event.payload["what"], details=details))
    return Audit(rows=rows, until=rows[-1].id if rows else after or 0, more=len(found) > limit)


@router.get("/verify", summary="Look at everything in the store")
def verify(request: Request, actor: Admin) -> VerifiedSay:
    """As `backflip store verify` does; a large store takes a while."""
    try:
        found = studio(request).store.verify()
    except StorageError as problem:
        return VerifiedSay(ok=False, problem=str(problem))
    return VerifiedSay(ok=True, **dataclasses.asdict(found))


def _managed(request: Request, project: Project) -> ManagedSay:
    totals = studio(request).projects.totals(project)
    return ManagedSay(**dataclasses.asdict(project), progress=ProgressSay(**dataclasses.asdict(totals)))
