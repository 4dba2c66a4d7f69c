"""What the Arena page talks to: ratings with intervals, which match is missing, and matches from what runs have written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import Field

from backflip.errors import DataError, UserError
from backflip.records import Query as Question
from backflip.records import Verdict
from backflip.web import models
from backflip.web.board import By, Rated, Wanted
from backflip.web.identity import Actor, need, studio

if TYPE_CHECKING:
    from backflip.arena.games import Games
    from backflip.arena.kept import KeptRun
    from backflip.web.server import Studio

router = APIRouter(prefix="/api/v1/arena", tags=["arena"])
Reader = Annotated[Actor, Depends(need("read"))]
Runner = Annotated[Actor, Depends(need("run"))]
Labeler = Annotated[Actor, Depends(need("label"))]
Name = Annotated[str, Field(max_length=200)]
FEWEST_VOTES = 10
"""Below so many answers, or below two policies that played, there is nothing to rate: only counts are given."""
AT_ONCE = 200  # rows that go into the store's writer together, so that people's answers go in between


class BetterSay(models.Say):
    """In which share `p` of the resamples a policy's rating was above that of `than`, the generation before it; `n` is how
    often the two met themselves."""

    than: str
    p: float
    n: int


class PolicySay(models.Say):
    """A policy: its rating with the 95 % interval, the games it rests on, and the places between which it may stand.

    `rating`, `low`, `high`, `rank` and `better` are null while there is nothing to say yet.
    """

    policy: str
    rating: float | None
    low: float | None
    high: float | None
    games: int
    rank: tuple[int, int] | None
    better: BetterSay | None


class RateSay(models.Say):
    """How often `policy` beat `against` in `n` votes, ties counted half, with the 95 % interval."""

    policy: str
    against: str
    mean: float
    low: float
    high: float
    n: int


class LinkSay(models.Say):
    """A match that would join policies which cannot be compared yet; `waiting` of this pair are asked and not answered."""

    a: str
    b: str
    waiting: int


class LengthSay(models.Say):
    """By how many nats the odds of a win rise for a text that is longer by the `typical` share, with the 95 % interval."""

    coefficient: float
    low: float
    high: float
    typical: float


class ArenaSay(models.Say):
    """Ratings and what they rest on. `policies` stand from best to worst, `generations` are their names in the order they were
    made. `enough` is false while there are too few answers to rate anybody.

    `cursor` is the last row of the store's answers that was read, `at` when it was (seconds since 1970). With `stale` newer
    ratings are being worked out; `problem` says why they could not be. `project` is the open project that asks for these
    matches to be answered, or "".
    """

    purpose: str
    by: By
    length: Literal["raw", "controlled"]
    anchor: str | None
    project: str
    votes: int
    annotators: int
    prompts: int
    enough: bool
    comparable: bool
    regularised: bool
    policies: list[PolicySay]
    generations: list[str]
    win_rates: list[RateSay]
    groups: list[list[str]]
    links: list[LinkSay]
    effect: LengthSay | None
    notes: list[str]
    cursor: int
    at: float
    seconds: float
    stale: bool
    problem: str


class BattlesSay(models.Say):
    """The project of the arena's matches, "" where there is none, and whether it is open."""

    project: str
    open: bool


class OfferSay(models.Say):
    """`n` matches of two policies that could be asked, from what a run has written."""

    run: str
    a: str
    b: str
    n: int


class QueueBody(models.Body):
    """Which pairs of a run's policies to match, on up to `limit` prompts each."""

    run: Name
    pairs: Annotated[list[Annotated[list[Name], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=400)]
    limit: Annotated[int, Field(ge=1, le=2000)] = 200
    purpose: Annotated[str, Field(min_length=1, max_length=64)] = "arena"


class QueuedSay(models.Say):
    """Matches that wait for an answer now, and how many more had two identical texts and count as ties."""

    queued: int
    same_text: int


@router.get("", summary="Ratings, and how sure they are")
async def ratings(
    request: Request,
    actor: Reader,
    purpose: Annotated[str, Query(min_length=1, max_length=64)] = "arena",
    by: By = "all",
    length: Literal["raw", "controlled"] = "raw",
    anchor: Annotated[str | None, Query(max_length=200)] = None,
) -> ArenaSay:
    """Bradley–Terry ratings of the policies that were matched, with 95 % intervals.

    `by` says whose answers count: people have an account here, everybody else is a machine. `length=controlled` rates at equal
    length. `anchor` is who stands at 1000: by default the fine-tuned policy, and with an empty name the mean of all.
    """
    here = studio(request)
    people = frozenset(person.name for person in await asyncio.to_thread(here.accounts.everybody))
    wanted = Wanted(purpose, by, length == "controlled", anchor)
    rated, stale, problem = await here.board.rated(wanted, people)
    projects = await asyncio.to_thread(here.projects.all)
    project = next((each.id for each in projects if each.purpose == purpose and each.open), "")
    return _said(rated, wanted, project, stale, problem)


@router.get("/project", summary="Where battles are answered")
def project(request: Request, actor: Labeler) -> BattlesSay:
    """The project that asks for the arena's matches to be answered."""
    found = next((each for each in studio(request).projects.all() if each.purpose == "arena"), None)
    return BattlesSay(project=found.id if found else "", open=found is not None and found.open)


@router.get("/offers", summary="Matches that could be asked")
async def offers(
    request: Request, actor: Runner, purpose: Annotated[str, Query(min_length=1, max_length=64)] = "arena"
) -> list[OfferSay]:
    """What the runs of this studio have written for the same prompts and nobody was asked about."""
    here = studio(request)

    def find(games: Games) -> list[OfferSay]:
        from backflip.arena import kept

        found = kept.offers(games, kept.kept_runs(here.runs), home=_home(here))
        return [OfferSay(**offer._asdict()) for offer in found]

    found: list[OfferSay] = await here.board.with_games(purpose, find)
    return found


@router.post("/queue", summary="Ask for matches")
async def queue(request: Request, actor: Runner, body: QueueBody) -> QueuedSay:
    """Add matches from what a run has written already; nothing is generated. What was asked before is not asked again."""
    here = studio(request)

    def add(games: Games) -> QueuedSay:
        from backflip.arena import kept

        run: KeptRun | None = next((run for run in kept.kept_runs(here.runs) if run.id == body.run), None)
        if run is None:
            raise HTTPException(404, f"there is no run {body.run[:70]!r} with samples for the arena")
        pairs = [(a, b) for a, b in body.pairs]
        if any(a == b for a, b in pairs):
            raise DataError("a match is between two policies, not one and itself")
        added = kept.add_kept(_Gently(here), games, run, pairs, limit=body.limit, home=_home(here))
        return QueuedSay(queued=len(added.queries), same_text=added.same_text)

    found: QueuedSay = await here.board.with_games(body.purpose, add)
    return found


class _Gently:
    """The store's writer, given a little at a time: whoever answers meanwhile waits for one part, not for all."""

    def __init__(self, here: Studio) -> None:
        self._here = here

    def add_queries(self, queries: Iterable[Question]) -> int:
        given = list(queries)
        parts = [given[i : i + AT_ONCE] for i in range(0, len(given), AT_ONCE)]
        return sum(self._here.submit(self._here.store.add_queries, part).result() for part in parts)

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> int:
        given = list(verdicts)
        parts = [given[i : i + AT_ONCE] for i in range(0, len(given), AT_ONCE)]
        return sum(self._here.submit(self._here.store.add_verdicts, part).result() for part in parts)


def _home(here: Studio) -> Path | None:
    """The folder of the run whose store this is, where it is a file."""
    try:
        return here.store.path.parent
    except UserError:
        return None


def _said(rated: Rated, wanted: Wanted, project: str, stale: bool, problem: str) -> ArenaSay:
    from backflip.arena.order import generation_order

    table = rated.table
    enough = rated.votes >= FEWEST_VOTES and sum(rating.matches > 0 for rating in table.ratings) > 1
    order = generation_order(rating.policy for rating in table.ratings)
    placed = [name for name in order if name in table.rank_ranges] if enough else []
    before = {name: placed[i - 1] for i, name in enumerate(placed) if i}
    policies = []
    for rating in table.ratings:
        name, shown = rating.policy, rating.policy in placed
        met = table.win_rates.get((name, before.get(name, "")))
        better = (
            BetterSay(than=before[name], p=table.better[name, before[name]], n=met.n if met else 0) if name in before else None
        )
        numbers = (rating.rating, rating.low, rating.high) if shown else (None, None, None)
        rank = table.rank_ranges[name] if shown else None
        placing = dict(zip(("rating", "low", "high"), numbers, strict=True))
        policies.append(PolicySay(policy=name, **placing, games=rating.matches, rank=rank, better=better))
    rates: list[dict[str, Any]] = [{"policy": a, "against": b, **r._asdict()} for (a, b), r in table.win_rates.items()]
    return ArenaSay(
        purpose=wanted.purpose, by=wanted.by, length="controlled" if wanted.length_controlled else "raw",
        anchor=table.anchor, project=project, votes=rated.votes, annotators=rated.annotators, prompts=rated.prompts,
        enough=enough, comparable=enough and table.comparable, regularised=enough and table.regularised, policies=policies,
        generations=order, win_rates=[RateSay(**rate) for rate in rates] if enough else [],
        groups=[list(group) for group in table.components],
        links=[LinkSay(a=a, b=b, waiting=waiting) for a, b, waiting in rated.links],
        effect=LengthSay(**table.length._asdict()) if enough and table.length is not None else None,
        notes=[*table.notes, *([] if enough else [f"too few answers to rate anybody: {rated.votes} of {FEWEST_VOTES}"])],
        cursor=rated.marks.verdicts, at=rated.at, seconds=rated.seconds, stale=stale, problem=problem,
    )  # fmt: skip
