"""What the Label page talks to: questions leased to people, and everything they do, stored before it is acknowledged."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from backflip.errors import DataError
from backflip.records import Query
from backflip.store.leases import Claim
from backflip.store.projects import Project
from backflip.store.views import Answer
from backflip.web import models
from backflip.web.identity import Actor, need, someone, studio
from backflip.web.render import markdown, masked, visible

if TYPE_CHECKING:
    from backflip.web.server import Studio

router = APIRouter(prefix="/api/v1", tags=["label"])
RENDER = "1"
"""The version of how a question is drawn; it stands in every view."""
Labeler = Annotated[Actor, Depends(need("label"))]


def project_of(request: Request, project: str, actor: Annotated[Actor, Depends(someone)]) -> Project:
    """The project that a path names. Raises 404, to strangers 401."""
    found: Project | None = studio(request).projects.get(project)
    if found is None:
        raise HTTPException(404, f"there is no project {project[:70]!r}")
    return found


Named = Annotated[Project, Depends(project_of)]


@router.get("/projects", summary="The projects that are open")
def projects(request: Request, actor: Labeler) -> list[models.ProjectSay]:
    """Every open project, in the order they were made."""
    return [_project(project) for project in studio(request).projects.all() if project.open]


@router.get("/projects/{project}", summary="One project")
def project(found: Named, actor: Labeler) -> models.ProjectSay:
    """Its question and guideline, as whoever labels sees them."""
    return _project(found)


@router.post("/projects/{project}/claims", summary="Lease questions to answer")
async def claims(request: Request, found: Named, actor: Labeler, body: models.ClaimBody) -> models.Claims:
    """Up to `n` questions: first those this person holds already and the page has not, then new ones."""
    if not found.open:
        raise HTTPException(409, f"project {found.id} is closed")
    here = studio(request)
    have = set(body.have)

    def held() -> list[Claim]:
        return [
            claim for claim in here.store.held(actor.name)
            if claim.view.id not in have and found.asks(claim.query)
        ]  # fmt: skip

    again = (await asyncio.to_thread(held))[: body.n]
    fresh: list[Claim] = []
    if len(again) < body.n:
        wanted = (found, actor.name, body.n - len(again))
        fresh = await here.write(here.projects.claim, *wanted, seed=here.seed, render=RENDER)
    said = await asyncio.to_thread(_counts, here, found, actor.name) if body.counts else None
    items = [_shown(claim) for claim in (*again, *fresh)]
    return models.Claims(items=items, counts=said, now=here.clock())


@router.post("/events", summary="Store what a person did")
async def events(request: Request, response: Response, actor: Labeler, body: models.Events) -> models.Outcomes:
    """Store up to 64 events in their order; when this answers, the disk has them. Sent again, nothing is stored twice.

    Each event has an outcome of its own: one that is refused (a view of somebody else's, a key used for something else) does
    not stop the others. 507: the disk is full, nothing was stored, send it again later.
    """
    here = studio(request)
    waiting = [(event, _submit(here, actor.name, event)) for event in body.events]
    if waiting:  # the writer works in order, so when the last is done all are, and the event loop was woken once
        await asyncio.wait([asyncio.wrap_future(waiting[-1][1])])
    outcomes = []
    for event, future in waiting:
        try:
            result = future.result(timeout=0)
        except DataError as problem:
            outcomes.append(models.Outcome(key=event.key, status="refused", error=str(problem)))
            continue
        outcomes.append(await _outcome(here, actor, event, result))
    return models.Outcomes(outcomes=outcomes)


@router.post("/heartbeat", summary="Keep leases")
async def heartbeat(request: Request, actor: Labeler, body: models.ViewsBody) -> models.Leases:
    """Have the leases of these views last three minutes from now; a view without one is left out of the answer."""
    here = studio(request)
    waiting = [(view, here.submit(here.store.heartbeat, view, actor.name)) for view in dict.fromkeys(body.views)]
    until = {view: await asyncio.wrap_future(future) for view, future in waiting}
    return models.Leases(until={view: end for view, end in until.items() if end is not None})


@router.post("/release", summary="Give leases back")
async def release(request: Request, actor: Labeler, body: models.ViewsBody) -> models.Done:
    """Give questions back unanswered, so that others can have them at once."""
    here = studio(request)
    for future in [here.submit(here.store.release, view, actor.name) for view in dict.fromkeys(body.views)]:
        await asyncio.wrap_future(future)
    return models.Done()


@router.get("/projects/{project}/mine", summary="A person's own numbers")
def mine(request: Request, found: Named, actor: Labeler) -> dict[str, Any]:
    """Answers, skips, ties and the median time of whoever asks; nobody else's."""
    answers = studio(request).projects.own_answers(found, actor.name)
    times = sorted(v.ms for v in answers if v.ms > 0)
    return {
        "answers": len(answers),
        "skips": sum(v.choice == "skip" for v in answers),
        "ties": sum(v.choice == "tie" for v in answers),
        "median_ms": times[len(times) // 2] if times else None,
    }


@router.get("/media/{name}", summary="A clip or picture")
def media(request: Request, name: str, actor: Labeler) -> Response:
    """A clip by the SHA-256 of its bytes; parts of it by Range."""
    found = studio(request).projects.media(name)
    if found is None:
        raise HTTPException(404, "there is no such clip")
    type, content = found
    headers = {"cache-control": "private, max-age=31536000, immutable", "accept-ranges": "bytes"}
    asked = _range(request.headers.get("range", ""), len(content))
    if asked is None:
        return Response(content, media_type=type, headers=headers)
    start, end = asked
    headers["content-range"] = f"bytes {start}-{end - 1}/{len(content)}"
    return Response(content[start:end], 206, media_type=type, headers=headers)


def _counts(here: Studio, project: Project, name: str) -> models.Counts:
    counts = here.projects.count(project, name)
    return models.Counts(total=counts.total, answered=counts.answered, open=counts.open)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for, as [start, end); None for all of them or a header that says nothing useful."""
    unit, _, span = header.partition("=")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not dash or "," in span or not (first + last).isdigit() or len(span) > 40:
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else None


def _project(project: Project) -> models.ProjectSay:
    return models.ProjectSay(
        id=project.id, title=project.title or project.id, question=project.question,
        question_html=markdown(project.question), guideline_html=markdown(project.guideline), answers=project.answers,
        floor_ms=project.floor_ms, whole_clip=project.whole_clip, reveal=project.reveal, open=project.open,
    )  # fmt: skip


def _shown(claim: Claim) -> models.Shown:
    view, query = claim.view, claim.query
    prompt = masked(query.prompt.plain, query.policies)
    return models.Shown(
        view=view.id, until=claim.until, form=query.form, prompt_raw=visible(prompt), prompt_html=markdown(prompt),
        slots=[slot(query, i, handle) for i, handle in zip(view.places, view.handles, strict=True)],
    )  # fmt: skip


def slot(query: Query, i: int, handle: str) -> models.Slot:
    """Completion `i` of a question as a page shows it, the names of those who may have written it hidden."""
    content = query.completions[i]
    if query.form == "clip":
        return models.Slot(handle=handle, media=content)
    if query.form == "board":
        try:
            board = json.loads(content)
        except ValueError:
            board = None
        if isinstance(board, dict):
            return models.Slot(handle=handle, board=board)
    text = masked(content, query.policies)
    return models.Slot(handle=handle, raw=visible(text), html=markdown(text))


def _submit(here: Studio, who: str, event: models.AnyEvent) -> Future[Any]:
    """Have the store's writer do what an event asks for."""
    store, view, key, client_t = here.store, event.view, f"{who}:{event.key}", event.t or None
    match event:
        case models.AnswerEvent():
            more = event.model_dump(include={"ms", "note", "strength", "code", "scores", "seen"})
            return here.submit(store.answer, view, who, event.groups, key=key, client_t=client_t, **more)
        case models.UndoEvent():
            return here.submit(here.undo, view, who, key=key, client_t=client_t)
        case _:
            payload = event.model_dump(exclude={"key", "view", "t", "kind"})
            return here.submit(here.note, event.kind, who, payload, key=key, view_id=view, client_t=client_t)


async def _outcome(here: Studio, actor: Actor, event: models.AnyEvent, result: Answer | int) -> models.Outcome:
    if isinstance(result, int):  # a note
        return models.Outcome(key=event.key, status="stored", event=result)
    known = {"repeated": result.repeated, "late": result.late, "surplus": result.surplus}
    status: Any = next((name for name, is_so in known.items() if is_so), "stored")
    revealed = isinstance(event, models.AnswerEvent) and here.reveals
    reveal = await asyncio.to_thread(here.reveal, event.view, actor.name) if revealed else {}
    return models.Outcome(key=event.key, status=status, event=result.event_id, reveal=reveal)
