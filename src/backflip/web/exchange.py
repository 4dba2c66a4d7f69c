"""What programs talk to: questions and clips in, verdicts and comparisons out by cursor, whole stores in and out."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi import Query as Asked
from fastapi.responses import StreamingResponse
from pydantic import Field

from backflip.errors import DataError
from backflip.records import Form, Message, Prompt, Query, Verdict
from backflip.store import Store, jsonl
from backflip.store.projects import TYPES, Project, Projects, gold_purpose
from backflip.web import intake, models
from backflip.web.identity import Actor, need, studio
from backflip.web.labels import Named, project_of
from backflip.web.manage import LARGEST, New, ProgressSay

router = APIRouter(prefix="/api/v1", tags=["exchange"])
Admin = Annotated[Actor, Depends(need("admin"))]
Runner = Annotated[Actor, Depends(need("run"))]
Reader = Annotated[Actor, Depends(need("read"))]
Since = Annotated[int, Asked(ge=0, le=LARGEST)]
Limit = Annotated[int, Asked(ge=1, le=1000)]
LINES = "application/jsonl"
FILE = {"type": "string", "format": "binary"}
Said = Annotated[str, Field(max_length=200_000)]


class MessageBody(models.Body):
    """One turn of a conversation."""

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Said


PromptBody = Said | Annotated[list[MessageBody], Field(min_length=1, max_length=1000)]


class QueryBody(models.Body):
    """A question. The prompt is text or the messages so far; `policies` name who wrote each completion, which no page shows;
    a completion is a text, the id of a clip, or a board's JSON, as `form` says; `columns` are kept with the prompt."""

    prompt: PromptBody
    completions: Annotated[list[Said], Field(min_length=2, max_length=16)]
    policies: list[Annotated[str, Field(max_length=200)]] = Field(default=[], max_length=16)
    form: Form = "text"
    columns: dict[str, Any] = Field(default={})


class QueriesBody(models.Body):
    """Questions to be asked, in this order."""

    queries: Annotated[list[QueryBody], Field(min_length=1, max_length=1000)]


class GoldBody(models.Body):
    """A pair whose answer is known: the left (first) one is better, the right one, or neither."""

    prompt: PromptBody
    completions: Annotated[list[Said], Field(min_length=2, max_length=2)]
    choice: Literal["left", "right", "tie"]


class GoldsBody(models.Body):
    """Pairs whose answers are known."""

    golds: Annotated[list[GoldBody], Field(min_length=1, max_length=1000)]


class Pushed(models.Say):
    """How many of the questions were new, and the id of each in their order."""

    new: int
    ids: list[str]


class Kept(models.Say):
    """By what name a clip is known: the SHA-256 of its bytes."""

    id: str


class Imported(models.Say):
    """How many rows a file held, and how many of them were new."""

    rows: int
    new: int


class VerdictSay(models.Say):
    """What somebody answered; see `records.Verdict`."""

    id: str
    query_id: str
    annotator: str
    choice: str
    ranking: list[list[int]]
    shown_first: int
    ms: int
    at: float
    note: str
    strength: int
    code: str
    scores: list[float]


class PromptSay(models.Say):
    """A prompt: text, or the messages of a conversation, and the other columns of its row."""

    text: str | list[dict[str, str]]
    columns: dict[str, Any]


class ComparisonSay(models.Say):
    """What we believe because of an answer; see `records.Comparison`."""

    prompt: PromptSay
    left: str
    right: str
    p_left: float
    weight: float
    margin: float
    annotator: str
    query_id: str
    left_policy: str
    right_policy: str
    strength: int = 0
    left_rating: float | None = None
    right_rating: float | None = None
    at: float = 0.0


class Verdicts(models.Say):
    """Standing answers in the order they were given. `until` is the `since` of the next request, which never repeats one nor
    leaves one out; `more` says whether there are more already. An answer taken back later is not announced."""

    rows: list[VerdictSay]
    until: int
    more: bool


class Comparisons(models.Say):
    """The comparisons that answers state: none for a skip, one for a pair, all pairs of a ranking. `until` and `more` are as for
    verdicts, and so is `limit`, which counts answers."""

    rows: list[ComparisonSay]
    until: int
    more: bool


@router.post("/projects/{project}/queries", summary="Ask questions")
async def push(request: Request, actor: Runner, found: Named, body: QueriesBody) -> Pushed:
    """All of them are stored or none. What a question says is its identity: sent again, it is not asked again."""
    here = studio(request)
    queries = await asyncio.to_thread(lambda: [_query(here.projects, i, each, found) for i, each in enumerate(body.queries, 1)])
    new = await here.write(here.store.add_queries, queries)
    return Pushed(new=new, ids=[query.id for query in queries])


@router.post("/projects/{project}/golds", summary="Add questions whose answer is known")
async def push_golds(request: Request, actor: Admin, found: Named, body: GoldsBody) -> New:
    """They are mixed into the others as often as the project says, and show how well people answer."""
    here, purpose = studio(request), gold_purpose(found.purpose)
    known = [(Query(_prompt(each.prompt, {}), tuple(each.completions), purpose=purpose), each.choice) for each in body.golds]
    return New(new=await here.write(here.projects.set_golds, known, by=actor.name))


@router.get("/projects/{project}/progress", summary="How far a project is")
def progress(request: Request, actor: Reader, found: Named) -> ProgressSay:
    """Counts, cheap enough to ask for every few seconds."""
    totals = studio(request).projects.totals(found)
    return ProgressSay(**{name: getattr(totals, name) for name in ProgressSay.model_fields})


@router.get("/projects/{project}/verdicts", summary="Answers, by cursor")
def verdicts(request: Request, actor: Reader, found: Named, since: Since = 0, limit: Limit = 500) -> Verdicts:
    """Start with `since` 0, go on with the `until` of the last response."""
    store = studio(request).store
    until = store.page_end(since, limit, found.purpose)
    rows = [VerdictSay(id=each.id, **_whole(each)) for each in store.verdicts(since, found.purpose, until)]
    return Verdicts(rows=rows, until=until, more=until < store.cursor)


@router.get("/projects/{project}/comparisons", summary="Comparisons, by cursor")
def comparisons(request: Request, actor: Reader, found: Named, since: Since = 0, limit: Limit = 200) -> Comparisons:
    """Start with `since` 0, go on with the `until` of the last response."""
    store = studio(request).store
    until = store.page_end(since, limit, found.purpose)
    rows = [ComparisonSay.model_validate(each.to_json()) for each in store.comparisons(since, found.purpose, until)]
    return Comparisons(rows=rows, until=until, more=until < store.cursor)


@router.post(
    "/media", summary="Keep a clip or picture",
    openapi_extra={"requestBody": {"required": True, "content": {type: {"schema": FILE} for type in TYPES}}},
)  # fmt: skip
async def keep(request: Request, actor: Runner) -> Kept:
    """The body is the file, its type the content type. The id is a completion of questions of form "clip"."""
    here, type = studio(request), request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Kept(id=await here.write(here.projects.add_media, await request.body(), type))


@router.post(
    "/import", summary="Take a file of questions",
    openapi_extra={"requestBody": {"required": True, "content": {LINES: {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def take(
    request: Request, actor: Admin,
    project: Annotated[str, Asked(max_length=64, description="Whose questions they become; else by each row's purpose.")] = "",
    known: Annotated[bool, Asked(description="The rows say what the answer is: by `choice`, or by what was chosen.")] = False,
) -> Imported:  # fmt: skip
    """JSON lines or a JSON list, gzipped or not: questions, preference rows of any usual format, or the export of a store.

    Every row is good and stored, or nothing is, and the sentence names the line.
    """
    here = studio(request)
    found = await asyncio.to_thread(project_of, request, project, actor) if project else None
    content = await request.body()
    if known:
        if found is None:
            raise HTTPException(422, "known answers are a project's; say which")
        golds = await asyncio.to_thread(intake.golds, content, found.purpose)
        return Imported(rows=len(golds), new=await here.write(here.projects.set_golds, golds, by=actor.name))
    entries = await asyncio.to_thread(intake.entries, content, found.purpose if found else None)
    return Imported(rows=len(entries), new=await here.write(here.projects.add_entries, entries, by=actor.name))


@router.get(
    "/export", summary="Everything as JSON lines", response_class=StreamingResponse,
    responses={200: {"content": {LINES: {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def export(request: Request, actor: Admin) -> StreamingResponse:
    """What was asked and answered, taken-back answers included, as it stands now; `import` into an empty store gives the same.

    It is written to a file first, so that whoever downloads slowly keeps nothing open in the store.
    """
    file = await asyncio.to_thread(_export, studio(request).store)

    async def parts() -> AsyncIterator[bytes]:
        with file:
            while part := await asyncio.to_thread(file.read, 2**16):
                yield part

    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    headers = {"content-disposition": 'attachment; filename="backflip.jsonl"', "content-length": str(size)}
    return StreamingResponse(parts(), media_type=LINES, headers=headers)


def _export(store: Store) -> IO[bytes]:
    """A file without a name that holds the store as JSON lines; it is gone when it is closed."""
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (whoever is sent it closes it)
    try:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        store.write_jsonl(text)
        text.detach()
    except BaseException:
        file.close()
        raise
    return file


def _prompt(given: str | list[MessageBody], columns: dict[str, Any]) -> Prompt:
    return Prompt(given if isinstance(given, str) else tuple(Message(turn.role, turn.content) for turn in given), columns)


def _query(projects: Projects, number: int, given: QueryBody, project: Project) -> Query:
    try:
        query = Query(
            _prompt(given.prompt, given.columns), tuple(given.completions), tuple(given.policies), project.purpose, given.form
        )
        jsonl.sound(query)
    except (TypeError, ValueError) as problem:
        raise DataError(f"question {number}: {problem}") from problem
    if query.form == "clip":
        for name in query.completions:
            if projects.media(name) is None:
                raise DataError(f"question {number}: there is no clip {name[:70]!r}; send it to /api/v1/media first")
    return query


def _whole(record: Verdict) -> dict[str, Any]:
    """A verdict with the fields that its JSON leaves out where they say nothing."""
    return {"strength": 0, "code": "", "scores": [], **record.to_json()}
