"""What the Runs page talks to: run folders as they are, while training writes them.

A run is named by its id, its path below the folder of runs, as in `/api/v1/runs/demo/round1/ppo/card`; what is asked of it
stands last, so no id can be mistaken for it. `.root` names the folder itself where that is a run. An id is compared with those
of the runs that were found and never becomes a path.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import pathlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field, model_validator

from backflip.errors import ConfigError
from backflip.runs import catalogue, control
from backflip.runs.alarms import KINDS
from backflip.runs.catalogue import Beside, RunCard
from backflip.runs.curves import POINTS, Line
from backflip.runs.guard_story import excess, most_suspicious, read_guard, said
from backflip.web import models, pairs, stream
from backflip.web.identity import Actor, need, studio
from backflip.web.overview import LABELS, WALL, Overview, silent_after
from backflip.web.render import visible

router = APIRouter(prefix="/api/v1", tags=["runs"])
ROOT = ".root"  # a browser takes "." out of an address; no run found below another has a name that begins with a dot
TOGETHER = 50  # runs that are followed by one stream
STREAMS = 16  # streams of one person: more are pages that somebody forgot
SHOWN = 64  # samples of one step

Reader = Annotated[Actor, Depends(need("read"))]
Runner = Annotated[Actor, Depends(need("run"))]
Name = Annotated[str, Field(max_length=200)]
After = Annotated[str, Query(max_length=8000, description="The id of the last event that was seen; nothing: from the beginning.")]
Wish = Literal["pause", "resume", "stop"]


class Card(models.Say):
    """A run at a glance. Times are seconds since 1970; `silent_after` seconds without a line it counts as silent.

    `metrics` are the names of those it logged last. `wish` is what was asked of it, and by whom, and is not obeyed yet or keeps
    it paused.
    """

    id: str
    name: str
    parent: str | None
    kind: str
    state: Literal["running", "paused", "finished", "stopped"]
    wish: Literal["pause", "stop"] | None
    wished_by: str
    started: float | None
    last_write: float | None
    silent_after: float | None
    step: int | None
    steps: int | None
    steps_per_second: float | None
    reward: float | None
    metrics: list[str]
    damaged: str


class Cards(models.Say):
    """All runs, and the time of the server."""

    runs: list[Card]
    now: float


class AlarmSay(models.Say):
    """Something to look at. `evidence` holds for each metric the numbers that `sentence` rests on; null is not finite."""

    level: Literal["info", "warn", "error"]
    kind: str
    step: int
    sentence: str
    evidence: dict[str, dict[str, float | None]]
    action: Literal["none", "pause", "label"]


class RunSay(models.Say):
    """One run: its card, what it was asked to do, what there is to look at, and the names of what can be drawn."""

    card: Card
    settings: dict[str, Any]
    alarms: list[AlarmSay]
    metrics: list[str]


class LineSay(models.Say):
    """One metric. `y` is null where there is a gap; `wrong` are places on the axis where it was NaN or infinite."""

    x: list[float]
    y: list[float | None]
    wrong: list[float]


class FindingSay(models.Say):
    """An alarm that a run's monitor raised: what it asks for, and as text the numbers that `sentence` rests on."""

    kind: str
    step: int
    act: Literal["warn", "mine", "pause", "stop"]
    sentence: str
    evidence: dict[str, str]


class FeatureSay(models.Say):
    """A feature of texts: its mean at first and now, and what the proxy and the judges (null: there are none) pay for it."""

    feature: str
    before: float
    now: float
    proxy: float
    judges: float | None


class SuspectSay(models.Say):
    """A text that the proxy likes more than the judges, beside what the policy wrote at first; scores in standard deviations."""

    step: int
    prompt: str
    text: str
    before: str
    proxy: float
    judges: float | None


class GuardSay(models.Say):
    """What the monitor of a run has seen and decided so far. `best_step` is the step whose policy is kept in best/; `lines` has
    each figure of its looks over the steps. `watched` false: nobody looks, and the rest is empty."""

    watched: bool
    decision: Literal["go", "pause", "stop"]
    best_step: int
    looks: int
    findings: list[FindingSay]
    lines: dict[str, LineSay]
    features: list[FeatureSay]
    suspects: list[SuspectSay]


class Lines(models.Say):
    """Metrics of a run over an axis, and the cursor from which a stream goes on."""

    run: str
    x: Literal["step", "wall", "labels"]
    cursor: str
    lines: dict[str, LineSay]


class Text(models.Say):
    """What was written at a step, whether it ended, and the numbers that stand with it."""

    step: int
    text: str
    finished: bool | None
    scores: dict[str, float]


class Sample(models.Say):
    """The sample in place `row` of its step, and what was written first for the same prompt. `askable` if they differ."""

    row: int
    prompt: str
    now: Text
    before: Text | None
    askable: bool


class SamplesSay(models.Say):
    """The samples of a step (at most 64 of `total`), and all steps that have some."""

    step: int | None
    steps: list[int]
    total: int
    rows: list[Sample]


class ControlBody(models.Body):
    """What is asked of a run."""

    wish: Wish


class LabelBody(models.Body):
    """Which samples become questions of `project`: those in `rows` of `step`, or `n`: the first ones of that step or, with the
    kind of an `alarm`, the most suspicious of the last steps. Without `step`, the last one."""

    project: Annotated[str, Field(max_length=64)]
    step: Annotated[int, Field(ge=0)] | None = None
    rows: list[Annotated[int, Field(ge=0)]] = Field([], max_length=SHOWN)
    n: Annotated[int, Field(ge=1, le=SHOWN)] | None = None
    alarm: Annotated[str, Field(max_length=40)] = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.rows) == (self.n is not None):
            raise ValueError("give either rows or n")
        if self.rows and (self.alarm or self.step is None):
            raise ValueError("rows go with a step, and not with an alarm")
        if self.alarm and self.alarm not in KINDS:
            raise ValueError(f"there is no alarm of kind {self.alarm!r}")
        return self


class Labelled(models.Say):
    """How many questions were `new` and how many were `known` already; `same` samples say what was said before, and `alone`
    ones answer a prompt that was not answered before."""

    new: int
    known: int
    same: int
    alone: int


class Run(NamedTuple):
    """A run that a path names, and its folder."""

    id: str
    folder: pathlib.Path


def found(request: Request, id: Annotated[str, Path(max_length=1000, description="The run's id.")]) -> Run:
    """The run that a path names. Raises 404."""
    id = "." if id == ROOT else id
    folder = _overview(request).folder(id)
    if folder is None:
        raise HTTPException(404, f"there is no run {id[:200]!r} here; it may have been moved")
    return Run(id, folder)


Found = Annotated[Run, Depends(found)]


@router.get("/runs", summary="All runs")
def cards(request: Request, actor: Reader) -> Cards:
    """Every run folder below the studio's, in the order of their ids."""
    overview = _overview(request)
    return Cards(runs=[_card(overview, card) for card in overview.cards()], now=overview.clock())


ENDLESS = {"x-endless": True}
"""In the description of the API: this answer does not end by itself."""


@router.get("/runs/stream", summary="Follow several runs", response_class=StreamingResponse, openapi_extra=ENDLESS)
async def stream_many(
    request: Request, actor: Reader, run: Annotated[list[str], Query(max_length=TOGETHER)] = [], after: After = "",  # noqa: B006
    last_event_id: Annotated[str, Header(max_length=8000)] = "",
) -> StreamingResponse:  # fmt: skip
    """What is new in the runs named by `run`, and the cards of all runs whenever one changes. Server-sent events.

    A browser opens few connections to one server, so a page follows all its runs by one. Runs that are gone are passed over.
    """
    overview = _overview(request)
    known = {card.id: Run(card.id, card.folder) for card in await asyncio.to_thread(overview.cards)}
    wanted = [known[id] for id in dict.fromkeys("." if id == ROOT else id for id in run) if id in known]
    return _stream(request, actor, wanted, last_event_id or after, cards_too=True)


@router.get("/runs/{id:path}/stream", summary="Follow a run", response_class=StreamingResponse, openapi_extra=ENDLESS)
async def stream_one(
    request: Request, actor: Reader, run: Found, after: After = "", last_event_id: Annotated[str, Header(max_length=8000)] = ""
) -> StreamingResponse:
    """What is new in one run, as server-sent events: rows of metrics and timings, and word of new samples."""
    return _stream(request, actor, [run], last_event_id or after, cards_too=False)


@router.get("/runs/{id:path}/card", summary="One run")
def one(request: Request, actor: Reader, run: Found) -> RunSay:
    """Its card, settings, alarms, and the names of its metrics."""
    overview = _overview(request)
    return _whole(overview, _now(overview, run))


@router.get("/runs/{id:path}/guard", summary="What a run's monitor found")
def guard(actor: Reader, run: Found) -> GuardSay:
    """Every alarm of its monitor so far, its looks, what the proxy pays for, and the most suspicious texts."""
    report = read_guard(run.folder)
    return _guard(report or {}, watched=report is not None)


@router.get("/runs/{id:path}/series", summary="Metrics of a run", response_model=Lines)
def lines(
    request: Request, actor: Reader, run: Found,
    names: Annotated[list[Name], Query(max_length=200, description="Which metrics; nothing: all.")] = [],  # noqa: B006
    x: Annotated[Literal["step", "wall", "labels"], Query(description="Over what.")] = "step",
    points: Annotated[int, Query(ge=8, le=POINTS)] = POINTS,
) -> Response:  # fmt: skip
    """Lines of at most `points` points, of longer runs the lowest and highest of neighbours.

    Over `wall`, the seconds of training so far, and over `labels`, the labels learned from, where the run logs them; points
    of which the run does not say where they stand are left out. The seconds themselves can be asked for as `wall`,
    `timings/total` and `timings/PART`.
    """
    overview = _overview(request)
    place = None if x == "step" else overview.axis(run.folder, WALL if x == "wall" else LABELS)
    say = functools.partial(_line, place=place)
    drawn, cursor = overview.lines(run.folder, names or None, points, say=say, how=x)
    told = _json({"run": run.id, "x": x, "cursor": cursor, "lines": {}})
    body = ",".join(f"{_json(name)}:{text}" for name, text in drawn.items())
    return Response(f"{told[:-2]}{body}}}}}", media_type="application/json")


@router.get("/runs/{id:path}/samples", summary="What a run wrote")
def samples(
    actor: Reader,
    run: Found,
    step: Annotated[int | None, Query(ge=0, description="At or before this step; nothing: the last.")] = None,
) -> SamplesSay:
    """The samples of a step, each beside what was written first for the same prompt, if it was."""
    had = catalogue.samples(run.folder, step)
    rows = [_sample(i, pair) for i, pair in enumerate(had.rows[:SHOWN])]
    return SamplesSay(step=had.step, steps=list(had.steps), total=len(had.rows), rows=rows)


@router.post("/runs/{id:path}/control", summary="Pause, resume or stop a run")
def ask(request: Request, actor: Runner, run: Found, body: ControlBody) -> Card:
    """Ask a run to wait or to end after its current step, which is saved; or take back what was asked. 409: it is not running."""
    try:
        if body.wish == "resume":
            control.resume(run.folder)
        else:
            {"pause": control.pause, "stop": control.stop}[body.wish](run.folder, by=actor.name)
    except ConfigError:
        raise HTTPException(409, f"run {run.id} is not running, so it cannot be asked to {body.wish}") from None
    overview = _overview(request)
    return _card(overview, _now(overview, run))


@router.post("/runs/{id:path}/label", summary="Have people compare samples")
async def label(request: Request, actor: Runner, run: Found, body: LabelBody) -> Labelled:
    """Make questions of samples, each beside what was written first for the same prompt. Sent again, nothing is asked twice."""
    here = studio(request)
    project = await asyncio.to_thread(here.projects.get, body.project)
    if project is None or not project.open:
        raise HTTPException(404 if project is None else 409, f"there is no open project {body.project[:64]!r}")
    chosen = await asyncio.to_thread(_chosen, run, body)
    made = pairs.questions(chosen, name=_overview(request).name(run.id), purpose=project.purpose)
    new = await here.write(here.store.add_queries, made.queries) if made.queries else 0
    return Labelled(new=new, known=len(made.queries) - new, same=made.same, alone=made.alone)


def _overview(request: Request) -> Overview:
    return studio(request).overview


def _now(overview: Overview, run: Run) -> RunCard:
    card = overview.card(run.id)
    if card is None:
        raise HTTPException(404, f"run {run.id} has just been moved")
    return card


def _chosen(run: Run, body: LabelBody) -> Sequence[Beside]:
    if body.alarm:
        return pairs.suspicious(run.folder, body.alarm, body.n or 0, body.step)
    had = catalogue.samples(run.folder, body.step)
    if body.n is not None:
        return had.rows[: body.n]
    if had.step != body.step:
        raise HTTPException(422, f"run {run.id} has no samples of step {body.step}")
    wrong = [row for row in body.rows if row >= len(had.rows)]
    if wrong:
        raise HTTPException(422, f"step {body.step} of run {run.id} has {len(had.rows)} samples; there is no row {wrong[0]}")
    return [had.rows[row] for row in dict.fromkeys(body.rows)]


_open: Counter[str] = Counter()
"""How many streams each person has open."""


def _stream(request: Request, actor: Actor, runs: Sequence[Run], after: str, *, cards_too: bool) -> StreamingResponse:
    if _open[actor.name] >= STREAMS:
        raise HTTPException(429, f"{actor.name} has {STREAMS} streams open; close a page", {"Retry-After": "5"})
    here = studio(request)
    overview = here.overview

    def allowed() -> bool:
        again = here.identities.of(request)
        return again is not None and again.may("read")

    def say(cards: Sequence[RunCard]) -> list[dict[str, Any]]:
        return [_card(overview, card).model_dump() for card in cards]

    async def events() -> AsyncIterator[str]:
        _open[actor.name] += 1
        try:
            told = stream.events(
                overview, stream.follow(runs, after), say=say if cards_too else None, allowed=allowed, closing=here.closing
            )
            async for text in told:
                yield text
        finally:
            _open[actor.name] -= 1

    # A proxy in front that collects answers before it passes them on would hold events back for minutes.
    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _card(overview: Overview, card: RunCard) -> Card:
    return Card(
        id=card.id, name=overview.name(card.id), parent=card.parent, kind=card.kind, state=card.state,
        wish=card.wish.kind if card.wish else None, wished_by=card.wish.by if card.wish else "", started=card.started,
        last_write=card.last_write, silent_after=silent_after(card), step=card.step, steps=card.steps,
        steps_per_second=card.steps_per_second, reward=card.reward,
        metrics=list(card.metrics), damaged=card.damaged,
    )  # fmt: skip


def _whole(overview: Overview, card: RunCard) -> RunSay:
    found = [
        AlarmSay(
            level=alarm.level, kind=alarm.kind, step=alarm.step, sentence=alarm.sentence, action=alarm.action,
            evidence={name: {what: _finite(x) for what, x in numbers.items()} for name, numbers in alarm.evidence.items()},
        )
        for alarm in overview.alarms(card)
    ]  # fmt: skip
    names = overview.metric_names(card.folder)
    return RunSay(card=_card(overview, card), settings=_sayable(card.settings), alarms=found, metrics=names)


def _guard(report: Mapping[str, Any], *, watched: bool) -> GuardSay:
    looks = report.get("looks", [])
    steps = [look["step"] for look in looks]
    names = list(dict.fromkeys(name for look in looks for name in look if name != "step"))
    return GuardSay(
        watched=watched, decision=report.get("decision", "go"), best_step=report.get("best_step", 0), looks=len(looks),
        findings=[
            FindingSay(
                kind=row["kind"], step=row["step"], act=row["act"], sentence=visible(row["sentence"]),
                evidence={visible(name): text for name, text in said(row["evidence"]).items()},
            )
            for row in report.get("findings", [])
        ],
        lines={
            name: LineSay(x=steps, y=[_finite(look[name]) if name in look else None for look in looks], wrong=[])
            for name in names
        },
        features=[
            FeatureSay(**{**row, "feature": visible(row["feature"])})
            for row in sorted(report.get("features", []), key=excess, reverse=True)
        ],
        suspects=[
            SuspectSay(
                step=row["step"], prompt=visible(row["prompt"]), text=visible(row["completion"]), before=visible(row["before"]),
                proxy=row["proxy"], judges=row["quality"],
            )
            for row in most_suspicious(report)
        ],
    )  # fmt: skip


def _line(line: Line, place: Mapping[int, float] | None) -> str:
    """A line as JSON, six digits of each value: more cannot be seen."""
    ys = [None if y is None else float(f"{y:.6g}") for y in line.values]
    if place is None:
        return _json({"x": list(line.steps), "y": ys, "wrong": list(line.not_finite)})
    known = [i for i, step in enumerate(line.steps) if step in place]
    x = [round(place[line.steps[i]], 3) for i in known]
    return _json({"x": x, "y": [ys[i] for i in known], "wrong": [round(place[s], 3) for s in line.not_finite if s in place]})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _sample(row: int, pair: Beside) -> Sample:
    prompt = pair.now.get("prompt", "")
    shown = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
    now, before = _text(pair.now), None if pair.before is None else _text(pair.before)
    made = pairs.questions([pair], name="", purpose="train")
    return Sample(row=row, prompt=visible(shown), now=now, before=before, askable=bool(made.queries))


def _text(row: Mapping[str, Any]) -> Text:
    finished = row.get("finished")
    return Text(
        step=row["step"], text=visible(pairs.text(dict(row))), finished=finished if isinstance(finished, bool) else None,
        scores=pairs.scores(dict(row)),
    )  # fmt: skip


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _sayable(value: Any) -> Any:
    """A JSON value as one that every browser reads: what is not finite becomes a word."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _sayable(inner) for name, inner in value.items()}
    return [_sayable(inner) for inner in value] if isinstance(value, list | tuple) else value
