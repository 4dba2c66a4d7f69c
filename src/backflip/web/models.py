"""What the API takes and gives, typed strictly: `false` is no number, "3" is no 3, and an unknown field is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KEY = r"^[A-Za-z0-9_-]{8,64}$"
Text = Annotated[str, Field(max_length=4000)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Say(BaseModel):
    """A response."""

    model_config = ConfigDict(extra="forbid")


class Event(Body):
    """Something a person did on a page. `key` names it: sent again, it is stored once. `t` is the page's clock, seconds."""

    key: Annotated[str, Field(pattern=KEY)]
    view: Annotated[str, Field(max_length=64)]
    t: Annotated[float, Field(ge=0, le=1e11)] = 0.0


class AnswerEvent(Event):
    """An answer: groups of handles from best to worst, equal ones together; [] is a skip; `scores` make it a rating."""

    kind: Literal["answer"]
    groups: Annotated[list[Annotated[list[str], Field(max_length=16)]], Field(max_length=16)] = []
    scores: Annotated[dict[str, float], Field(max_length=16)] = {}
    strength: Annotated[int, Field(ge=0, le=4)] = 0
    code: Annotated[str, Field(max_length=16)] = ""
    note: Text = ""
    ms: Annotated[int, Field(ge=0, le=10**9)] = 0
    seen: Annotated[dict[str, float], Field(max_length=32)] = {}


class UndoEvent(Event):
    """The answer to a view taken back."""

    kind: Literal["undo"]


class EditEvent(Event):
    """A better wording of the completion in one place."""

    kind: Literal["edit"]
    handle: Annotated[str, Field(max_length=64)]
    text: Annotated[str, Field(max_length=60_000)]


class SpanEvent(Event):
    """A stretch of a completion with a tag: characters of its raw or its rendered text, or seconds of a clip."""

    kind: Literal["span"]
    handle: Annotated[str, Field(max_length=64)]
    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(ge=0)]
    of: Literal["raw", "rendered", "clip"] = "raw"
    tag: Annotated[str, Field(max_length=200)]


class FlagEvent(Event):
    """Something is wrong with a question."""

    kind: Literal["flag"]
    note: Text = ""


AnyEvent = Annotated[AnswerEvent | UndoEvent | EditEvent | SpanEvent | FlagEvent, Field(discriminator="kind")]


class Events(Body):
    """What a page's outbox sends: up to 64 events in the order they happened."""

    events: Annotated[list[AnyEvent], Field(min_length=1, max_length=64)]


class Outcome(Say):
    """What became of one event. A refused one says why; `reveal` names who wrote what, where the project says so."""

    key: str
    status: Literal["stored", "repeated", "late", "surplus", "refused"]
    event: int = 0
    error: str = ""
    reveal: dict[str, str] = {}


class Outcomes(Say):
    """What became of each event, in the order they came."""

    outcomes: list[Outcome]


class Counts(Say):
    """Questions in all, answered by this person, and with room for them now or later."""

    total: int
    answered: int
    open: int


class Slot(Say):
    """One completion as it is shown: its handle, and a text (plain and as safe HTML), a clip or a board."""

    handle: str
    raw: str = ""
    html: str = ""
    media: str = ""
    board: dict[str, Any] | None = None


class Shown(Say):
    """A question as one person sees it. It is theirs to answer until `until`, seconds since 1970 by the server's clock."""

    view: str
    until: float
    form: Literal["text", "clip", "board"]
    prompt_raw: str
    prompt_html: str
    slots: list[Slot]


class ClaimBody(Body):
    """How many questions to lease, the views that the page still has and needs not be given again, and whether to count how far
    the project is, which takes longer the more questions it has."""

    n: Annotated[int, Field(ge=1, le=64)] = 1
    have: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)] = []
    counts: bool = True


class Claims(Say):
    """Questions leased, and how far the project is, if that was asked."""

    items: list[Shown]
    counts: Counts | None
    now: float


class ViewsBody(Body):
    """Views whose leases are to be kept, or given back."""

    views: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)]


class Leases(Say):
    """Until when each view is still leased; one that is missing has run out."""

    until: dict[str, float]


class ProjectSay(Say):
    """A project as whoever labels sees it; what only its makers see is left out."""

    id: str
    title: str
    question: str
    question_html: str
    guideline_html: str
    answers: Literal["compare", "rate"]
    floor_ms: int
    whole_clip: bool
    reveal: bool
    open: bool


class Me(Say):
    """Who is signed in."""

    name: str
    role: str
    permissions: list[str]


class Problem(Say):
    """Why something was not done, in one sentence."""

    detail: str


class Done(Say):
    """It is done."""

    ok: bool = True
