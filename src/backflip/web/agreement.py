"""What the Agreement page talks to: how far people, judges and reward models agree, and what is decided where they do not.

Who wrote a completion is as hidden here as on the Label page, and the places of completions are drawn for each reader: whoever
decides should not know either. Others' answers are shown, so nobody reads here who only labels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request

from backflip.errors import DataError, StorageError
from backflip.records import Query, Verdict
from backflip.seeds import Seeds
from backflip.store.adjudications import Adjudication, latest
from backflip.store.following import question
from backflip.store.projects import Project
from backflip.web.agreement_models import (
    AdjudicationBody,
    AdjudicationSay,
    AgreementSay,
    ContestedSay,
    FailureSay,
    FigureSay,
    ItemSay,
    NoticeSay,
    OpinionSay,
    PairSay,
    ProjectSay,
    RaterSay,
    ReportSay,
    Stored,
)  # fmt: skip
from backflip.web.identity import Actor, need, studio
from backflip.web.labels import Named, slot
from backflip.web.render import markdown, masked, visible

if TYPE_CHECKING:
    from backflip.feedback.figures import Agreement, Contested
    from backflip.web.reports import Failure, Report

router = APIRouter(prefix="/api/v1/agreement", tags=["agreement"])
Reader = Annotated[Actor, Depends(need("read"))]
Adjudicator = Annotated[Actor, Depends(need("adjudicate"))]

MOST_RATERS = 500  # rows of the table, those with most answers
MOST_IN_MATRIX = 30
EXCERPT = 140
MOST_LISTED = 1000
STEPS = {"read": "reading the answers", "count": "counting the answers"}


@router.get("", summary="The projects whose answers can be looked at")
def projects(request: Request, actor: Reader) -> list[ProjectSay]:
    """All of them, closed ones too, in the order they were made."""
    return [
        ProjectSay(id=each.id, title=each.title or each.id, open=each.open, overlap=each.overlap)
        for each in studio(request).projects.all()
    ]


@router.get("/{project}", summary="How far a project's answers can be trusted")
async def report(request: Request, actor: Reader, found: Named) -> AgreementSay:
    """Agreement, each labeler, each two, and what is contested. Worked out in the background: while a newer report is on its way,
    the last good one is given. 503 with the step that failed where there is none."""
    here = studio(request)
    newest = await here.reports.find(found)
    if newest.report is None:
        assert newest.failure is not None
        raise StorageError(f"{STEPS[newest.failure.step]} of project {found.id} failed: {newest.failure.problem}")
    said = await asyncio.to_thread(_report, newest.report)
    return AgreementSay(report=said, current=newest.current, failure=_failure(newest.failure))


@router.get("/{project}/items/{query}", summary="A question with everything that was said of it")
def item(request: Request, actor: Reader, found: Named, query: str) -> ItemSay:
    """Prompt, completions, everybody's answers with their reasons, and what was decided. Places are drawn for whoever asks."""
    here = studio(request)
    asked, given = _asked(request, found, query)
    people = {person.name for person in here.accounts.everybody()}
    places = Seeds(0).permutation(len(asked.completions), "adjudicate", actor.name, query)
    decided = [each for each in here.store.adjudications(found.purpose) if each.verdict.query_id == query]
    prompt = masked(asked.prompt.plain, asked.policies)
    opinions = sorted((_opinion(asked, each, each.annotator in people) for each in given), key=lambda each: not each.person)
    return ItemSay(
        query=query, form=asked.form, prompt_raw=visible(prompt), prompt_html=markdown(prompt), places=places,
        slots=[slot(asked, i, str(i)) for i in places], opinions=opinions, adjudications=_adjudications(decided),
    )  # fmt: skip


@router.get("/{project}/adjudications", summary="What was decided")
def adjudications(request: Request, actor: Reader, found: Named) -> list[AdjudicationSay]:
    """The newest first, at most 1,000; of several about one question the last counts."""
    return _adjudications(studio(request).store.adjudications(found.purpose))[::-1][:MOST_LISTED]


@router.post("/{project}/adjudications", summary="Decide about a question")
async def adjudicate(request: Request, actor: Adjudicator, found: Named, body: AdjudicationBody) -> Stored:
    """Stored beside the answers, none of which changes, in the name of whoever decides; when this answers, the disk has it."""
    here = studio(request)
    await asyncio.to_thread(_asked, request, found, body.query)
    ranking = tuple(tuple(group) for group in body.ranking)
    try:
        verdict = Verdict(body.query, actor.name, body.choice, ranking, body.shown_first, note=body.note)
    except ValueError as problem:
        raise DataError(f"a decision about query {body.query}: {problem}") from problem
    key = f"{actor.name}:{body.key}"
    return Stored(event=await here.write(here.store.adjudicate, verdict, key=key, client_t=body.t or None))


def _asked(request: Request, project: Project, query: str) -> tuple[Query, list[Verdict]]:
    """A question of a project and its standing answers. Raises 404."""
    found = question(studio(request).store, query)
    if found is None or found[0].purpose != project.purpose:
        raise HTTPException(404, f"project {project.id} has no question {query[:64]!r}")
    return found


def _report(report: Report) -> ReportSay:
    quality = report.quality
    raters = sorted(quality.raters, key=lambda each: (not each.person, -each.n_answers, each.name))
    # Of both kinds those with most answers: people and machines are to be seen side by side.
    people, machines = ([each.name for each in raters if each.person is person] for person in (True, False))
    most = MOST_IN_MATRIX - min(len(machines), MOST_IN_MATRIX // 3)
    matrix = people[:most] + machines[: MOST_IN_MATRIX - min(len(people), most)]
    shown = set(matrix)
    return ReportSay(
        at=report.at, seconds=report.seconds, questions=report.questions, answers=report.answers, units=quality.n_units,
        overlapping=quality.n_overlapping, alpha=_figure(quality.alpha_nominal), alpha_ordinal=_figure(quality.alpha_ordinal),
        ac1=_figure(quality.ac1), raw=_figure(quality.raw), n_raters=len(raters), matrix=matrix,
        raters=[RaterSay.model_validate(each.to_json()) for each in raters[:MOST_RATERS]],
        pairs=[PairSay(**pair._asdict()) for pair in quality.pairs if {pair.a, pair.b} <= shown],
        notices=[NoticeSay(**notice._asdict()) for notice in report.notices],
        contested=_contested(report), decided=len(report.decided),
    )  # fmt: skip


def _figure(figure: Agreement) -> FigureSay:
    return FigureSay.model_validate(figure.to_json())


def _failure(failure: Failure | None) -> FailureSay | None:
    return None if failure is None else FailureSay(**failure._asdict())


def _contested(report: Report) -> list[ContestedSay]:
    """Each question once, by the pair of its completions on which people differ most."""
    units: dict[str, Contested] = {}
    for unit in report.quality.contested:
        units.setdefault(unit.query_id, unit)
    return [
        ContestedSay(
            query=id, excerpt=_excerpt(report.queries[id]), ties=unit.counts["tie"], n=sum(unit.counts.values()),
            split=sorted((unit.counts["left"], unit.counts["right"]), reverse=True), decided=id in report.decided,
        )
        for id, unit in units.items()
    ]  # fmt: skip


def _excerpt(query: Query) -> str:
    """The beginning of a prompt in one line; of a question without one, of its first completion."""
    text = query.prompt.plain.strip() or (query.completions[0] if query.form == "text" else "")
    line = " ".join(visible(masked(text[: 20 * EXCERPT], query.policies)).split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _opinion(query: Query, verdict: Verdict, person: bool) -> OpinionSay:
    return OpinionSay(
        annotator=verdict.annotator, person=person, groups=_groups(verdict), scores=list(verdict.scores),
        strength=verdict.strength, code=verdict.code, note_html=_note(verdict.note, query), ms=verdict.ms,
    )  # fmt: skip


def _groups(verdict: Verdict) -> list[list[int]]:
    """The completions from best to worst as an answer has them; [] where it has none."""
    match verdict.choice:
        case "skip":
            return []
        case "left":
            return [[0], [1]]
        case "right":
            return [[1], [0]]
        case "tie":
            return [[0, 1]]
        case "ranking":
            return [list(group) for group in verdict.ranking]
        case "rating":
            return [_scored(verdict.scores, score) for score in sorted(set(verdict.scores), reverse=True)]


def _scored(scores: Sequence[float], score: float) -> list[int]:
    return [i for i, each in enumerate(scores) if each == score]


def _note(note: str, query: Query) -> str:
    return markdown(masked(note, query.policies)) if note else ""


def _adjudications(decided: Sequence[Adjudication]) -> list[AdjudicationSay]:
    counting = {each.event_id for each in latest(decided).values()}
    return [_adjudication(each, each.event_id in counting) for each in decided]


def _adjudication(decision: Adjudication, counts: bool) -> AdjudicationSay:
    verdict, query = decision.verdict, decision.query
    values: Mapping[str, Any] = {"choice": verdict.choice, "ranking": [list(group) for group in verdict.ranking]}
    return AdjudicationSay(
        event=decision.event_id, query=verdict.query_id, excerpt=_excerpt(query), by=verdict.annotator, at=verdict.at,
        note=visible(masked(verdict.note, query.policies)), note_html=_note(verdict.note, query), counts=counts, **values,
    )  # fmt: skip
