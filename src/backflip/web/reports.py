"""How far the answers of each project can be trusted, worked out in a thread of its own and kept for whoever asks.

Questions and answers stay in memory, so only what is new is read. While a newer report is worked out, and where it cannot be, the
last good one is given, with its time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from backflip.errors import BackflipError
from backflip.records import Query
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.adjudications import KIND, Adjudication, latest
from backflip.store.following import Following, Moment, moment
from backflip.store.projects import Project, Projects, gold_purpose

if TYPE_CHECKING:
    from backflip.feedback.figures import Quality, Rater

log = logging.getLogger(__name__)
SEEDS = Seeds(0)  # the same answers have the same intervals, whoever asks
PATIENCE_S = 0.3  # how long a question waits for a newer report before it is given an older one
SPARED = 2.0  # a report that took a second is followed by two seconds in which answers have the processor for themselves
AGAIN_S = 3.0  # how long after a failure it is tried again
MOST_PROJECTS = 8
ALPHA = 0.05
ENOUGH = 20  # answers from which a share is compared with that of the others

Step = Literal["read", "count"]
Kind = Literal["left", "longer", "gold", "consensus", "consistency"]
COINS: tuple[Kind, ...] = ("left", "longer")
SHARES: tuple[Kind, ...] = ("gold", "consensus", "consistency")


class Notice(NamedTuple):
    """Something that a labeler's figures give reason to look at.

    "left" and "longer": the share of decided pairs won by the one shown first, or the longer one, is not ½; `p` is how often a
    fair coin does that. "gold", "consensus" and "consistency": the share of known answers met, of what most others said, or of
    answers that stayed the same, is below that of the other people together, `others`.
    """

    rater: str
    kind: Kind
    value: float
    low: float
    high: float
    n: int
    p: float | None = None
    others: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The quality of a project's answers at a moment: `at`, seconds since 1970, in `seconds` of work.

    `questions` of the project without those whose answer is known, `answers` to all of them by whoever; `queries` are those on
    which people differ most, by id; `decided` what was decided, the last for each question, in the order it was.
    """

    quality: Quality
    notices: tuple[Notice, ...]
    questions: int
    answers: int
    queries: Mapping[str, Query]
    decided: Mapping[str, Adjudication]
    moment: Moment
    at: float
    seconds: float

    def covers(self, now: Moment) -> bool:
        """Whether nothing has changed since."""
        return self.moment.event >= now.event and self.moment.marks.queries >= now.marks.queries


class Failure(NamedTuple):
    """Which step failed, why, and when."""

    step: Step
    problem: str
    at: float


class Found(NamedTuple):
    """The newest report there is, whether anything has changed since, and what was in the way of a newer one."""

    report: Report | None
    current: bool
    failure: Failure | None


@dataclass(slots=True)
class _Entry:
    following: Following
    report: Report | None = None
    failure: Failure | None = None
    running: Future[None] | None = None
    due: float = field(default=0.0)


class Reports:
    """Every method may be called from any thread."""

    def __init__(self, store: Store, projects: Projects, accounts: Accounts, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._projects, self._accounts, self._clock = store, projects, accounts, clock
        self._lock = threading.RLock()
        self._thread: ThreadPoolExecutor | None = None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def find(self, project: Project) -> Found:
        """The report of a project: of this moment if it is ready or comes within a moment, else the last good one."""
        try:
            now = await asyncio.to_thread(moment, self._store)
        except BackflipError as problem:
            entry = self._entry(project)
            return Found(entry.report, False, Failure("read", str(problem), self._clock()))
        entry, running = self._begin(project, now)
        if running is not None:
            await asyncio.wait([asyncio.wrap_future(running)], timeout=None if entry.report is None else PATIENCE_S)
        report = entry.report
        current = report is not None and report.covers(now)
        return Found(report, current, None if current else entry.failure)

    def _begin(self, project: Project, now: Moment) -> tuple[_Entry, Future[None] | None]:
        """A project's entry, and the work on its report where that is under way or needed and due."""
        with self._lock:
            entry = self._entry(project)
            running = entry.running
            if running is None or running.done():
                if (entry.report is not None and entry.report.covers(now)) or time.monotonic() < entry.due:
                    return entry, None
                if self._thread is None:  # one thread: reports are worked out one after the other
                    self._thread = ThreadPoolExecutor(1, "reports")
                running = entry.running = self._thread.submit(self._work, project, entry)
            return entry, running

    def _entry(self, project: Project) -> _Entry:
        with self._lock:
            entry = self._entries.get(project.id)
            if entry is None:
                entry = _Entry(Following(self._store, (project.purpose, gold_purpose(project.purpose))))
                self._entries[project.id] = entry
            self._entries.move_to_end(project.id)
            while len(self._entries) > MOST_PROJECTS:
                self._entries.popitem(last=False)
            return entry

    def _work(self, project: Project, entry: _Entry) -> None:
        """Work out a report, or note what is in the way."""
        began = time.monotonic()
        step: Step = "read"
        try:
            at, now = self._clock(), entry.following.catch_up()
            golds, repeats = self._projects.golds(), self._store.repeats(project.purpose)
            people = frozenset(person.name for person in self._accounts.everybody())
            notes, decided = self._store.events_of(KIND, 2**31), latest(self._store.adjudications(project.purpose))
            step = "count"
            from backflip.feedback.quality import quality

            following = entry.following
            found = quality(
                following.queries, following.verdicts.values(), seeds=SEEDS, events=notes, gold=golds, repeats=repeats,
                people=people,
            )  # fmt: skip
            own = {id for id, query in following.queries.items() if query.purpose == project.purpose}
            entry.report = Report(
                quality=found, notices=tuple(notices(found.raters)), questions=len(own),
                answers=sum(verdict.query_id in own for verdict in following.verdicts.values()),
                queries={unit.query_id: following.queries[unit.query_id] for unit in found.contested},
                decided=decided, moment=now, at=at, seconds=time.monotonic() - began,
            )  # fmt: skip
            entry.failure, entry.due = None, time.monotonic() + SPARED * entry.report.seconds
        except Exception as problem:  # whatever it is: the last good report is still good, and who asks is told
            ours = isinstance(problem, BackflipError)
            log.warning("no agreement of project %s: %s", project.id, problem, exc_info=None if ours else problem)
            entry.failure = Failure(step, str(problem) or type(problem).__name__, self._clock())
            entry.due = time.monotonic() + AGAIN_S


def notices(raters: tuple[Rater, ...]) -> list[Notice]:
    """What to look at. A coin is called unfair at 5 % shared among all who were tested: of twenty people one has p < 0.05 by
    luck (Bonferroni's correction). Who is worse than the others is said where the 95 % interval lies below their share."""
    found = []
    for kind in COINS:
        tested = [(rater.name, getattr(rater, kind)) for rater in raters if getattr(rater, kind).n]
        for name, bias in tested:
            if bias.p is not None and bias.p * len(tested) < ALPHA:
                found.append(Notice(name, kind, bias.value, bias.low, bias.high, bias.n, p=bias.p))
    for kind in SHARES:
        for rater in raters:
            share = getattr(rater, kind)
            known = [getattr(each, kind) for each in raters if each.person and each is not rater]
            n = sum(other.n for other in known)
            if share.n < ENOUGH or n < ENOUGH:
                continue
            others = sum(other.value * other.n for other in known if other.n) / n
            if share.high < others:
                found.append(Notice(rater.name, kind, share.value, share.low, share.high, share.n, others=others))
    return found
